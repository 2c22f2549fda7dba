"""The measures of NeuroBench, as its harness 2.3 defines them, computed by the simulator.

J. Yik et al.: The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems, Nature
Communications 2025. Synaptic operations are counted at every convolution and dense map and every step: effective
ones join an input that is not 0 and a weight that is not 0; dense ones join all inputs and weights. Padding,
biases and pools are left out. Where all inputs of a map are -1, 0 or 1 they are accumulations (ACs), otherwise
multiplications (MACs): those of the image, and those that an average pool is in front of.
``Observables.synops`` is another measure, without the image, in which a pool's spikes stay spikes.
"""

import functools
from dataclasses import asdict, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.analysis.operations import products
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Arrays, Conv, Dense, Network, Op, layer_shapes, output_shape
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.senders import heard, own
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.simulation.step import initial_state, neurons_of, snn_step, wire

BATCH = 20
"""Images at once."""


@dataclass(frozen=True)
class NeuroBench:
    """NeuroBench's measures, an image where it is not a share.

    Attributes:
        activation_sparsity: zeros among the outputs of all neurons and steps.
        effective_macs, effective_acs, dense: synaptic operations.
        membrane_updates: membranes that a step changes, all of them in the first.
    """

    activation_sparsity: float
    effective_macs: float
    effective_acs: float
    dense: float
    membrane_updates: float

    def to_json(self) -> dict[str, float]:
        """By NeuroBench's names."""
        names = ("ActivationSparsity", "Effective_MACs", "Effective_ACs", "Dense", "MembraneUpdates")
        return dict(zip(names, asdict(self).values()))


class _Site(NamedTuple):
    """A map that is counted: its edge's sender, the linear ops in front of it; the shapes that both read."""

    source: int
    before: tuple[Op, ...]
    op: Conv | Dense
    whole: tuple[int, ...]
    shape: tuple[int, ...]


class _Counts(NamedTuple):
    """Of one step: (sites, B) operations, (sites, B) whether all inputs are 0 or 1; (B,) spikes and updates."""

    operations: jax.Array
    binary: jax.Array
    spikes: jax.Array
    updates: jax.Array


def neurobench(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    *,
    timesteps: int,
    comparison: str = ">",
    image_every_step: bool = True,
) -> NeuroBench:
    """NeuroBench's measures of one candidate.

    Args:
        images: uint8 (N, H, W, C).
        timesteps: without layer delay.
        image_every_step: the maps of the image count at every step, as where a simulator computes them again.

    Raises:
        UserError: no images or timesteps, or genes that do not fit.
    """
    check_genes(snn.network, genes)
    if not len(images) or timesteps < 1:
        raise UserError(f"there are {len(images)} images and {timesteps} timesteps, expected at least one of each")
    one = genes.map(lambda part: jnp.asarray(part[0], jnp.float32))
    sites = _sites(snn.network)
    dynamics = Dynamics(comparison, "none")
    image = np.array([site.source == IMAGE for site in sites])
    times = np.where(image[None, :] & (np.arange(timesteps)[:, None] > 0) & (not image_every_step), 0, 1)
    macs, acs, spikes, updates = 0.0, 0.0, 0, 0
    for start in range(0, len(images), BATCH):
        part = np.asarray(images[start : start + BATCH])
        found = _count(snn.network, timesteps, dynamics, snn.params, one, part)
        operations = np.asarray(found.operations, np.int64).sum(2) * times
        binary = np.asarray(found.binary).all(2)
        macs, acs = macs + operations[~binary].sum(), acs + operations[binary].sum()
        spikes, updates = spikes + int(found.spikes.sum()), updates + int(found.updates.sum())
    cells = sum(int(np.prod(shape)) for shape in layer_shapes(snn.network)[:-1]) * timesteps * len(images)
    dense = float((times * np.array([products(site.op, site.shape) for site in sites])).sum())
    return NeuroBench(
        1 - spikes / cells, float(macs / len(images)), float(acs / len(images)), dense, updates / len(images)
    )


def _sites(network: Network) -> list[_Site]:
    places = [place for edges in heard(network) for place in edges]
    return [site for edge, sender, shape in places for site in _sites_of(edge.linear, sender, shape)]


def _sites_of(ops: tuple[Op, ...], sender: int, whole: tuple[int, ...]) -> list[_Site]:
    shape, found = whole, []
    for position, op in enumerate(ops):
        if isinstance(op, Conv | Dense):
            found.append(_Site(sender, ops[:position], op, whole, shape))
        shape = output_shape(op, shape)
    return found


def _reach(site: _Site, params: Arrays) -> jax.Array:
    """How many weights that are not 0 each input drives, int32 of the input's shape."""
    name = f"{site.op.name}.kernel"
    nonzero = {name: (jnp.asarray(params[name]) != 0).astype(jnp.float32)}
    mapped = linear_map((site.op,), nonzero, site.shape)
    return jnp.round(jax.grad(lambda x: mapped(x).sum())(jnp.zeros((1, *site.shape)))[0]).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("network", "timesteps", "dynamics"))
def _count(
    network: Network, timesteps: int, dynamics: Dynamics, params: Arrays, genes: Genes, images: jax.Array
) -> _Counts:
    """The counts of each step, with a leading axis of time."""
    sites = _sites(network)
    wiring, neurons = wire(network, params, images, jnp.float32), neurons_of(network, genes, params)
    before = [linear_map(site.before, params, site.whole, sums=jnp.float32) for site in sites]
    reaches = [_reach(site, params) for site in sites]
    pixels, batch, layers = preprocess(network, images), len(images), own(network)

    def step(state, _):
        new, spikes = snn_step(network, dynamics, wiring, neurons, state)
        operations, binary = [], []
        for site, leading, reach in zip(sites, before, reaches):
            x = leading(pixels if site.source == IMAGE else spikes[site.source]).reshape(batch, *site.shape)
            axes = tuple(range(1, x.ndim))
            operations.append(jnp.where(x != 0, reach, 0).sum(axes))
            binary.append(((x == 0) | (jnp.abs(x) == 1)).all(axes))
        fired = jnp.stack([spikes[k].astype(jnp.int32).reshape(batch, -1).sum(1) for k in layers]).sum(0)
        pairs = zip(state.membranes, new.membranes)
        changed = jnp.stack([(a != b).reshape(batch, -1).sum(1) for a, b in pairs]).sum(0)
        return new, _Counts(jnp.stack(operations), jnp.stack(binary), fired, changed)

    counts = jax.lax.scan(step, initial_state(network, neurons, batch), length=timesteps)[1]
    cells = sum(int(np.prod(shape)) for shape in layer_shapes(network)[:-1])
    return counts._replace(updates=counts.updates.at[0].set(cells))
