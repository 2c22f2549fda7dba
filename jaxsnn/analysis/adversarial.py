"""Adversarial images, crafted on the ANN or on the SNN itself: FGSM (the paper's eq. 16) and PGD.

Epsilon is in units of the pixel range, 8 / 255 in the paper; the gradient is taken through the normalisation, with
respect to pixels in [0, 1], and the box [0, 1] is kept. Attacked images remain valid 8-bit images. FGSM with a
whole number of grey levels stays on their grid and is rounded exactly; otherwise (PGD, a fractional epsilon) each
pixel is rounded towards its original, so that it stays inside the ball.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.simulation.surrogate import GRADIENT_PRECISIONS, float_pixels, surrogate_scores

METHODS = ("fgsm", "pgd")


SLACK = 1e-3
"""Grey levels by which float32 may miss the grid: far above its rounding, far below a level."""


@dataclass(frozen=True)
class Attack:
    """What is done to an image.

    Attributes:
        method: "fgsm" (one step of epsilon along the sign of the gradient, eq. 16) or "pgd" (``steps`` steps of
            ``step_size`` from a random start, each projected back into the ball; Madry et al., 2018).
        epsilon: radius of the ball in the maximum norm, in units of the pixel range: 8 / 255, not 8.
        step_size: of PGD, in the same units; None is epsilon / 4.
        random_start: start PGD uniformly within the ball.
        seed: of the random start.
    """

    method: str = "fgsm"
    epsilon: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"the attack is {self.method!r}, expected {' or '.join(METHODS)}")
        if not 0 <= self.epsilon <= 1:
            raise UserError(
                f"epsilon is {self.epsilon:g} in units of the pixel range, expected in [0, 1]: 8 grey levels are "
                "8 / 255"
            )
        if self.steps < 1:
            raise UserError(f"the attack has {self.steps} steps, expected at least 1")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise UserError(
                f"the attack's step is {self.step_size:g} in units of the pixel range, expected in (0, 1]"
            )

    @property
    def gradient_passes(self) -> int:
        """Forward and backward passes of the victim for each image."""
        return 1 if self.method == "fgsm" else self.steps

    def record(self) -> dict:
        """The attack for a JSON file."""
        return asdict(self) | {"epsilon_grey_levels": round(self.epsilon * 255, 6)}

    def __str__(self) -> str:
        return f"{self.method.upper()} at {self.epsilon * 255:g}/255"


def attack_of(method: str, grey_levels: float, **options: Any) -> Attack:
    """The attack whose epsilon the command line gives in grey levels, 8 for 8 / 255.

    Raises:
        UserError: grey levels outside [0, 255], or a fraction of one, which no uint8 image can show.
    """
    if not 0 <= grey_levels <= 255:
        raise UserError(
            f"--epsilon is {grey_levels:g} in grey levels, 1/255 of the pixel range, expected in [0, 255]"
        )
    if 0 < grey_levels < 1:
        raise UserError(
            f"--epsilon is {grey_levels:g}, less than one grey level, which changes no image: it is in units of "
            "1/255, 8 for the paper's 8/255"
        )
    return Attack(method, grey_levels / 255, **options)


@dataclass(frozen=True)
class Victim:
    """A classifier that an attack can take the gradient of.

    Attributes:
        scores: ``scores(variables, pixels)`` maps float pixels in [0, 1] (B, H, W, C) to (B, classes); hashable,
            so that it is compiled once.
        variables: a pytree of arrays.
    """

    scores: Callable[[Any, jax.Array], jax.Array]
    variables: Any


@dataclass(frozen=True)
class _AnnScores:
    network: Network

    def __call__(self, params, pixels: jax.Array) -> jax.Array:
        return ann_forward(self.network, params, pixels)[-1]


@dataclass(frozen=True)
class _SnnScores:
    network: Network
    timesteps: int
    dynamics: Dynamics
    precision: str

    def __call__(self, variables, pixels: jax.Array) -> jax.Array:
        params, genes = variables
        scores = surrogate_scores(
            self.network, params, genes, pixels, self.timesteps, self.dynamics, precision=self.precision
        )
        # sums over time would saturate the softmax, whose gradient then vanishes in float32
        return scores / max(1, self.timesteps - self.dynamics.silent_steps(self.network))


def ann_victim(snn: SNN) -> Victim:
    """The ANN that ``snn`` was converted from."""
    return Victim(_AnnScores(snn.network), snn.params)


def snn_victim(
    snn: SNN, genes: Genes, timesteps: int, dynamics: Dynamics = Dynamics(), precision: str = "float32"
) -> Victim:
    """One candidate (``genes`` (1, L) each) after ``timesteps``, through the surrogate gradient of eq. 18.

    Raises:
        UserError: ``precision`` is that of integers, which have no gradient, or no input reaches the read-out.
    """
    if precision not in GRADIENT_PRECISIONS:
        raise UserError(
            f"an SNN in {precision} has no gradient to attack: craft the attack on the ANN alone "
            f"(--transfer-images 0), or on the SNN in {' or '.join(GRADIENT_PRECISIONS)}"
        )
    check_genes(snn.network, genes)
    if timesteps <= dynamics.silent_steps(snn.network):
        raise UserError(
            f"an attack on the SNN over {timesteps} timesteps has no gradient: the image reaches the read-out "
            f"only after {dynamics.silent_steps(snn.network)} steps of layer delay"
        )
    one = genes.map(lambda gene: np.asarray(gene, np.float32)[0])
    return Victim(_SnnScores(snn.network, timesteps, dynamics, precision), (snn.params, one))


def perturb(
    victim: Victim,
    attack: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    targets: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
    batch: int = 128,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Attacked images, uint8 (B, H, W, C), for uint8 ``images`` with ``labels`` (B,).

    Args:
        targets: classes (B,) that the images are driven towards; None drives them away from their labels.
        numbers: (B,) of the images, from which PGD's random starts are drawn, so that an image's attack does not
            depend on the others; default 0..B-1.
        progress: called with the number of images that have just been attacked.
    """
    numbers = np.arange(len(images)) if numbers is None else numbers
    goal = labels if targets is None else targets
    # FGSM is PGD in one step from the image itself
    random = attack.method == "pgd" and attack.random_start
    step = attack.epsilon if attack.method == "fgsm" else attack.step_size or attack.epsilon / 4
    attacked = np.empty(images.shape, np.uint8)
    # few compiled shapes serve all numbers of images: batches are filled up
    size = min(batch, 1 << (len(images) - 1).bit_length())
    for start in range(0, len(images), batch):
        rows = np.arange(start, min(start + batch, len(images)))
        part = np.resize(rows, size)
        moved = _perturb(
            victim.scores,
            victim.variables,
            float_pixels(images[part]),
            np.asarray(goal[part], np.int32),
            np.asarray(numbers[part], np.uint32),
            np.float32(1 if targets is None else -1),
            np.float32(attack.epsilon),
            np.float32(step),
            attack.gradient_passes,
            np.float32(attack.epsilon if random else 0),
            attack.seed,
        )
        attacked[rows] = quantise(images[rows], np.asarray(moved)[: len(rows)], attack.epsilon)
        if progress is not None:
            progress(len(rows))
    return attacked


