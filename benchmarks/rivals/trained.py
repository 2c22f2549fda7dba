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

All fire strictly above the threshold. Their authors train hundreds of epochs from scratch or from a network of
their own; here a few from the common one, which is what makes them comparable, and is said in the table.
"""

import functools
from dataclasses import replace

import numpy as np

from benchmarks.few.task import Converted
from benchmarks.rivals.descent import Effort, fit_spiking
from benchmarks.rivals.spike_norm import spike_norm
from benchmarks.rivals.system import Job
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.unroll import per_layer
from jaxsnn.simulation.surrogate import spike

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


def _percentile(job: Job, factor: float) -> np.ndarray:
    return factor * calibrate(job.network, job.snn.params, job.images).threshold(99.7)[None]


def _trained(
    job: Job, name: str, cell: Leaky, start: Genes, parts: tuple[str, ...], timesteps: int | None = None
) -> Converted:
    """Train once for all timesteps, at ``timesteps`` instead of the system's own; simulate with the same cell."""
    effort = EFFORTS[name]
    effort = replace(effort, timesteps=timesteps or effort.timesteps)
    if name not in job.shared:
        effort = replace(effort, epochs=effort.epochs if job.epochs is None else job.epochs, batch=job.batch)
        cells, every_step = per_layer(job.network, cell), name == "bptt"
        job.shared[name] = fit_spiking(job.snn, cells, start, parts, job.labelled, effort, job.seed, every_step)
    snn, genes = job.shared[name]
    note = f"trained at T = {effort.timesteps}"
    return Converted(of_genes(snn, genes), snn=snn, cells=cell, leak=genes.leak, note=note)


def bptt(job: Job) -> Converted:
    """Weights alone, from half-full neurons at the 99.7 percentile."""
    theta = _percentile(job, 1.0)
    start = Genes(theta, np.full_like(theta, 0.5))
    return _trained(job, "bptt", Leaky(fire=TRIANGLE), start, ("weights",))


def diet(job: Job) -> Converted:
    """Weights, thresholds and leaks."""
    theta = _percentile(job, 0.3)
    start = Genes(theta, None, np.full_like(theta, 1.0))
    return _trained(job, "diet", Leaky(fire=TRIANGLE), start, ("weights", "thresholds", "leak"))


def hybrid(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, from 0.7 of spike-norm's thresholds; trained at ``timesteps``."""
    start = Genes(0.7 * spike_norm(job)[None])
    cell = Leaky(fire=TRIANGLE, coding=Poisson(largest_input(job.network)))
    return _trained(job, "hybrid", cell, start, ("weights",), timesteps)


def lee(job: Job, timesteps: int | None = None) -> Converted:
    """Weights, leaky neurons that are reset to zero; trained at ``timesteps``."""
    theta = _percentile(job, 1.0)
    start = Genes(theta, None, np.full_like(theta, 0.99))
    cell = Leaky(fire=TRIANGLE, to_zero=True, coding=Poisson(largest_input(job.network)))
    return _trained(job, "lee", cell, start, ("weights",), timesteps)


def plif(job: Job) -> Converted:
    """Weights and a time constant a layer, from tau = 2."""
    theta = _percentile(job, 0.3)
    start = Genes(theta, None, np.full_like(theta, 0.5))
    cell = Leaky(fire=ARCTAN, to_zero=True, averaging=True)
    return _trained(job, "plif", cell, start, ("weights", "leak"))
