"""A foreign file's modules put into a network: which module is which op, and PyTorch's layouts into ours.

Modules are matched by name where every op of the network is called like one, otherwise in their order,
convolutions, linear maps and norms apart. Kernels go from (O, I, k, k) to (k, k, I, O), and a linear map after a
flatten from columns in C, H, W order to rows in H, W, C order.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxsnn.conversion.matching import Row, _row, _to_params, match
from jaxsnn.conversion.state_dicts import CONVOLUTION, LINEAR, NORM, ForeignFile, Module
from jaxsnn.conversion.torch_twin import refuse_quantised
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import ARCHITECTURES, CIFAR_MEAN, CIFAR_STD, architecture
from jaxsnn.networks.description import (
    BatchNorm,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    Op,
    Params,
    WithParameters,
    walk,
)
from jaxsnn.networks.json_format import from_json, to_json


@dataclass(frozen=True)
class Imported:
    """A foreign network in our layout.

    Attributes:
        modules: the module of every op with parameters, by op name.
        notes: how the file was read and the network found, and what was left out; a sentence each.
    """

    network: Network
    params: Params
    modules: dict[str, Module]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def import_network(
    file: ForeignFile,
    network: str | None = None,
    *,
    image_shape: tuple[int, int, int] | None = None,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Imported:
    """The file's weights as a network of ours.

    Args:
        network: an architecture's name or the path of a description (``.json``); None infers it from the shapes.
        image_shape: (H, W, C) of the images that it is for; 32 x 32 with the file's channels unless given.
        width, mean, std: of a named or inferred architecture. Mean and std are CIFAR-10's unless given.

    Raises:
        UserError: the network cannot be found, or the file's weights are not those that it needs.
    """
    where = str(file.path)
    if network is not None and network.endswith(".json"):
        found, notes = _described(Path(network)), ()
    else:
        options = _options(file, image_shape, mean, std)
        notes = _normalisation_note(mean)
        if network is None:
            found, how = _inferred(file, options)
            notes = (how, *notes)
        else:
            found = _with_biases_of(file, architecture(network, width=width, **options))
    refuse_quantised(found)
    modules = match(found, file.modules, where)
    params = {}
    rows = []
    for layer, edge, op, shape in walk(found):
        if isinstance(op, WithParameters):
            params |= _to_params(op, shape, modules[op.name])
        rows.append(_row(layer, edge, op, shape, modules))
    return Imported(found, params, modules, tuple(rows), (*file.notes, *notes))


def describe(
    file: ForeignFile,
    network: str | None,
    image_shape: tuple[int, int, int],
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> str:
    """A description (JSON) to edit: of the named network, or the file's modules in a row.

    Pools, strides and shortcuts leave no trace in a file of weights and have to be put in by hand.
    """
    options = _options(file, image_shape, mean, std)
    if network is None:
        found = _chain(file.modules, options)
    else:
        found = _with_biases_of(file, architecture(network, width=width, **options))
    return json.dumps(json.loads(to_json(found)), indent=2) + "\n"


def _described(path: Path) -> Network:
    if not path.is_file():
        raise UserError(f"no network description at {path}")
    try:
        return from_json(path.read_text())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error


def _options(
    file: ForeignFile,
    image_shape: tuple[int, int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict:
    """What the file and the images say about a network that is known by its name."""
    convolutions = [m for m in file.modules if m.kind == CONVOLUTION]
    linears = [m for m in file.modules if m.kind == LINEAR]
    if not linears:
        raise UserError(f"{file.path} holds no linear map, which a network needs to end in")
    channels = convolutions[0].tensors["weight"].shape[1] if convolutions else 3
    shape = image_shape or (32, 32, channels)
    if (mean is None) != (std is None):
        raise UserError("--mean and --std belong together: give both or none")
    if mean is None and shape[2] != 3:
        raise UserError(
            f"--mean and --std are needed, {shape[2]} numbers each: {file.path} does not say how its images of "
            f"{shape[2]} channels are normalised"
        )
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != shape[2]:
            raise UserError(f"--{name} has {len(values)} numbers, expected one for each of {shape[2]} channels")
    if std is not None and not all(value > 0 for value in std):
        raise UserError("--std must be above 0")
    classes = linears[-1].tensors["weight"].shape[0]
    return {"classes": classes, "input_shape": shape, "mean": mean or CIFAR_MEAN, "std": std or CIFAR_STD}


def _normalisation_note(mean: Sequence[float] | None) -> tuple[str, ...]:
    if mean is not None:
        return ()
    return (
        f"images are taken to be normalised by CIFAR-10's mean {CIFAR_MEAN} and standard deviation {CIFAR_STD}",
    )


def _with_biases_of(file: ForeignFile, network: Network) -> Network:
    """The named network with a bias where the file's maps have one: names do not say."""
    ops = [op for _, _, op, _ in walk(network)]
    flags: dict[str, bool] = {}
    for cls, kind in ((Conv, CONVOLUTION), (Dense, LINEAR)):
        named = {m.name: m for m in file.modules if m.kind == kind}
        ours = [op.name for op in ops if isinstance(op, cls)]
        theirs = [named[n] for n in ours] if set(ours) <= named.keys() else list(named.values())
        flags |= {name: "bias" in module.tensors for name, module in zip(ours, theirs)}

    def edge(e: Edge) -> Edge:
        return replace(
            e,
            ops=tuple(
                replace(op, bias=flags.get(op.name, op.bias)) if isinstance(op, Conv | Dense) else op
                for op in e.ops
            ),
        )

    layers = tuple(replace(layer, edges=tuple(map(edge, layer.edges))) for layer in network.layers)
    return replace(network, layers=layers)


