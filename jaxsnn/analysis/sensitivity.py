"""Adversarial noise sensitivity of each layer: how much an attack moves it (the paper's eq. 14-15).

A = ||a_adv - a||_2 / ||a||_2 per layer, the norm taken over the activation maps of all images together. The
activation is the ReLU's (or QCFS's) output for the ANN (eq. 14) and the spikes summed over time for the SNN
(eq. 15). In a layer that never spikes on clean images the ratio is undefined: None.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.activations import activations
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.senders import own
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes, check_single
from jaxsnn.simulation.step import initial_state, neurons_of, snn_step, wire


def ann_sensitivity(snn: SNN, clean: np.ndarray, attacked: np.ndarray, batch: int = 100) -> list[float | None]:
    """Eq. 14 for every spiking layer of the ANN; ``clean`` and ``attacked`` are uint8 images (N, H, W, C)."""

    def activations(images: np.ndarray) -> list[jax.Array]:
        return _activations(snn.network, snn.params, images)

    return _ratios(activations, clean, attacked, batch)


def snn_sensitivity(
    snn: SNN,
    genes: Genes,
    clean: np.ndarray,
    attacked: np.ndarray,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    batch: int = 50,
) -> list[float | None]:
    """Eq. 15 for every spiking layer of one candidate; ``genes`` are (1, L) each.

    With a layer delay the sum leaves out, in every layer, the spikes that can no longer reach the read-out within
    ``timesteps``.
    """
    check_genes(snn.network, genes)
    check_single(dynamics, "noise sensitivity is")
    silent = dynamics.silent_steps(snn.network)
    if timesteps <= silent:
        raise UserError(f"timesteps is {timesteps}, expected more than the layer delay of {silent} steps")
    one = genes.map(lambda gene: np.asarray(gene, np.float32)[0])

    def counts(images: np.ndarray) -> list[jax.Array]:
        return _spike_counts(snn.network, snn.params, one, images, timesteps - silent, dynamics.comparison)

    return _ratios(counts, clean, attacked, batch)


@functools.partial(jax.jit, static_argnames=("network", "steps", "comparison"))
@jax.default_matmul_precision("highest")  # a GPU would take TF32
def _spike_counts(network, params, genes, images, steps: int, comparison: str) -> list[jax.Array]:
    """Spikes of every neuron over ``steps`` delay-free steps, (B, *shape) per layer; ``genes`` are (L,) each."""
    wiring, neurons = wire(network, params, images), neurons_of(network, genes, params)
    dynamics, layers = Dynamics(comparison, "none"), own(network)

    def step(carry, _):
        state, counts = carry
        state, spikes = snn_step(network, dynamics, wiring, neurons, state)
        return (state, [count + spikes[number] for count, number in zip(counts, layers)]), None

    state = initial_state(network, neurons, len(images))
    start = (state, [jax.numpy.zeros_like(v) for v in state.membranes])
    return jax.lax.scan(step, start, length=steps)[0][1]


@functools.partial(jax.jit, static_argnames="network")
@jax.default_matmul_precision("highest")  # a GPU would take TF32
def _activations(network, params, images):
    activate = activations(network, params)
    return [activate(sums) for sums in ann_forward(network, params, images)[:-1]]


def _ratios(
    activations: Callable[[np.ndarray], Sequence[jax.Array]], clean: np.ndarray, attacked: np.ndarray, batch: int
) -> list[float | None]:
    """Norm of the change over the norm, per layer, from sums of squares in float64 over batches."""
    if clean.shape != attacked.shape or not len(clean):
        raise UserError(f"clean images {clean.shape} and attacked images {attacked.shape} are not of one shape")
    change, norm = np.zeros(1), np.zeros(1)  # becomes one number a layer
    for start in range(0, len(clean), batch):
        pair = [activations(images[start : start + batch]) for images in (clean, attacked)]
        before, after = ([np.asarray(a, np.float64).ravel() for a in layers] for layers in pair)
        change = change + np.array([np.sum((b - a) ** 2) for a, b in zip(before, after)])
        norm = norm + np.array([np.sum(a**2) for a in before])
    return [float(np.sqrt(c / n)) if n > 0 else None for c, n in zip(change, norm)]
