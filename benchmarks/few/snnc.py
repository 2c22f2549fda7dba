"""SNN calibration of Li et al. (A free lunch from ANN, ICML 2021), after their code.

Thresholds by least squared error (``benchmarks.few.mmse`` with shift 0), membranes that begin empty and get
theta/(2 T) more at each step, ">=". Then layer by layer, with the corrected layers in front:

- light: each channel's bias loses mean(SNN output / T) - mean(ANN output) over images and positions, once.
- advanced: each neuron's membrane begins at T (mean ANN output - mean SNN output / T) over images. No bias is
  corrected. Their code for CIFAR leaves their calibration of weights out ("calibrating the potential only achieves
  best results"), and so does this. A start for each neuron cannot be folded into a channel: that row is simulated
  here. ``advanced_channels`` takes the mean over positions as well, and folds.

Deviations: all calibration images are one batch (theirs: one of 128, augmented); a layer is what the network
describes, so that a pool between a convolution and its neurons is part of it. Their scripts have 32 steps fixed in
the code, here T is that of the simulation. Thresholds are per layer, as in their scripts for CIFAR;
``light_channels`` has one a channel, which their code offers. Published: VGG-16 on CIFAR-10, ANN 95.76 %, T = 16:
light 93.30, advanced 93.65 %, neither 64.52 %.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.few import mmse
from benchmarks.few.layerwise import Neurons, Walk, ann_means
from benchmarks.few.task import Converted, Task, alike
from jaxsnn.conversion.channels import Channels, can_bias

COMPARISON = ">="
Correction = Callable[[Neurons, np.ndarray, int], Neurons]
"""Neurons, mean of SNN output / T - ANN output (*shape), and T to neurons."""


def light(task: Task) -> Converted:
    """A threshold a layer, a bias a channel."""
    return _folded(task, correct(task, mmse.thresholds(task, 0.0, False), lower_bias))


def light_channels(task: Task) -> Converted:
    """A threshold and a bias a channel."""
    return _folded(task, correct(task, mmse.thresholds(task, 0.0, True), lower_bias))


def advanced(task: Task) -> Converted:
    """A threshold a layer, a start a neuron."""
    neurons = correct(task, mmse.thresholds(task, 0.0, False), fill)
    return Converted(_channels(task, neurons), COMPARISON, tuple(neurons))


def advanced_channels(task: Task) -> Converted:
    """A threshold a layer, a start a channel."""
    return _folded(task, correct(task, mmse.thresholds(task, 0.0, False), fill_channels))


def plain(theta: np.ndarray, timesteps: int) -> Neurons:
    """Neurons before their correction: empty, with theta/(2 T) more at each step."""
    return Neurons(theta, theta, theta / (2 * timesteps), np.zeros(len(theta)))


def correct(task: Task, thresholds: list[np.ndarray], correction: Correction) -> list[Neurons]:
    """Neurons of each layer in turn, corrected behind corrected layers."""
    walk = Walk(task.snn, task.images, task.timesteps, COMPARISON)
    found = []
    for index, (theta, mean) in enumerate(zip(thresholds, ann_means(task.snn, task.images))):
        neurons = plain(theta, task.timesteps)
        if correction is not lower_bias or can_bias(task.network.layers[index]):
            neurons = correction(neurons, walk.output(index, neurons) - mean, task.timesteps)
        walk.fire(index, neurons)
        found.append(neurons)
    return found


def lower_bias(neurons: Neurons, error: np.ndarray, timesteps: int) -> Neurons:
    """The mean error of each channel taken from its bias."""
    return replace(neurons, bias=neurons.bias - _over_positions(error))


def fill(neurons: Neurons, error: np.ndarray, timesteps: int) -> Neurons:
    """Membranes of each neuron that make up for its error over T steps."""
    return replace(neurons, start=-timesteps * error)


def fill_channels(neurons: Neurons, error: np.ndarray, timesteps: int) -> Neurons:
    """The same for each channel."""
    return replace(neurons, start=-timesteps * _over_positions(error))


def _over_positions(error: np.ndarray) -> np.ndarray:
    return error.reshape(-1, error.shape[-1]).mean(0)


def _channels(task: Task, neurons: list[Neurons]) -> Channels:
    """Channels with the neurons' thresholds and biases, and the mean start of each channel."""
    thetas = [layer.threshold for layer in neurons]
    channels = alike(thetas, [layer.bias for layer in neurons], 0.0, task.network.classes)
    starts = tuple(
        np.broadcast_to(layer.start, (1, *layer.start.shape)).reshape(-1, len(theta)).mean(0) / theta
        for layer, theta in zip(neurons, thetas)
    )
    return Channels(channels.thresholds, channels.amplitudes, channels.biases, starts)


def _folded(task: Task, neurons: list[Neurons]) -> Converted:
    return Converted(_channels(task, neurons), COMPARISON)
