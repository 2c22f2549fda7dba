"""AdaFire: how many spikes a step each layer may send, searched without training (Wang et al., Adaptive
calibration: a unified conversion framework of spiking neural networks, AAAI 2025), after their code.

A neuron sends s = clip(floor(v / theta), 0, Gamma) spikes. For each channel and Gamma, theta is the least squared
error's against the ANN's activations, theta/T clip(floor(z T/theta + 1/2), 0, Gamma T). How much a choice costs is
the symmetric divergence of the class probabilities from the ANN's, on a few calibration images, with the other
layers at ``USUAL``; the layers' choices are then made together, the least sum of divergences for at most as many
spikes as all layers at ``USUAL`` send (a dynamic programme that keeps what nothing beats). Then each channel's
bias takes its mean error back, layer by layer (their light calibration).

Deviations: membranes that begin half full for theta/(2 T) at each step; ``IMAGES`` images in the sweep.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few import mmse
from benchmarks.few.layerwise import Neurons, Walk, ann_means
from benchmarks.few.snnc import lower_bias
from benchmarks.few.task import Converted, Task, alike
from jaxsnn.conversion.channels import can_bias, fold_channels
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.spiking import Genes
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.cells.unroll import keys_of, unrolled
from jaxsnn.training.distillation import teacher_logits

GAMMAS = (1, 2, 4, 8)
USUAL = 2
"""Its index."""
IMAGES = 32
Choice = tuple[float, float, tuple[int, ...]]
"""Spikes, divergence, and which of ``GAMMAS`` each layer has."""


def searched(task: Task) -> Converted:
    """A threshold a channel and a Gamma a layer."""
    table = [mmse.thresholds(task, 0.5, True, gamma) for gamma in GAMMAS]
    divergence, spikes = sweep(task, table)
    _, _, picked = chosen(spikes, divergence, float(spikes[USUAL].sum()))
    gammas = [GAMMAS[index] for index in picked]
    thresholds = [table[index][layer] for layer, index in enumerate(picked)]
    channels = alike(thresholds, corrected(task, thresholds, gammas), 0.5, task.network.classes)
    note = "Gamma " + ", ".join(map(str, gammas))
    return Converted(channels, cells=tuple(Several(most=gamma) for gamma in gammas), note=note)


def corrected(task: Task, thresholds: Sequence[np.ndarray], gammas: Sequence[int]) -> list[np.ndarray]:
    """Biases (C,) of each layer in turn that take its channels' mean errors back, behind corrected layers."""
    # bytes for spikes wherever a layer may send several
    walk = Walk(task.snn, task.images, task.timesteps, ">=", max(gammas))
    biases, means = [], ann_means(task.snn, task.images)
    for index, (theta, most) in enumerate(zip(thresholds, gammas)):
        neurons = Neurons(theta, theta, np.zeros(len(theta)), 0.5 * theta, most)
        if can_bias(task.network.layers[index]):
            neurons = lower_bias(neurons, walk.output(index, neurons) - means[index], task.timesteps)
        walk.fire(index, neurons)
        biases.append(neurons.bias)
    return biases


def sweep(task: Task, table: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Divergence, and spikes of the layer, (G, L), of each layer at each Gamma while the others are usual.

    Args:
        table: thresholds (C,) of each layer for each of ``GAMMAS``.
    """
    images, layers, steps = task.images[:IMAGES], len(task.network.spiking), task.timesteps
    target = jax.nn.log_softmax(teacher_logits(task.snn, images))
    keys, many = keys_of(0, len(images)), jnp.asarray(GAMMAS, jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def one(network: Network, params: Arrays, genes: Genes, picked: jax.Array) -> tuple[jax.Array, jax.Array]:
        cells = tuple(Several(most=most) for most in many[picked])  # type: ignore[arg-type]
        curve, counts, _ = unrolled(network, params, cells, genes, images, steps, keys, lambda s: jnp.sum(s))
        found = jax.nn.log_softmax(curve[-1] / steps)
        both = ((jnp.exp(target) - jnp.exp(found)) * (target - found)).sum(-1).mean()
        return both, jnp.stack([count.sum() for count in counts])

    divergence, spikes = np.zeros((2, len(GAMMAS), layers))
    for layer in range(layers):
        for index in range(len(GAMMAS)):
            picked = [index if other == layer else USUAL for other in range(layers)]
            thresholds = [table[row][place] for place, row in enumerate(picked)]
            still = [np.zeros(len(theta)) for theta in thresholds]
            folded, genes = fold_channels(task.snn, alike(thresholds, still, 0.5, task.network.classes))
            genes = genes.candidate(0).map(lambda part: np.asarray(part[0], np.float32))
            both, sent = one(folded.network, folded.params, genes, jnp.asarray(picked))
            divergence[index, layer], spikes[index, layer] = float(both), float(sent[layer])
    return divergence, spikes


def chosen(spikes: np.ndarray, divergence: np.ndarray, budget: float) -> Choice:
    """The choice of a row (G, L) for each layer with the least sum of divergences within the budget of spikes; the
    one with the fewest spikes where none is within."""
    kept: list[Choice] = [(0.0, 0.0, ())]
    for layer in range(spikes.shape[1]):
        grown = [
            (sent + spikes[row, layer], lost + divergence[row, layer], (*before, row))
            for sent, lost, before in kept
            for row in range(len(spikes))
        ]
        kept = unbeaten(grown)
    within = [choice for choice in kept if choice[0] <= budget * (1 + 1e-9)]
    return min(within, key=lambda choice: choice[1]) if within else kept[0]


def unbeaten(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other with at most their spikes matches in divergence, by spikes."""
    found: list[Choice] = []
    for choice in sorted(choices):
        if not found or choice[1] < found[-1][1]:
            found.append(choice)
    return found
