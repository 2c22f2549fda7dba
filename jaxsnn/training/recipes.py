"""How an ANN is trained, by name: a fast recipe, and those that the paper's authors published with their code."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class Recipe:
    """Settings of stochastic gradient descent with momentum 0.9."""

    epochs: int
    batch: int
    learning_rate: float
    """Peak of the one cycle, or the value to start from."""
    weight_decay: float
    label_smoothing: float
    nesterov: bool
    clip: float | None
    """Largest norm of the gradient; None does not limit it."""
    start: str
    """"lsuv": Kaiming-normal over the fan-in, then layers without a norm scaled to unit variance on one batch.
    "fan_out": Kaiming-normal over the fan-out, as in the authors' code."""
    divided_at: tuple[float, ...] | None
    """Shares of the training behind which the rate is divided by 10; None is one cycle of the rate."""

    def schedule(self, learning_rate: float, steps: int) -> optax.Schedule:
        """The learning rate at each of ``steps`` steps."""
        if self.divided_at is None:
            return optax.cosine_onecycle_schedule(steps, learning_rate, 0.2, 25, 1e4)
        boundaries = jnp.array([round(share * steps) for share in self.divided_at])
        return lambda step: learning_rate * 0.1 ** (step >= boundaries).sum()


RECIPES = {
    "fast": Recipe(30, 128, 0.1, 5e-4, 0.1, True, 5.0, "lsuv", None),
    # for CIFAR-100 with VGG15: divided by 10 at epochs 81 and 122 of 200; 64.9 %
    "paper-cifar": Recipe(200, 256, 0.05, 1e-4, 0.0, False, None, "fan_out", (81 / 200, 122 / 200)),
    # for ImageNet: divided by 10 every 30 of 100 epochs; 69.05 %
    "paper-imagenet": Recipe(100, 128, 0.01, 1e-4, 0.0, False, None, "fan_out", (0.3, 0.6, 0.9)),
}
