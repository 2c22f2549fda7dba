"""What jaxsnn.optimize can be told, and what is checked before it starts."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsnn.errors import UserError
from jaxsnn.presets import preset
from jaxsnn.search import LEADERS

Preset = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
PresetFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True)
class OptimizeConfig:
    """Search the thresholds of a converted spiking network with differential evolution.

    Without arguments: the embedded network on the embedded CIFAR-10 images, in about a minute and a half on two
    cores. The result is a table, and a folder with the thresholds, the curves and figures. Ctrl-C stops after the
    current generation and still reports what was found.
    """

    preset: str = "demo"
    """demo, or a row of the paper's Table I: cifar10, cifar100-vgg15, cifar100-vgg11, imagenet, cifar10-attack,
    cifar100-attack."""
    weights: Path | None = None
    """Trained ANN, a .safetensors file of jaxsnn.train; default: the embedded network."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    out: Path | None = None
    """Folder of the run; default runs/<preset>-<time>."""
    seed: int = 0

    population: Preset = None
    """Number of candidates P, at least 4."""
    generations: Preset = None
    """Generations behind the initial population, at most."""
    images: Preset = None
    """Training images that a candidate is evaluated on."""
    timesteps: Preset = None
    """Timesteps T of the search, layer delay included."""
    test_timesteps: Preset = None
    """Timesteps of the final comparison on the test images."""
    test_images: int | None = None
    """Test images of the final comparison; default: all."""
    finalists: Preset = None
    """Best candidates that are compared again at the end on more training images, up to 8; 1 for none."""
    final_images: Preset = None
    """Training images of that comparison, at most as many as there are."""
    calibration_images: int = 500
    """Training images from which the percentiles are read."""

    alpha: PresetFloat = None
    """Weight of the step of steepest accuracy gain, eq. 11."""
    beta: PresetFloat = None
    """Weight of 1 - that slope, eq. 11."""
    gamma: PresetFloat = None
    """Weight of 1 - the final accuracy, eq. 11."""
    area: PresetFloat = None
    """Weight of the area above the accuracy curve, in steps; not in the paper."""
    limit: PresetFloat = None
    """Weight of 1 - the accuracy as T goes to infinity, from the ANN clipped at the thresholds (eq. 6); not in the
    paper."""
    limit_images: Preset = None
    """Training images for that, at most as many as there are."""
    spike_weight: float = 0.0
    """Cost of a thousand spikes per image."""
    synop_weight: float = 0.0
    """Cost of a million synaptic operations per image."""
    energy_weight: float = 0.0
    """Cost of a microjoule per image, at 0.9 pJ a synaptic operation."""
    peak_weight: float = 0.0
    """Cost of one spike per neuron and step in the busiest layer."""

    percentile: PresetFloat = None
    """Percentile of the ANN's activations that is the baseline's threshold."""
    std: PresetFloat = None
    """Spread of the initial population around the baseline, in units of the search."""
    space: Literal["normalised", "percentile"] = "normalised"
    """Search thresholds relative to the baseline's, or percentiles."""
    low: PresetFloat = None
    """Lowest threshold, relative to the baseline's."""
    high: PresetFloat = None
    """Highest threshold, relative to the baseline's."""
    search: tuple[Literal["threshold", "v0", "leak"], ...] = ("threshold",)
    """Genes to search, one per layer each."""

    engine: str = "scipy"
    """scipy, evosax, jax, lshade, or evosax:NAME (only differential evolution is the paper's)."""
    strategy: str | None = None
    """Strategy of the engine; default best1bin, SciPy's and so the paper's (its eq. 7 is rand1bin)."""
    mutation: tuple[float, float] = (0.5, 1.5)
    """Range from which each generation's mutation factor is drawn."""
    crossover: float = 0.7
    subset: Literal["fixed", "resample"] = "fixed"
    """Draw the training images once (Algorithm 1) or again for every generation."""
    race: float | None = None
    """Stop evaluating trials that are losing at this confidence, in (0.5, 1]; 1 is exact for a fixed subset.
    Not together with --limit. Default: no racing."""
    tol: PresetFloat = None
    """Stop when the costs' standard deviation is at most this share of their mean."""

    delay: Literal["layer", "none"] = "layer"
    """Count one step of delay per layer (the paper) or none."""
    comparison: Literal[">", ">="] = ">"
    """Fire when the membrane is above the threshold, or at it too."""
    v0: float = 0.0
    """Initial membrane as a fraction of the threshold, where it is not searched."""
    leak: float = 1.0
    """Factor on the membrane at each step, where it is not searched."""
    rows: int = 192
    """Candidates x images that go through the device at once: lower it where memory is short."""
    debug: bool = False
    """Show where an error came from."""


def resolve(config: OptimizeConfig) -> OptimizeConfig:
    """The configuration with the preset's values filled in and every setting checked."""
    chosen = asdict(preset(config.preset))
    config = replace(config, **{k: v for k, v in chosen.items() if getattr(config, k) is None})
    least = {
        "seed": 0,
        "population": 4,
        "generations": 1,
        "images": 1,
        "timesteps": 2,
        "test_timesteps": 2,
        "rows": 1,
        "finalists": 1,
        "limit_images": 1,
    }
    for name, low in (least | {"calibration_images": 1}).items():
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    for name in (
        "alpha",
        "beta",
        "gamma",
        "area",
        "limit",
        "spike_weight",
        "synop_weight",
        "energy_weight",
        "peak_weight",
    ):
        if not 0 <= getattr(config, name) < float("inf"):
            raise UserError(
                f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least 0 and finite"
            )
    if config.finalists > LEADERS:
        raise UserError(f"--finalists is {config.finalists}, expected at most {LEADERS}")
    if config.race is not None:
        if not 0.5 < config.race <= 1:
            raise UserError(f"--race is {config.race}, expected in (0.5, 1]")
        if config.limit:
            raise UserError("--race knows no bound of the accuracy as T grows: leave it out, or set --limit 0")
        if config.engine.startswith("evosax:"):
            raise UserError(
                f"--race needs greedy selection, which {config.engine} does not do; leave one of them out"
            )
    if not 0 < config.low < 1 < config.high:
        raise UserError(
            f"--low {config.low} and --high {config.high} must be above 0, with 1, the baseline, between them"
        )
    if not 0 <= config.v0 < 1 or not 0 < config.leak <= 1:
        raise UserError(f"--v0 is {config.v0}, expected in [0, 1); --leak is {config.leak}, expected in (0, 1]")
    return config
