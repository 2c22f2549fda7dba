"""Spiking networks that are trained by backpropagation through time, each from the common network's weights.

- bptt: Lu and Sengupta's rival in the paper's Fig. 4, weights alone, constant input, reset by subtraction.
- hybrid (Rathi et al., Enabling deep spiking neural networks with hybrid conversion and spike timing dependent
  backpropagation, ICLR 2020): starts at 0.7 of spike-norm's thresholds; signed Poisson input; surrogate
  0.3 max(0, 1 - |v/theta - 1|), as in their later code.
- diet (Rathi and Roy, DIET-SNN, 2020): constant input, thresholds and leaks are learned too; starts at 0.3 of the
  99.7 percentile.
- lee (Lee et al., Enabling spike-based backpropagation, Frontiers in Neuroscience 2020): signed Poisson input,
  leak 0.99, reset to zero.
- plif (Fang et al., Incorporating learnable membrane time constant, ICCV 2021): v += (I - v)/tau with tau learned
  for each layer, reset to zero, arctan surrogate.

All fire strictly above the threshold. Spikes of hybrid and DIET-SNN are worth 1 whatever the threshold, so that a
factor on it makes every layer send more: here a spike is worth the threshold without the factor. The authors of
Lee et al. and PLIF start from random weights; from converted ones their neurons would be silent, or never pause,
so these start at the share of the 99.7 percentile, of ``SHARES``, at which the network, not trained yet, loses
least on training images. Their authors train hundreds of epochs from scratch or from a network of their own; here
a few from the common one, which is what makes them comparable, and is said in the table.
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

Started = tuple[SNN, Genes]
Start = Callable[[], Started]

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


def _effort(job: Job, name: str, timesteps: int | None = None) -> Effort:
    """A system's own, but for what was asked for."""
    own = EFFORTS[name]
    epochs = own.epochs if job.epochs is None else job.epochs
    return replace(own, epochs=epochs, batch=job.batch, timesteps=timesteps or own.timesteps)


def _trained(job: Job, name: str, cell: Leaky, start: Start, parts: tuple[str, ...], effort: Effort) -> Converted:
    """Train once for all timesteps; simulate with the same cell."""
    if name not in job.shared:
        snn, genes = start()
        cells, every_step = per_layer(job.network, cell), name == "bptt"
        job.shared[name] = fit_spiking(snn, cells, genes, parts, job.labelled, effort, job.seed, every_step)
    snn, genes = job.shared[name]
    note = f"trained at T = {effort.timesteps}"
    return Converted(of_genes(snn, genes), snn=snn, cells=cell, leak=genes.leak, note=note)


def _from(job: Job, theta: np.ndarray, factor: float = 1.0, leak: float | None = None, v0: float = 0.0) -> Started:
    snn, genes = lowered(job.snn, theta, factor, v0)
    return snn, genes._replace(leak=None if leak is None else np.full_like(genes.threshold, leak))


def _least_lossy(job: Job, cell: Leaky, leak: float, effort: Effort) -> Started:
    """The start at the share of the 99.7 percentile at which the network loses least."""
    theta = _percentile(job)
    images, labels = (jnp.asarray(part[:SHARE_IMAGES]) for part in (job.labelled.images, job.labelled.labels))
    starts = [_from(job, theta, share, leak) for share in SHARES]
    network = starts[0][0].network
    untrained = jax.jit(spiking_loss(starts[0][0], per_layer(network, cell), np.ones(len(theta)), effort, False))

    def loss(start: Started) -> float:
        parts = parts_of(*start)
        parts["thresholds"] = jnp.asarray(start[1].threshold[0], jnp.float32)
        return float(untrained(parts, images, labels, jax.random.key(job.seed)))

    return min(starts, key=loss)


def bptt(job: Job) -> Converted:
    """Weights alone, from half-full neurons at the 99.7 percentile."""
    start = functools.partial(_from, job, _percentile(job), v0=0.5)
    return _trained(job, "bptt", Leaky(fire=TRIANGLE), start, ("weights",), _effort(job, "bptt"))


def diet(job: Job) -> Converted:
    """Weights, thresholds and leaks."""
    start = functools.partial(_from, job, _percentile(job), 0.3, 1.0)
    parts = ("weights", "thresholds", "leak")
    return _trained(job, "diet", Leaky(fire=TRIANGLE), start, parts, _effort(job, "diet"))


def hybrid(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, from 0.7 of spike-norm's thresholds; trained at ``timesteps``."""
    cell = Leaky(fire=TRIANGLE, coding=Poisson(largest_input(job.network)))
    start = functools.partial(_from, job, spike_norm(job), 0.7)
    return _trained(job, "hybrid", cell, start, ("weights",), _effort(job, "hybrid", timesteps))


def lee(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, leaky neurons that are reset to zero; trained at ``timesteps``."""
    cell = Leaky(fire=TRIANGLE, to_zero=True, coding=Poisson(largest_input(job.network)))
    effort = _effort(job, "lee", timesteps)
    start = functools.partial(_least_lossy, job, cell, 0.99, effort)
    return _trained(job, "lee", cell, start, ("weights",), effort)


def plif(job: Job) -> Converted:
    """Weights and a time constant a layer, from tau = 2."""
    cell, effort = Leaky(fire=ARCTAN, to_zero=True, averaging=True), _effort(job, "plif")
    start = functools.partial(_least_lossy, job, cell, 0.5, effort)
    return _trained(job, "plif", cell, start, ("weights", "leak"), effort)
