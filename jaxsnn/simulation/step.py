"""A converted network and one timestep of it for one candidate; callers add scan and vmap."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.networks.description import IMAGE, Arrays, Network, layer_shapes
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import LinearMap, linear_map
from jaxsnn.networks.senders import all_passed, gates, heard, passed
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.neuron import Fire, if_step


class Wiring(NamedTuple):
    """What drives each layer, over one batch of images.

    Attributes:
        constant: per layer, the drive that does not change over time, for all steps and candidates computed
            once: the image's (a constant current) and the biases'; (B or 1, *shape).
        synapses: per layer, (sender, linear map) of every edge that carries spikes; senders are counted as in
            ``jaxsnn.networks.senders``, as layers where there are no max pools.
    """

    constant: list[jax.Array]
    synapses: list[list[tuple[int, LinearMap]]]


class Neurons(NamedTuple):
    """One candidate's neurons as numbers, per layer; scalars, or one for each channel.

    Attributes:
        gains: per layer, read-out included, and synapse: what a spike's sum of weights is multiplied with.
        thresholds, starts: per spiking layer, what must be exceeded to fire, and the initial membrane.
        leaks: per spiking layer, or None.
        biases: per layer, read-out included, a constant drive of this candidate alone, or None.
    """

    gains: list[list]
    thresholds: list
    starts: list
    leaks: list | None = None
    biases: list | None = None


class State(NamedTuple):
    """``membranes``: (B, *shape) per spiking layer, in ANN units; ``scores``: (B, classes), summed over time;
    ``counts``: (B, *shape) per max pool, the spikes of its layer so far."""

    membranes: list[jax.Array]
    scores: jax.Array
    counts: tuple[jax.Array, ...] = ()


def wire(
    network: Network,
    params: Arrays,
    images: jax.Array,
    dtype: jax.typing.DTypeLike | None = None,
) -> Wiring:
    """The wiring of a folded network for images (B, H, W, C): uint8, or float pixels in [0, 1].

    Args:
        dtype: type of the weights that spikes drive, with sums in float32 without shortcuts (TF32); None leaves
            types and precision to the parameters and to XLA, and gradients fast.
    """
    x = preprocess(network, images)
    shapes = layer_shapes(network)
    # the constant drives, too, without shortcuts
    exact = None if dtype is None else jnp.float32
    constant, synapses = [], []
    for edges, output in zip(heard(network), shapes):
        fixed, maps = jnp.zeros((1, *output)), []
        for edge, sender, shape in edges:
            if any(getattr(op, "bias", False) for op in edge.ops):
                fixed = fixed + linear_map(edge.linear, params, shape, sums=exact)(jnp.zeros((1, *shape)))
            if sender == IMAGE:
                fixed = fixed + linear_map(edge.linear, without_biases(params), shape, sums=exact)(x)
            else:
                kernels = without_biases(params)
                if dtype is not None:
                    kernels = {name: _held(value.astype(dtype)) for name, value in kernels.items()}
                maps.append((sender, linear_map(edge.linear, kernels, shape, sums=exact)))
        constant.append(fixed)
        synapses.append(maps)
    return Wiring(constant, synapses)


def _held(kernel: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """A kernel as products read it: a CPU's are float32, and widening at each of them made bfloat16 slower."""
    return kernel.astype(jnp.float32) if jax.default_backend() == "cpu" else kernel


def without_biases(params: Arrays) -> dict[str, np.ndarray | jax.Array]:
    """The kernels alone."""
    return {name: value for name, value in params.items() if name.endswith(".kernel")}


def neurons_of(network: Network, genes: Genes, params: Arrays) -> Neurons:
    """The neurons of one candidate with ``genes`` (L,) each, in the units of the ANN's activations.

    A layer's drive is theta_source * W s_source + b: a spike carries its threshold as amplitude, which keeps the
    ANN's scale and leaves the shared weights untouched. Where a layer has membranes of its own to start from,
    ``params`` hold them.
    """
    layers = range(len(network.spiking))
    gains = [[genes.threshold[e.source] for e in layer.edges if e.source != IMAGE] for layer in network.layers]
    starts = [0.0 if genes.v0 is None else genes.v0[i] * genes.threshold[i] for i in layers]
    for i, layer in enumerate(network.spiking):
        if layer.start:
            starts[i] = starts[i] + params[f"{layer.name}.start"] * genes.threshold[i]
    leaks = None if genes.leak is None else [genes.leak[i] for i in layers]
    return Neurons(gains, [genes.threshold[i] for i in layers], starts, leaks)


