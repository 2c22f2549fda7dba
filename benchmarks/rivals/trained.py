"""Spiking networks that are trained by backpropagation through time, each from the common network's weights.

- bptt: Lu and Sengupta's rival in the paper's Fig. 4, weights alone, constant input, reset by subtraction.
- hybrid (Rathi et al., Enabling deep spiking neural networks with hybrid conversion and spike timing dependent
  backpropagation, ICLR 2020): starts from spike-norm's thresholds (0.7 of them in theirs); signed Poisson input;
  surrogate 0.3 max(0, 1 - |v/theta - 1|), as in their later code.
- diet (Rathi and Roy, DIET-SNN, 2020): constant input, thresholds and leaks are learned too; starts from the 99.7
  percentile (0.3 of it in theirs).
- lee (Lee et al., Enabling spike-based backpropagation, Frontiers in Neuroscience 2020): signed Poisson input,
  leak 0.99, reset to zero (from random weights in theirs).
- plif (Fang et al., Incorporating learnable membrane time constant, ICCV 2021): v += (I - v)/tau with tau learned
  for each layer, reset to zero, arctan surrogate (from random weights in theirs).

All fire strictly above the threshold, and all but bptt start at that share of their thresholds, of ``SHARES``, at
which the network, not trained yet, loses least on training images. A spike is worth the whole threshold, so that a
share makes every layer send more, as where a spike is worth 1. Their authors train hundreds of epochs from scratch
or from a network of their own; here a few from the common one, which is what makes them comparable, and is said in
the table.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.task import Converted
from benchmarks.rivals.descent import Effort, fit_spiking, spiking_loss
from benchmarks.rivals.spike_norm import lowered, spike_norm
from benchmarks.rivals.system import Job
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.unroll import per_layer
from jaxsnn.simulation.surrogate import spike
from jaxsnn.training.bptt import parts_of

TRIANGLE = functools.partial(spike, kind="triangle", scale=0.3)
ARCTAN = functools.partial(spike, kind="arctan", scale=1.0)
CONSTANT_STEPS, POISSON_STEPS = 8, 32
EFFORTS = {
    "bptt": Effort(3, timesteps=CONSTANT_STEPS),
    "diet": Effort(4, rate=2e-4, timesteps=CONSTANT_STEPS),
    "plif": Effort(6, rate=5e-4, timesteps=CONSTANT_STEPS),
    "hybrid": Effort(2, timesteps=POISSON_STEPS),
    "lee": Effort(2, rate=3e-4, timesteps=POISSON_STEPS),
}
"""Epochs and rates of each; two to six epochs of 50,000 images are what a minute or two on an H100 allows."""


SHARES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
SHARE_IMAGES = 200


def _percentile(job: Job) -> np.ndarray:
    return calibrate(job.network, job.snn.params, job.images).threshold(99.7)


def _trained(
    job: Job,
    name: str,
    cell: Leaky,
    start: Callable[[Job, Leaky, Effort], tuple[SNN, Genes]],
    parts: tuple[str, ...] = ("weights",),
    timesteps: int | None = None,
) -> Converted:
    """Train once for all timesteps, at ``timesteps`` instead of the system's own; simulate with the same cell."""
    own = EFFORTS[name]
    epochs = own.epochs if job.epochs is None else job.epochs
    effort = replace(own, epochs=epochs, batch=job.batch, timesteps=timesteps or own.timesteps)
    if name not in job.shared:
        snn, genes = start(job, cell, effort)
        cells, every_step = per_layer(snn.network, cell), name == "bptt"
        job.shared[name] = fit_spiking(snn, cells, genes, parts, job.labelled, effort, job.seed, every_step)
    snn, genes = job.shared[name]
    note = f"trained at T = {effort.timesteps}"
    return Converted(of_genes(snn, genes), snn=snn, cells=cell, leak=genes.leak, note=note)


def _half_full(job: Job, cell: Leaky, effort: Effort) -> tuple[SNN, Genes]:
    theta = _percentile(job)[None]
    return job.snn, Genes(theta, np.full_like(theta, 0.5))


def _least_lossy(
    job: Job, cell: Leaky, effort: Effort, *, thresholds: Callable[[Job], np.ndarray], leak: float = 1.0
) -> tuple[SNN, Genes]:
    """The start at the share of ``thresholds`` at which the network loses least."""
    theta = thresholds(job)
    images, labels = (jnp.asarray(part[:SHARE_IMAGES]) for part in (job.labelled.images, job.labelled.labels))
    starts = [lowered(job.snn, theta, share) for share in SHARES]
    starts = [(snn, genes._replace(leak=np.full_like(genes.threshold, leak))) for snn, genes in starts]
    snn, _ = starts[0]  # all have one network
    untrained = jax.jit(spiking_loss(snn, per_layer(snn.network, cell), np.ones(len(theta)), effort, False))

    def loss(start: tuple[SNN, Genes]) -> float:
        parts = parts_of(*start) | {"thresholds": jnp.asarray(start[1].threshold[0], jnp.float32)}
        return float(untrained(parts, images, labels, jax.random.key(job.seed)))

    return min(starts, key=loss)


def bptt(job: Job) -> Converted:
    """Weights alone, from half-full neurons at the 99.7 percentile."""
    return _trained(job, "bptt", Leaky(fire=TRIANGLE), _half_full)


def diet(job: Job) -> Converted:
    """Weights, thresholds and leaks."""
    start = functools.partial(_least_lossy, thresholds=_percentile)
    return _trained(job, "diet", Leaky(fire=TRIANGLE), start, ("weights", "thresholds", "leak"))


def hybrid(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, from spike-norm's thresholds; trained at ``timesteps``."""
    cell = Leaky(fire=TRIANGLE, coding=Poisson(largest_input(job.network)))
    start = functools.partial(_least_lossy, thresholds=spike_norm)
    return _trained(job, "hybrid", cell, start, timesteps=timesteps)


def lee(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, leaky neurons that are reset to zero; trained at ``timesteps``."""
    cell = Leaky(fire=TRIANGLE, to_zero=True, coding=Poisson(largest_input(job.network)))
    start = functools.partial(_least_lossy, thresholds=_percentile, leak=0.99)
    return _trained(job, "lee", cell, start, timesteps=timesteps)


def plif(job: Job) -> Converted:
    """Weights and a time constant a layer, from tau = 2."""
    cell = Leaky(fire=ARCTAN, to_zero=True, averaging=True)
    start = functools.partial(_least_lossy, thresholds=_percentile, leak=0.5)
    return _trained(job, "plif", cell, start, ("weights", "leak"))
