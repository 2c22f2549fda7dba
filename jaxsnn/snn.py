"""A converted network and one timestep of it for one candidate; callers add scan and vmap."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.convert import preprocess
from jaxsnn.errors import UserError
from jaxsnn.linear import LinearMap, linear_map
from jaxsnn.network import IMAGE, Edge, Network, layer_shapes
from jaxsnn.neuron import if_step


@dataclass(frozen=True)
class SNN:
    """A converted network: a folded description and its float32 parameters."""

    network: Network
    params: dict[str, np.ndarray]


class Genes(NamedTuple):
    """What a candidate sets, per spiking layer; leading axis P (candidates), then L (layers).

    ``threshold`` is in the units of the ANN's activations, ``v0`` the initial membrane as a fraction of the
    threshold (None: 0), ``leak`` the factor on the membrane at each step (None: 1).
    """

    threshold: np.ndarray
    v0: np.ndarray | None = None
    leak: np.ndarray | None = None


@dataclass(frozen=True)
class Dynamics:
    """What the neuron does: ``comparison`` is ">" or ">=", ``delay`` is "layer" (the paper's) or "none"."""

    comparison: str = ">"
    delay: str = "layer"

    def __post_init__(self):
        if self.comparison not in (">", ">="):
            raise UserError(f"comparison is {self.comparison!r}, expected '>' or '>='")
        if self.delay not in ("layer", "none"):
            raise UserError(f"delay is {self.delay!r}, expected 'layer' or 'none'")

    def silent_steps(self, network: Network) -> int:
        """Steps before the first input can reach the read-out."""
        return network.delay if self.delay == "layer" else 0


class Wiring(NamedTuple):
    """What drives each layer, over one batch of images.

    Attributes:
        constant: per layer, the drive that does not change over time, for all steps and candidates computed
            once: the image's (a constant current) and the biases'; (B or 1, *shape).
        synapses: per layer, (source layer, linear map) of every edge that carries spikes.
    """

    constant: list[jax.Array]
    synapses: list[list[tuple[int, LinearMap]]]


class State(NamedTuple):
    """``membranes``: (B, *shape) per spiking layer, in ANN units; ``scores``: (B, classes), summed over time."""

    membranes: list[jax.Array]
    scores: jax.Array


def wire(network: Network, params: dict[str, jax.Array], images: jax.Array) -> Wiring:
    """The wiring of a folded network for uint8 images (B, H, W, C)."""
    x = preprocess(network, images)
    shapes = layer_shapes(network)
    constant, synapses = [], []
    for layer in network.layers:
        fixed, maps = 0.0, []
        for edge in layer.edges:
            shape = network.input_shape if edge.source == IMAGE else shapes[edge.source]
            linear, bias = _edge_parts(edge, params, shape)
            fixed = fixed + bias
            if edge.source == IMAGE:
                fixed = fixed + linear(x)
            else:
                maps.append((edge.source, linear))
        constant.append(fixed)
        synapses.append(maps)
    return Wiring(constant, synapses)


def _edge_parts(edge: Edge, params: dict[str, jax.Array], shape: tuple[int, ...]) -> tuple[LinearMap, jax.Array]:
    """An edge as a linear map and the constant that its biases add, (1, *output)."""
    without_bias = {name: value for name, value in params.items() if name.endswith(".kernel")}
    linear = linear_map(edge.ops, without_bias, shape)
    constant = linear_map(edge.ops, params, shape)(jnp.zeros((1, *shape)))
    return linear, constant


def initial_state(network: Network, genes: Genes, images: int) -> State:
    """Membranes at v0 * threshold and scores at zero; ``genes`` are one candidate's, (L,) each."""
    starts = [0.0 if genes.v0 is None else genes.v0[i] * genes.threshold[i] for i in range(len(network.spiking))]
    shapes = layer_shapes(network)
    membranes = [jnp.full((images, *shape), v, jnp.float32) for shape, v in zip(shapes, starts)]
    return State(membranes, jnp.zeros((images, network.classes)))


def snn_step(
    network: Network, dynamics: Dynamics, wiring: Wiring, genes: Genes, state: State
) -> tuple[State, list[jax.Array]]:
    """One step without layer delay; ``genes`` are one candidate's, (L,) each.

    A layer's drive is theta_source * W s_source + b: a spike carries its threshold as amplitude, which keeps the
    ANN's scale and leaves the shared weights untouched. A layer starts with its first input step (bias, leak and
    v0 included), so that a run with a delay of one step per layer is this one, shifted; an edge that skips
    layers waits, so that both paths of a residual add meet.

    Returns:
        the new state, and the spikes of each spiking layer as 0.0 or 1.0.
    """
    membranes, spikes = [], []
    for index, (fixed, maps) in enumerate(zip(wiring.constant, wiring.synapses)):
        drive = fixed
        for source, linear in maps:
            drive = drive + genes.threshold[source] * linear(spikes[source])
        if index == len(network.spiking):
            break
        leak = None if genes.leak is None else genes.leak[index]
        v, fired = if_step(state.membranes[index], drive, genes.threshold[index], leak, dynamics.comparison)
        membranes.append(v)
        spikes.append(fired.astype(v.dtype))
    return State(membranes, state.scores + drive), spikes


def check_genes(network: Network, genes: Genes) -> None:
    """Raise ``UserError`` where genes do not fit the network or the neuron."""
    layers = len(network.spiking)
    for name, part in zip(Genes._fields, genes):
        if part is None:
            continue
        part = np.asarray(part)
        if part.ndim != 2 or part.shape[1] != layers:
            raise UserError(
                f"{name} has shape {part.shape}, expected (candidates, {layers}): one per spiking layer"
            )
        if name == "threshold":
            good, rule = part > 0, "positive"
        elif name == "leak":
            good, rule = (part > 0) & (part <= 1), "in (0, 1]"
        else:
            good, rule = (part >= 0) & (part < 1), "in [0, 1)"
        if not (good & np.isfinite(part)).all():
            row, layer = np.argwhere(~(good & np.isfinite(part)))[0]
            raise UserError(
                f"{name} of layer {network.layers[layer].name} is {part[row, layer]}, expected finite and {rule}"
            )
