"""The simulator with a gradient: spikes whose derivative is a surrogate's, unrolled over time (BPTT).

Eq. 18, ds/du = gamma max(0, 1 - |u|), takes the "normalised membrane potential" u of Bellec et al., 2018
(https://arxiv.org/abs/1803.09574), which is (v - theta) / theta: 0 where the neuron fires, -1 at rest. Read as
v / theta it would vanish at the threshold and be largest at rest. The chain rule's factor 1 / theta belongs to it,
and the derivatives run through the amplitude of a spike and through the reset, so that what is computed is exactly
the gradient of the cell with its comparison replaced by the surrogate's integral.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Arrays, Network, Op
from jaxsnn.networks.linear_maps import LinearMap, linear_map
from jaxsnn.networks.senders import heard
from jaxsnn.networks.spiking import Dynamics, Genes, check_single
from jaxsnn.simulation.step import State, initial_state, neurons_of, snn_step, wire, without_biases

SURROGATES: dict[str, Callable[[jax.Array], jax.Array]] = {
    # eq. 18
    "triangle": lambda u: jnp.maximum(0.0, 1 - jnp.abs(u)),
    # Fang et al., 2021, alpha = 2
    "arctan": lambda u: 1 / (1 + (math.pi * u) ** 2),
    # the derivative of a sigmoid of slope 4
    "sigmoid": lambda u: 4 * jax.nn.sigmoid(4 * u) * jax.nn.sigmoid(-4 * u),
}
"""Derivatives of a spike by u = (v - theta) / theta, each 1 at the threshold; ``scale`` multiplies them."""


GRADIENT_PRECISIONS = ("float32", "bfloat16")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def spike(
    v: jax.Array, theta: jax.Array, kind: str = "triangle", scale: float = 0.15, comparison: str = ">"
) -> jax.Array:
    """Spikes of membranes ``v`` at ``theta`` (broadcast to ``v``) as 0.0 or 1.0, with the gradient of eq. 18.

    Args:
        kind: a name of ``SURROGATES``.
        scale: gamma, the damping of eq. 18.
        comparison: ">" (the paper's) or ">=".
    """
    return (v >= theta if comparison == ">=" else v > theta).astype(v.dtype)


def _forward(v, theta, kind, scale, comparison):
    # of all that the gradient needs, only the membrane depends on time
    return spike(v, theta, kind, scale, comparison), (v, theta)


def _backward(kind, scale, comparison, saved, cotangent):
    u, pull = jax.vjp(lambda v, theta: v / theta - 1, *saved)
    return pull(cotangent * scale * SURROGATES[kind](u))


spike.defvjp(_forward, _backward)


def float_pixels(images: np.ndarray) -> np.ndarray:
    """uint8 images as float pixels in [0, 1], rounded as the compiled simulator rounds them.

    XLA compiles its division by 255 to a product with the float32 next to 1 / 255; a division here would differ
    from that in the last bit of half the levels.
    """
    return images.astype(np.float32) * np.float32(1 / 255)


def surrogate_scores(
    network: Network,
    params: Arrays,
    genes: Genes,
    images: jax.Array,
    timesteps: int,
    dynamics: Dynamics = Dynamics(delay="none"),
    kind: str = "triangle",
    scale: float = 0.15,
    checkpoint: bool = False,
    truncate: int | None = None,
    precision: str = "float32",
    every_step: bool = False,
) -> jax.Array:
    """Class scores of one candidate, summed over time: bit for bit the simulator's where sums are exact.

    Differentiable by ``params``, ``genes`` and ``images``. It is traced as it stands: put ``jax.jit`` around it.

    Args:
        params: folded kernels and biases by name, as in ``SNN.params``.
        genes: one candidate's, (L,) each.
        images: (B, H, W, C), uint8, or float pixels in [0, 1] (see ``float_pixels``).
        timesteps: T, counted in the convention of ``dynamics.delay``.
        kind, scale: the surrogate, see ``spike``.
        checkpoint: keep the membranes of about sqrt(T) steps and compute the steps between them again on the
            way back: less memory, for one more forward pass.
        truncate: let no gradient pass from one window of so many steps to the window before it (truncated
            BPTT). Memory falls only together with ``checkpoint``, which then keeps one state a window.
        precision: "bfloat16" does the maps that carry spikes in it; membranes, thresholds, the image's own
            drive and sums over time stay in float32.
        every_step: return the scores after each step.

    Returns:
        (B, classes), or (T, B, classes) if ``every_step``.

    Raises:
        UserError: no timesteps, an unknown surrogate or precision, or a window outside 1..T.
    """
    check(timesteps, kind, scale, truncate, precision)
    check_single(dynamics, "surrogate gradients are")
    silent = min(timesteps, dynamics.silent_steps(network))
    wiring, neurons = wire(network, params, images), neurons_of(network, genes, params)
    if precision == "bfloat16":
        wiring = wiring._replace(synapses=_half_synapses(network, params))

    def fire(v: jax.Array, theta: jax.Array) -> jax.Array:
        return spike(v, theta, kind, scale, dynamics.comparison)

    def step(state: State, _) -> tuple[State, jax.Array | None]:
        state, _ = snn_step(network, dynamics, wiring, neurons, state, fire)
        return state, state.scores if every_step else None

    state, curve = _unroll(
        step, initial_state(network, neurons, len(images)), timesteps - silent, checkpoint, truncate
    )
    if not every_step:
        return state.scores
    return jnp.concatenate([jnp.zeros((silent, *state.scores.shape)), curve])


def check(timesteps: int, kind: str, scale: float, truncate: int | None, precision: str) -> None:
    """Raise ``UserError`` for settings of ``surrogate_scores`` that cannot be."""
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected at least 1")
    if kind not in SURROGATES:
        raise UserError(f"surrogate is {kind!r}, expected one of {', '.join(SURROGATES)}")
    if not 0 < scale < math.inf:
        raise UserError(f"the surrogate's scale is {scale}, expected above 0 and finite")
    if precision not in GRADIENT_PRECISIONS:
        raise UserError(f"precision is {precision!r}, expected one of {', '.join(GRADIENT_PRECISIONS)}")
    if truncate is not None and not 1 <= truncate <= timesteps:
        raise UserError(f"truncate is {truncate}, expected 1 to {timesteps}, the number of timesteps")


def _half_synapses(network: Network, params: Arrays) -> list:
    """The maps that carry spikes in bfloat16, from and to float32; a spike, 0 or 1, is exact in it.

    The kernels are cast at every step, so that their gradient is summed over time in float32.
    """

    def half(ops: tuple[Op, ...], shape: tuple[int, ...]) -> LinearMap:
        def apply(x: jax.Array) -> jax.Array:
            kernels = {name: p.astype(jnp.bfloat16) for name, p in without_biases(params).items()}
            return linear_map(ops, kernels, shape)(x.astype(jnp.bfloat16)).astype(jnp.float32)

        return apply

    return [
        [(sender, half(edge.linear, shape)) for edge, sender, shape in edges if sender != IMAGE]
        for edges in heard(network)
    ]


def _unroll(step: Callable, state: State, steps: int, checkpoint: bool, truncate: int | None) -> tuple[State, Any]:
    """``lax.scan`` over ``steps``, in windows where they are checkpointed or truncated.

    Returns:
        the last state, and what the steps returned, stacked.
    """
    if not (checkpoint or truncate):
        return jax.lax.scan(step, state, length=steps)
    window = min(truncate or math.ceil(math.sqrt(steps)), steps) or 1

    def run(state: State, length: int):
        state, curve = jax.lax.scan(step, state, length=length)
        if truncate:
            # the scores are a sum over time: every step's share of the loss stays
            membranes, counts = jax.lax.stop_gradient((state.membranes, state.counts))
            state = state._replace(membranes=membranes, counts=counts)
        return state, curve

    wrap = functools.partial(jax.checkpoint, prevent_cse=False) if checkpoint else lambda f: f
    whole, rest = divmod(steps, window)
    state, curve = jax.lax.scan(
        lambda state, _: wrap(functools.partial(run, length=window))(state), state, length=whole
    )
    curve = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), curve)
    if rest:
        state, tail = wrap(functools.partial(run, length=rest))(state)
        curve = jax.tree.map(lambda *parts: jnp.concatenate(parts), curve, tail)
    return state, curve