def initial_state(
    network: Network, neurons: Neurons, images: int, dtype: jax.typing.DTypeLike = jnp.float32
) -> State:
    """Membranes where they start and scores at zero."""
    shapes = layer_shapes(network)
    membranes = [
        jnp.broadcast_to(jnp.asarray(v, dtype), (images, *shape)) for shape, v in zip(shapes, neurons.starts)
    ]
    counts = tuple(jnp.zeros((images, *shape)) for shape, pools in zip(shapes, gates(network)) for _ in pools)
    return State(membranes, jnp.zeros((images, network.classes), dtype), counts)


def snn_step(
    network: Network,
    dynamics: Dynamics,
    wiring: Wiring,
    neurons: Neurons,
    state: State,
    fire: Fire | None = None,
) -> tuple[State, list[jax.Array]]:
    """One step without layer delay, for one candidate; ``fire`` as in ``if_step``.

    A layer starts with its first input step (bias, leak and v0 included), so that a run with a delay of one step
    per layer is this one, shifted; an edge that skips layers waits, so that both paths of a residual add meet.

    Returns:
        the new state, and the spikes of each sender as 0 or 1.
    """
    membranes, spikes, counts, pools = [], [], [], gates(network)
    for index, (fixed, maps) in enumerate(zip(wiring.constant, wiring.synapses)):
        with jax.named_scope(f"layer{index}"):
            drive = fixed if neurons.biases is None else fixed + neurons.biases[index]
            for gain, (source, linear) in zip(neurons.gains[index], maps):
                drive = drive + gain * linear(spikes[source])
            if index == len(network.spiking):
                return State(membranes, state.scores + drive, tuple(counts)), spikes
            leak = None if neurons.leaks is None else neurons.leaks[index]
            v, fired = if_step(
                state.membranes[index], drive, neurons.thresholds[index], leak, dynamics.comparison, fire
            )
            membranes.append(v)
            sent = fired.astype(jnp.float32)
            spikes.append(sent)
            for pool in pools[index]:
                count, through = passed(pool, state.counts[len(counts)], sent)
                counts.append(count)
                spikes.append(through)
    raise ValueError(f"network {network.name} has no read-out")


def snn_block(
    network: Network, dynamics: Dynamics, wiring: Wiring, neurons: Neurons, state: State, steps: int
) -> tuple[State, list[jax.Array], jax.Array]:
    """``steps`` of ``snn_step``, layer by layer: each layer does them all before the next begins.

    Only the neurons go step by step: a layer's linear map sees the spikes of all steps as one batch, which fills a
    device where there are few images.

    Returns:
        the new state, the spikes (steps, B, *shape) of each sender, and the scores (steps, B, classes).
    """
    membranes, spikes, counts, pools = [], [], [], gates(network)
    for index, (fixed, maps) in enumerate(zip(wiring.constant, wiring.synapses)):
        with jax.named_scope(f"layer{index}"):
            fixed = fixed if neurons.biases is None else fixed + neurons.biases[index]
            held = state.scores if index == len(network.spiking) else state.membranes[index]
            drive = drive_of(fixed, neurons.gains[index], maps, spikes, held, steps)
            if index == len(network.spiking):
                scores, curve = scores_of(held, drive)
                return State(membranes, scores, tuple(counts)), spikes, curve
            leak = None if neurons.leaks is None else neurons.leaks[index]
            v, fired = fired_of(drive, neurons.thresholds[index], leak, held, dynamics.comparison, jnp.float32)
            membranes.append(v)
            spikes.append(fired)
            for pool in pools[index]:
                count, through = all_passed(pool, state.counts[len(counts)], fired)
                counts.append(count)
                spikes.append(through)
    raise ValueError(f"network {network.name} has no read-out")


def drive_of(
    fixed: jax.Array,
    gains: list,
    maps: list[tuple[int, LinearMap]],
    spikes: Sequence[jax.Array] | Mapping[int, jax.Array],
    held: jax.Array,
    steps: int,
) -> jax.Array:
    """Drives (steps, *held.shape) of a layer by its linear maps from ``spikes`` (steps, B, *shape)."""
    for gain, (source, linear) in zip(gains, maps):
        x = spikes[source].astype(jnp.float32)
        sums = linear(x.reshape(-1, *x.shape[2:]))
        fixed = fixed + gain * sums.reshape(steps, -1, *sums.shape[1:])
    return jnp.broadcast_to(fixed, (steps, *held.shape))


def fired_of(
    drive: jax.Array, theta, leak, v: jax.Array, comparison: str, held: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Membranes and spikes of the type ``held``, (steps, *v.shape), of a layer."""

    def one(v: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
        return if_step(v, drive, theta, leak, comparison)

    v, fired = jax.lax.scan(one, v, drive)
    return v, fired.astype(held)


def scores_of(scores: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores after all steps, and after each."""

    def add(scores: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
        return scores + drive, scores + drive

    return jax.lax.scan(add, scores, drive)
