"""Converted networks whose neurons speak another code: phases, bursts, signed spikes.

Thresholds are those of Park's code, the 99.9 percentile of the layer's activations here as in robust
normalisation (theirs: of each neuron, then the largest of the layer), but for signed spikes and several spikes a
step, which take the 99.7 percentile, half full, as their authors take the largest or a percentile of it.

- phase: Kim et al. 2018, K = 8, image as bits (``jaxsnn.simulation.cells.phase``).
- burst: Park et al. 2019, first threshold 0.4 of the norm, doubling; constant input (theirs: phases too).
- several: Li and Zeng 2022, up to 5 spikes a step.
- signed: Wang et al. 2022.
"""

import numpy as np

from benchmarks.few.task import Converted, Task
from benchmarks.rivals.norms import robust_thresholds
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.burst import Burst, Several
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.cells.phase import Bits, Phase
from jaxsnn.simulation.cells.signed import Signed

FIRST = 0.4
"""Of the norm: the threshold of a burst's first spike."""


def _at(task: Task, theta: np.ndarray, cell: Cell, v0: float = 0.0) -> Converted:
    genes = Genes(theta[None], np.full((1, len(theta)), v0) if v0 else None)
    return Converted(of_genes(task.snn, genes), cells=cell)


def phase(task: Task) -> Converted:
    """Weighted phases; T counts steps, eight of which are a period."""
    return _at(task, robust_thresholds(task), Phase(coding=Bits(largest_input(task.network))))


def burst(task: Task) -> Converted:
    """Bursts."""
    return _at(task, FIRST * robust_thresholds(task), Burst())


def _usual(task: Task) -> np.ndarray:
    return calibrate(task.network, task.snn.params, task.images).threshold(99.7)


def several(task: Task) -> Converted:
    """Up to five spikes a step."""
    return _at(task, _usual(task), Several(), 0.5)


def signed(task: Task) -> Converted:
    """Spikes that can be taken back."""
    return _at(task, _usual(task), Signed(), 0.5)
