"""AdaFire: how many spikes a step each layer may send, searched without training (Wang et al., Adaptive
calibration: a unified conversion framework of spiking neural networks, AAAI 2025), after their code.

A neuron sends s = clip(floor(v / theta), 0, Gamma) spikes. For each layer and Gamma, theta is the least squared
error's against the ANN's activations, theta/T clip(floor(z T/theta + 1/2), 0, Gamma T). How much a choice costs is
the symmetric divergence of the class probabilities from the ANN's, on a few calibration images, with the other
layers at ``USUAL``; the layers' choices are then made together, the least sum of divergences for at most as many
spikes as all layers at ``USUAL`` send (a dynamic programme that keeps what nothing beats).

Deviations: thresholds a layer (theirs: a channel), membranes that begin half full for theta/(2 T) at each step, no
correction of biases; ``IMAGES`` images in the sweep.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few import mmse
from benchmarks.few.task import Converted, Task
from jaxsnn.conversion.channels import of_genes
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
    """A threshold and a Gamma a layer."""
    theta = np.array([[t[0] for t in mmse.thresholds(task, 0.5, False, gamma)] for gamma in GAMMAS])  # (G, L)
    divergence, spikes = sweep(task, theta)
    budget = float(spikes[USUAL].sum())
    _, _, picked = chosen(spikes, divergence, budget)
    genes = Genes(theta[list(picked), range(len(picked))][None], np.full((1, len(picked)), 0.5))
    cells = tuple(Several(most=GAMMAS[index]) for index in picked)
    note = "Gamma " + ", ".join(str(GAMMAS[index]) for index in picked)
    return Converted(of_genes(task.snn, genes), cells=cells, note=note)


def sweep(task: Task, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divergence, and spikes of the layer, (G, L), of each layer at each Gamma while the others are usual."""
    images, layers = task.images[:IMAGES], theta.shape[1]
    target = jax.nn.log_softmax(teacher_logits(task.snn, images))
    keys, many = keys_of(0, len(images)), jnp.asarray(GAMMAS, jnp.float32)
    table = jnp.asarray(theta, jnp.float32)

    @jax.jit
    def one(picked: jax.Array) -> tuple[jax.Array, jax.Array]:
        cells = tuple(Several(most=most) for most in many[picked])  # type: ignore[arg-type]
        thresholds = table[picked, jnp.arange(layers)]
        genes = Genes(thresholds, jnp.full(layers, 0.5))
        steps = task.timesteps
        curve, counts, _ = unrolled(
            task.network, task.snn.params, cells, genes, images, steps, keys, lambda s: jnp.sum(s)
        )
        found = jax.nn.log_softmax(curve[-1] / steps)
        both = ((jnp.exp(target) - jnp.exp(found)) * (target - found)).sum(-1).mean()
        return both, jnp.stack([count.sum() for count in counts])

    divergence, spikes = np.zeros(theta.shape), np.zeros(theta.shape)
    for layer in range(layers):
        for index in range(len(GAMMAS)):
            picked = np.full(layers, USUAL)
            picked[layer] = index
            both, sent = one(jnp.asarray(picked))
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