def _inferred(file: ForeignFile, options: dict) -> tuple[Network, str]:
    """The only known architecture that the shapes fit, or layers in a row that need no pool."""
    fits = []
    for name in ARCHITECTURES:
        try:
            network = _with_biases_of(file, architecture(name, **options))
            match(network, file.modules, str(file.path))
        except UserError:
            continue
        fits.append(network)
    if len(fits) == 1:
        return fits[0], (
            f"the shapes fit {fits[0].name} alone among the known architectures: its pools and shortcuts are "
            "assumed, which the weights cannot confirm; compare the accuracy"
        )
    chain = _chain(file.modules, options)
    try:
        match(chain, file.modules, str(file.path))
        return chain, "the shapes fit layers in a row without pools and strides, which is what is assumed"
    except UserError as error:
        known = f"fit {' and '.join(n.name for n in fits)}" if fits else "fit no known architecture"
        raise UserError(
            f"{file.path} has no network description and its shapes {known}: give --network NAME "
            f"({', '.join(ARCHITECTURES)}) or --network FILE.json; python -m jaxsnn.import_weights {file.path} "
            "--describe FILE.json writes one to put pools into"
        ) from error


def _chain(modules: Sequence[Module], options: dict) -> Network:
    """The modules in a row, an activation after every map and its norm; ops are called like the modules."""
    groups: list[list[Module]] = []
    for module in modules:
        if module.kind == NORM and groups:
            groups[-1].append(module)
        else:
            groups.append([module])
    layers = []
    for index, group in enumerate(groups):
        ops = tuple(_op_of(module) for module in group)
        layers.append(Layer(group[0].name, (Edge(index - 1, ops),)))
    return Network(
        "inferred",
        tuple(options["input_shape"]),
        options["classes"],
        tuple(layers),
        tuple(options["mean"]),
        tuple(options["std"]),
    )


def _op_of(module: Module) -> Op:
    if module.kind == NORM:
        return BatchNorm(module.name)
    weight = module.tensors["weight"]
    bias = "bias" in module.tensors
    if module.kind == LINEAR:
        return Dense(module.name, weight.shape[0], bias)
    return Conv(module.name, weight.shape[0], weight.shape[2], bias=bias)
