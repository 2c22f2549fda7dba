"""Distil an ANN into its spiking network through T timesteps: gradients of the divergence, without labels.

What is trained are the channels of ``jaxsnn.conversion.channels`` (threshold, amplitude, bias and initial
membrane), a few thousand numbers that fold into the weights; the weights themselves only where asked for. The
gradient goes through spikes as a triangle's (eq. 18; ``jaxsnn.simulation.surrogate``), through all steps, layer by
layer: a layer's map sees the spikes of all steps as one batch.
"""

import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsnn.conversion.channels import Channels, groups
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Network
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.senders import from_start
from jaxsnn.networks.spiking import SNN
from jaxsnn.simulation.surrogate import spike
from jaxsnn.training.loop import augment

STARTS = (-1.0, 2.0)
"""Where initial membranes are held, in thresholds."""
RATE = 0.16
"""Adam's for the channels, times T^2: the more steps, the less there is to repair and the more a rate harms."""
MOST_RATE = 1e-2
WEIGHT_RATE = 4e-4
"""Adam's for the weights, times T, where they are trained."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
WAIT = 10
"""Steps after which the loss is looked at: a device that is waited for after every step idles in between."""
CHUNK = 100
Numbers = tuple[list[jax.Array], ...]
"""Thresholds, amplitudes, biases and starts of channels, a list over layers each."""


@dataclass(frozen=True)
class Distillation:
    """How the channels are trained, for ``timesteps`` T without layer delay.

    Attributes:
        steps, batch: of gradient descent, and images in each.
        rate: Adam's at its highest: of logarithms of thresholds and amplitudes, and of biases and starts in
            thresholds. None: 0.16 / T^2, at most 0.01.
        weights: train the weights, too, at most at ``WEIGHT_RATE`` / T.
        mean_weight: of the divergence's mean over t = 1..T, beside the one at T.
        augmented: train on random crops and flips of the images, as ANNs are trained. An ANN is surer on the
            images that it was trained on than on others; these are between the two.
        scale: of the surrogate's derivative.
        comparison: of the neuron, ">" or ">=".
        seed: draws the batches, crops and flips.
    """

    timesteps: int
    steps: int = 2000
    batch: int = 128
    rate: float | None = None
    weights: bool = False
    mean_weight: float = 0.03
    augmented: bool = True
    scale: float = 1.0
    comparison: str = ">"
    seed: int = 0

    def __post_init__(self):
        if min(self.timesteps, self.steps, self.batch) < 1:
            raise UserError(
                f"distillation over {self.timesteps} timesteps takes {self.steps} steps of {self.batch} images: "
                "each must be at least 1"
            )


def distil(
    snn: SNN,
    channels: Channels,
    teacher: SNN,
    images: np.ndarray,
    how: Distillation,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[SNN, Channels]:
    """The network and its channels after training on uint8 ``images`` (N, H, W, C), with the ANN as its teacher.

    The network comes back as it was unless weights are trained.

    Args:
        channels: to start from, such as those of ``jaxsnn.conversion.few_timesteps``.
        teacher: the network whose ANN, with ReLUs, is to be followed: ``snn`` before its weights were changed.
        progress: called now and then with the images used since the last time, and the last batch's loss.

    Raises:
        UserError: no images.
    """
    if not len(images):
        raise UserError("distillation needs at least one image")
    network = snn.network
    params = {name: jnp.asarray(value) for name, value in snn.params.items()}
    taught = {name: jnp.asarray(value) for name, value in teacher.params.items()}
    start = tuple([jnp.asarray(p, jnp.float32) for p in part] for part in vars(channels).values())
    trained = {"channels": _unmoved(start)} | ({"weights": params} if how.weights else {})
    base, optimizer, step = _descent(network, replace(how, seed=0))
    state = optimizer.init(trained)
    draws = _batches(len(images), min(how.batch, len(images)), how.seed)
    done = 0
    for index, batch in enumerate(itertools.islice(draws, how.steps)):
        key = jax.random.fold_in(jax.random.key(how.seed), index)
        trained, state, loss = step(trained, state, (params, start, taught), images[batch], key)
        done += len(batch)
        if progress is not None and ((index + 1) % WAIT == 0 or index + 1 == how.steps):
            progress(done, float(loss))
            done = 0
    found = base.channels(trained["channels"], start)
    found = jax.tree.map(lambda part: np.asarray(part, np.float64), found)
    weights = {name: np.asarray(value) for name, value in trained.get("weights", snn.params).items()}
    return SNN(network, weights), Channels(*(tuple(part) for part in found))


@jax.default_matmul_precision("highest")  # a GPU would take TF32
def teacher_logits(snn: SNN, images: np.ndarray) -> np.ndarray:
    """The ANN's class scores (N, classes) in float32; by whole chunks, so that they do not depend on N."""
    forward = jax.jit(ann_forward, static_argnums=0)
    parts = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        padded = np.pad(part, ((0, CHUNK - len(part)), (0, 0), (0, 0), (0, 0)))
        parts.append(np.asarray(forward(snn.network, snn.params, padded)[-1])[: len(part)])
    return np.concatenate(parts)


def _batches(count: int, size: int, seed: int):
    """Indices of batches, epoch after epoch, each in its own order, without what does not fill a batch."""
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield from order[: count - count % size].reshape(-1, size)