@functools.partial(jax.jit, static_argnames="scores")
def _perturb(scores, variables, pixels, labels, numbers, direction, epsilon, step, steps, spread, seed):
    """Float pixels (B, H, W, C) of attacked images, before they are quantised: all attacks in one function.

    ``direction`` is 1 to raise the loss of the labels, -1 to lower it; the start is drawn within ``spread``.
    """

    def loss(x: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(scores(variables, x))
        return -direction * jnp.take_along_axis(logs, labels[:, None], 1).sum()

    def ascend(_, x: jax.Array) -> jax.Array:
        moved = x + step * jnp.sign(jax.grad(loss)(x))
        return jnp.clip(pixels + jnp.clip(moved - pixels, -epsilon, epsilon), 0, 1)

    keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(numbers)
    noise = jax.vmap(lambda k: jax.random.uniform(k, pixels.shape[1:], minval=-1, maxval=1))(keys)
    return jax.lax.fori_loop(0, steps, ascend, jnp.clip(pixels + spread * noise, 0, 1))


class AttackedImages:
    """Attacked copies of a training set's images, each crafted once, when it is first asked for.

    Attributes:
        gradient_passes: forward and backward passes of the victim so far, times images.
        batches: what was crafted together, indices for each call that had to: crafted again in the same batches,
            the images are the same bit for bit.
    """

    def __init__(self, victim: Victim, attack: Attack, images: np.ndarray, labels: np.ndarray):
        self._victim, self._attack = victim, attack
        self._images, self._labels = images, labels
        self._made: dict[int, np.ndarray] = {}
        self.gradient_passes = 0
        self.batches: list[np.ndarray] = []

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """The attacked images at ``indices`` (B,), uint8 (B, H, W, C)."""
        missing = np.array([i for i in np.unique(indices) if int(i) not in self._made], np.int64)
        if len(missing):
            attacked = perturb(
                self._victim, self._attack, self._images[missing], self._labels[missing], numbers=missing
            )
            self._made |= dict(zip(missing.tolist(), attacked))
            self.gradient_passes += len(missing) * self._attack.gradient_passes
            self.batches.append(missing)
        return np.stack([self._made[int(i)] for i in indices])


def quantise(images: np.ndarray, pixels: np.ndarray, epsilon: float) -> np.ndarray:
    """Float ``pixels`` of attacked uint8 ``images`` as uint8, each rounded towards its original."""
    original = images.astype(np.float64)
    change = np.asarray(pixels, np.float64) * 255 - original
    levels = np.sign(change) * np.floor(np.abs(change) + SLACK)
    most = np.floor(epsilon * 255 + SLACK)
    return (original + levels.clip(-most, most)).clip(0, 255).astype(np.uint8)


def other_classes(labels: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    """A class for each image that is not its own, drawn at random, (B,): targets of an attack."""
    if classes < 2:
        raise UserError(f"a targeted attack needs at least 2 classes, the network has {classes}")
    shift = np.random.default_rng(seed).integers(1, classes, len(labels))
    return ((np.asarray(labels) + shift) % classes).astype(np.int32)
