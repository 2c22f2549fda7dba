"""What an image costs: counted operations times picojoules, for the spiking network and for its ANN.

The usual estimate: E = MACs * E_mac + synaptic operations * E_add (M. Horowitz, Computing's energy problem, ISSCC
2014, 45 nm). The maps that read the image are analog, multiplications; every other spike is additions. The drive
of the image is constant and computed once. Beside it stands the ANN, all of whose maps are MACs. Memory is left
out, which takes most of the energy of real chips: ``jaxsnn.analysis.memory_energy`` counts it.

Everything is counted by the layer that sends: ``image`` first, then each spiking layer.
"""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxsnn.analysis.memory_energy import ann_with_memory, snn_with_memory
from jaxsnn.analysis.operations import Activity, macs, neurons
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking_input import plain_input
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import check_file

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Costs:
    """Picojoules an operation.

    Attributes:
        mac: a multiplication and its addition.
        add: an addition, what a spike causes at every weight it drives.
        membrane: reading and writing a neuron's membrane, once a step.
        spike: sending a spike.
        image_every_step: compute the image's drive at every step, not once.
    """

    mac: float
    add: float
    membrane: float = 0.0
    spike: float = 0.0
    image_every_step: bool = False


HOROWITZ = {"FP32": Costs(4.6, 0.9), "FP16": Costs(1.5, 0.4), "INT8": Costs(0.23, 0.03)}
"""45 nm, 0.9 V: multiplication plus addition, and addition, of each format."""


def ann_energy(network: Network, costs: Costs) -> tuple[float, ...]:
    """Picojoules an image, by the layer that is read."""
    return tuple(count * costs.mac for count in macs(network))


def snn_energy(network: Network, activity: Activity, costs: Costs) -> tuple[float, ...]:
    """Picojoules an image, by the layer that sends: the image, then each spiking layer."""
    times = activity.steps if costs.image_every_step else 1
    rows = zip(activity.synops, activity.spikes, neurons(network), strict=True)
    return (
        macs(network)[0] * costs.mac * times,
        *(
            synops * costs.add + spikes * costs.spike + count * activity.steps * costs.membrane
            for synops, spikes, count in rows
        ),
    )


def read_costs(path: Path | None) -> dict[str, Costs]:
    """One's own constants: a TOML file with a table of picojoules for each kind of hardware; none without a file.

        [my-chip]
        mac = 3.1
        add = 0.1
        membrane = 0.2           # optional, as are spike and image_every_step

    Raises:
        UserError: no such file, or something else in it.
    """
    if path is None:
        return {}
    check_file(path)
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    if not content:
        raise UserError(f"{path} has no table of picojoules, such as [my-chip] with mac = 3.1 and add = 0.1")
    return {name: _costs(Entries.of(table, f"{path}: {name}"), name, path) for name, table in content.items()}


def _costs(table: Entries, name: str, path: Path) -> Costs:
    known = [field.name for field in fields(Costs)]
    unknown = sorted(table.record.keys() - set(known))
    if unknown:
        raise UserError(f"{path}: {name} has {unknown[0]}, expected some of {', '.join(known)}")
    if name in HOROWITZ or not name.isprintable():
        raise UserError(f"{path}: {name!r} is taken, or no name: choose another")
    every = table.record.get("image_every_step", False)
    if type(every) is not bool:
        raise table.wrong("image_every_step", "true or false")
    numbers = {key: table.number(key) for key in known[:-1] if key in table.record or key in ("mac", "add")}
    for key, value in numbers.items():
        if value < 0:
            raise table.wrong(key, "at least 0")
    return Costs(**numbers, image_every_step=every)


def energy_record(
    network: Network,
    activities: Mapping[str, Activity],
    own: Mapping[str, Costs] | None = None,
) -> dict[str, Any]:
    """What results.json holds of the energy: microjoules an image, by the layer that sends, and in total.

    Args:
        activities: of each spiking network by name.
        own: more kinds of hardware.
    """
    kinds: dict[str, Any] = {}
    for name, costs in {**HOROWITZ, **(own or {})}.items():
        kinds[name] = {"ann": _microjoules(_of_ann(network, partial(ann_energy, costs=costs)))}
        kinds[name] |= {
            which: _microjoules(snn_energy(network, activity, costs)) for which, activity in activities.items()
        }
    kinds["with memory"] = {"ann": _microjoules(_of_ann(network, ann_with_memory))}
    kinds["with memory"] |= {
        which: _microjoules(snn_with_memory(network, activity)) for which, activity in activities.items()
    }
    return {
        "unit": "microjoule an image",
        "layers": ["image", *(layer.name for layer in network.spiking)],
        "ann_macs": list(_of_ann(network, macs)),
        "steps": {which: activity.steps for which, activity in activities.items()},
        "picojoules": {name: asdict(costs) for name, costs in {**HOROWITZ, **(own or {})}.items()},
        "kinds": kinds,
        "totals": {name: {which: math.fsum(rows) for which, rows in kind.items()} for name, kind in kinds.items()},
    }


def _of_ann(network: Network, count: Callable[[Network], tuple[N, ...]]) -> tuple[N | int, ...]:
    """What is counted of the ANN, by the layer that is read: it has no neurons that send the image."""
    ann = plain_input(network)
    image, *rest = count(ann)
    return (image, *([] if ann is network else [0]), *rest)


def _microjoules(picojoules: Sequence[float]) -> list[float]:
    return (np.asarray(picojoules, np.float64) * 1e-6).tolist()


def energy_of(
    network: Network, tested: Mapping[str, Any], own: Mapping[str, Costs] | None = None
) -> dict[str, Any]:
    """``energy_record`` of the networks in the test part of a results.json."""
    silent = tested["delay_steps"] if tested["delay"] == "layer" else 0
    activities = {
        which: Activity(
            max(0, tested["timesteps"] - silent),
            tuple(tested[which]["spikes_per_image_by_layer"]),
            tuple(tested[which]["synops_per_image_by_layer"]),
        )
        for which in ("baseline", "half_full", "optimized")
        if which in tested
    }
    return energy_record(network, activities, own)