@dataclass(frozen=True)
class _Base:
    """What is trained is relative to the channels at the start, and to which layers share shapes.

    The parts of a layer are logarithms of factors on thresholds and amplitudes, and biases and starts in units of
    the threshold at the start. Layers that share a shape share the first layer's thresholds' part, have one factor
    of their own beside it, and amplitudes that are their thresholds.
    """

    group: tuple[int, ...]
    shared: tuple[bool, ...]

    @classmethod
    def of(cls, network: Network) -> "_Base":
        group = groups(network)
        return cls(group, tuple(group.count(first) > 1 for first in group))

    def channels(self, parts: dict, start: Numbers) -> Numbers:
        """Thresholds, amplitudes, biases and starts of the channels at the ``start``, moved by ``parts``."""
        thresholds, amplitudes = [], []
        for index, (first, shared) in enumerate(zip(self.group, self.shared)):
            moved = parts["threshold"][first] + (parts["factor"][index] if shared else 0.0)
            thresholds.append(start[0][index] * jnp.exp(moved))
            own = start[1][index] * jnp.exp(parts["amplitude"][index])
            amplitudes.append(thresholds[-1] if shared else own)
        units = (*start[0], 1.0)
        biases = [b + unit * part for b, unit, part in zip(start[2], units, parts["bias"])]
        starts = [jnp.clip(s + part, *STARTS) for s, part in zip(start[3], parts["start"])]
        return thresholds, amplitudes, biases, starts


def _unmoved(start: Numbers) -> dict:
    """The parts of channels that have not been trained."""
    shapes = [jnp.zeros_like(theta) for theta in start[0]]
    return {
        "threshold": shapes,
        "factor": [jnp.zeros(()) for _ in shapes],
        "amplitude": shapes,
        "bias": [jnp.zeros_like(bias) for bias in start[2]],
        "start": shapes,
    }


def _optimizer(how: Distillation) -> optax.GradientTransformation:
    def adam(rate: float):
        # surrogate gradients shrink from layer to layer, far below Adam's usual epsilon
        schedule = optax.cosine_onecycle_schedule(max(2, how.steps), rate, WARM_UP, 10, 100)
        return optax.adam(schedule, b2=0.99, eps=1e-12)

    rate = min(MOST_RATE, RATE / how.timesteps**2) if how.rate is None else how.rate
    kinds: dict[Hashable, optax.GradientTransformation] = {"channels": adam(rate)}
    if how.weights:
        kinds["weights"] = adam(WEIGHT_RATE / how.timesteps)
    return optax.multi_transform(kinds, {name: name for name in kinds})


@functools.lru_cache(maxsize=4)  # so that other seeds do not compile again
def _descent(network: Network, how: Distillation) -> tuple[_Base, optax.GradientTransformation, Callable]:
    """What a descent needs, whatever its seed: base, optimiser and step."""
    base, optimizer = _Base.of(network), _optimizer(how)

    def loss(trained: dict, params: dict, start: Numbers, images: jax.Array, teacher: jax.Array) -> jax.Array:
        channels = base.channels(trained["channels"], start)
        scores = channel_scores(network, trained.get("weights", params), channels, images, how)
        logits = scores / jnp.arange(1, how.timesteps + 1, dtype=scores.dtype)[:, None, None]
        found = divergence(teacher, logits).mean(-1)
        return found[-1] + how.mean_weight * found.mean()

    @functools.partial(jax.jit, donate_argnums=1)
    def step(trained, state, fixed, images, key):
        params, start, taught = fixed
        if how.augmented:
            images = augment(key, images)
        teacher = ann_forward(network, taught, images)[-1]
        value, gradient = jax.value_and_grad(loss)(trained, params, start, images, teacher)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(trained, updates), state, value

    return base, optimizer, step


def divergence(teacher: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(teacher || logits) of class probabilities, in nats, over the last axis."""
    p, q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(logits)
    return (jnp.exp(p) * (p - q)).sum(-1)


def channel_scores(
    network: Network, params: dict, channels: tuple, images: jax.Array, how: Distillation
) -> jax.Array:
    """Class scores (T, B, classes) summed over time, differentiable by ``params`` and ``channels``."""
    thresholds, amplitudes, biases, starts = channels
    steps = how.timesteps
    outputs: list[jax.Array] = []
    for index, layer in enumerate(network.layers):
        drive = biases[index]
        for edge in layer.edges:
            if edge.source == IMAGE:
                x, shape = preprocess(network, images), network.input_shape
            else:
                sent = from_start(edge, outputs[edge.source])
                x, shape = sent * amplitudes[edge.source], sent.shape[2:]
            out = linear_map(edge.linear, params, shape, trained=how.weights)(x.reshape(-1, *shape))
            drive = drive + out.reshape(1 if edge.source == IMAGE else steps, -1, *out.shape[1:])
        drive = jnp.broadcast_to(drive, (steps, *drive.shape[1:]))
        if index == len(network.spiking):
            break
        theta = thresholds[index]
        v, spikes = jnp.broadcast_to(starts[index] * theta, drive.shape[1:]), []
        for t in range(steps):
            v = v + drive[t]
            level = jnp.broadcast_to(theta, v.shape)
            spikes.append(spike(v, level, "triangle", how.scale, how.comparison))
            v = v - theta * spikes[-1]
        outputs.append(jnp.stack(spikes))
    return jnp.cumsum(drive, 0)
