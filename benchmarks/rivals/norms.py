"""Thresholds read from the ANN's activations, one a layer, and the neurons that their authors put behind them.

- max-norm: Diehl et al. (Fast-classifying, high-accuracy spiking deep networks, IJCNN 2015), after Cao et al.
  (Spiking deep convolutional neural networks, IJCV 2015): the largest activation; random input; reset to zero.
- robust: Rueckauer et al. (Conversion of continuous-valued deep networks, Frontiers in Neuroscience 2017): the
  99.9 percentile of the activations that are not zero (their toolbox), constant input, ">=", reset by subtraction.
- deng-gu: Deng and Gu (Optimal conversion of conventional artificial neural networks, ICLR 2021): the largest
  activation of an ANN with clipped ReLUs, theta/(2 T) more at each step, ">=". Here the ANN is the common one,
  whose ReLUs are not clipped.
"""

import numpy as np

from benchmarks.few.layerwise import ann_sums
from benchmarks.few.task import Converted, Task, alike
from jaxsnn.conversion.channels import can_bias, of_genes
from jaxsnn.networks.description import layer_shapes
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson

ROBUST = 99.9


def largest(task: Task) -> np.ndarray:
    """The largest activation of each spiking layer, (L,)."""
    tops = np.zeros(len(task.network.spiking))
    for sums in ann_sums(task.snn, task.images):
        tops = np.maximum(tops, [s.max() for s in sums[:-1]])
    return tops


def robust_thresholds(task: Task) -> np.ndarray:
    """The 99.9 percentile of each spiking layer's activations above zero, (L,)."""
    active: list[list[np.ndarray]] = [[] for _ in task.network.spiking]
    for sums in ann_sums(task.snn, task.images):
        for found, values in zip(active, sums):
            found.append(values[values > 0])
    return np.array([np.percentile(np.concatenate(found), ROBUST) for found in active], np.float64)


def max_norm(task: Task) -> Converted:
    """Random input, reset to zero."""
    cell = Leaky(to_zero=True, coding=Poisson(largest_input(task.network)))
    return Converted(of_genes(task.snn, Genes(largest(task)[None])), cells=cell)


def robust(task: Task) -> Converted:
    """Constant input, reset by subtraction."""
    return Converted(of_genes(task.snn, Genes(robust_thresholds(task)[None])), ">=")


def deng_gu(task: Task) -> Converted:
    """The largest activation and half a threshold, spread over T steps."""
    thetas = [np.full(shape[-1], top) for shape, top in zip(layer_shapes(task.network), largest(task))]
    extra = [theta / (2 * task.timesteps) * can_bias(l) for theta, l in zip(thetas, task.network.spiking)]
    return Converted(alike(thetas, extra, 0.0, task.network.classes), ">=")
