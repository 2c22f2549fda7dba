"""How networks are trained, by name: ANNs by a fast recipe or as the paper's authors did, and fine-tuning."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import optax

from jaxsnn.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Settings of stochastic gradient descent with momentum 0.9."""

    epochs: int
    batch: int
    learning_rate: float
    """Peak of the one cycle, or the value to start from."""
    weight_decay: float
    """In kernels only."""
    label_smoothing: float
    cutout: int
    """Side of the square of mean colour in every image, in pixels; 0 for none."""
    cutmix: float
    """Share of the images with a box of another image, whose label counts by area."""
    nesterov: bool
    clip: float | None
    """Largest norm of the gradient; None does not limit it."""
    start: str
    """"lsuv": Kaiming-normal over the fan-in, then layers without a norm scaled to unit variance on one batch.
    "fan_out": Kaiming-normal over the fan-out, as in the authors' code."""
    divided_at: tuple[float, ...] | None
    """Shares of the training after which the rate is divided by 10; None is one cycle of the rate."""
    adversarial: float = 0.0
    """Grey levels of 255 within which every image is changed to raise the loss (``jaxsnn.training.hardening``)."""

    def schedule(self, learning_rate: float, steps: int) -> optax.Schedule:
        """The learning rate at each of ``steps`` steps."""
        if self.divided_at is None:
            return optax.cosine_onecycle_schedule(steps, learning_rate, 0.2, 25, 1e4)
        boundaries = jnp.array([round(share * steps) for share in self.divided_at])
        return lambda step: learning_rate * 0.1 ** (step >= boundaries).sum()


RECIPES = {
    "fast": Recipe(30, 128, 0.1, 5e-4, 0.1, 0, 0.0, True, 5.0, "lsuv", None),
    # networks of the package's size fit every training image by then: what is cut out of them keeps them learning
    "strong": Recipe(100, 500, 0.4, 5e-4, 0.1, 12, 0.0, True, 5.0, "lsuv", None),
    # for CIFAR-100 with VGG15: divided by 10 at epochs 81 and 122 of 200; 64.9 %
    "paper-cifar": Recipe(200, 256, 0.05, 1e-4, 0.0, 0, 0.0, False, None, "fan_out", (81 / 200, 122 / 200)),
    # for ImageNet: divided by 10 every 30 of 100 epochs; 69.05 %
    "paper-imagenet": Recipe(100, 128, 0.01, 1e-4, 0.0, 0, 0.0, False, None, "fan_out", (0.3, 0.6, 0.9)),
}

CHOICES = (
    "epochs",
    "batch",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "cutout",
    "cutmix",
    "adversarial",
)
"""What of a recipe a user may change."""


def recipe_of(name: str, **changes: float | None) -> Recipe:
    """The recipe called ``name``, with those ``changes`` that are not None; raises ``UserError`` for no recipe.

    >>> recipe_of("paper-cifar", batch=64, epochs=None).batch
    64
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}: the recipes are {', '.join(RECIPES)}")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


@dataclass(frozen=True)
class TuningPreset:
    """How long and on what a spiking network is fine-tuned."""

    epochs: int
    batch: int
    images: int | None
    """Training images; None takes all."""
    timesteps: int
    """Of training, layer delay included."""
    test_timesteps: int


TUNING_PRESETS = {
    "demo": TuningPreset(2, 50, 2000, 42, 60),
    # Section V.C; the paper leaves out the optimizer, its rate, the batch and the loss
    "paper": TuningPreset(25, 64, None, 70, 100),
}


def tuning_preset(name: str, **changes: int | None) -> TuningPreset:
    """The preset called ``name``, with those ``changes`` that are not None; raises ``UserError`` for no preset."""
    if name not in TUNING_PRESETS:
        raise UserError(f"unknown preset {name!r}: the presets are {', '.join(TUNING_PRESETS)}")
    return replace(TUNING_PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
