"""What jaxsnn.optimize can be told, and what is checked before it starts."""

import types
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from jaxsnn.analysis.adversarial import Attack, attack_of
from jaxsnn.cli.options import HostOptions, PlanOptions
from jaxsnn.errors import UserError
from jaxsnn.search.evolve import LEADERS
from jaxsnn.search.presets import preset

Preset = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")]


PresetFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True)
class OptimizeConfig(HostOptions, PlanOptions):
    """Search the thresholds of a converted spiking network with differential evolution.

    Without arguments: the embedded network on the embedded CIFAR-10 images, in under a minute on two cores. The
    result is a table, and a folder with the thresholds, the curves and figures. Ctrl-C stops after the current
    generation and still reports what was found. SIGTERM saves and leaves; --resume goes on, also after a crash,
    with the same result as if nothing had happened.
    """

    preset: str = "demo"
    """demo, or a row of the paper's Table I: cifar10, cifar100-vgg15, cifar100-vgg11, imagenet, cifar10-attack,
    cifar100-attack."""
    weights: Path | None = None
    """Trained ANN: a .safetensors file of jaxsnn.train, or a PyTorch state_dict (.pt, .pth) or plain .safetensors
    file, which jaxsnn.import_weights checks first; default: the embedded network."""
    network: str | None = None
    """Network of a file that does not describe it: an architecture by name, or a description, FILE.json."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    out: Path | None = None
    """Folder of the run; default runs/<preset>-<time>. One that holds this run, unfinished, is gone on with."""
    resume: Path | None = None
    """Go on with the run in this folder, with the settings it was started with; only where and how it computes can
    be given again: --weights, --data-dir, --rows, --block, --memory-limit, --mesh, --threads, --checkpoint-every,
    --tensorboard, and the other processes."""
    checkpoint_every: float = 0.0
    """Seconds between two checkpoints, from which an interrupted run goes on; default: one behind every
    generation."""
    tensorboard: bool = False
    """Also write every generation's scalars into the run's folder for TensorBoard (pip install tensorboard)."""
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

    attack: Annotated[
        Literal["none", "fgsm", "pgd"] | None, tyro.conf.arg(help_behavior_hint="(default: the preset's)")
    ] = None
    """Optimise on attacked images, crafted once on the ANN: fgsm (eq. 16) or pgd (10 steps of epsilon / 4)."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    attack_mix: Literal["attacked", "both", "worst"] = "attacked"
    """The cost on attacked images, on clean and attacked ones together, or the higher of the two."""

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
    Default: no racing."""
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
    debug: bool = False
    """Show where an error came from."""


MOST = 10_000
"""Candidates, and timesteps: what a configuration declares is allocated."""


MOVABLE = (
    "weights",
    "data_dir",
    "rows",
    "block",
    "memory_limit",
    "mesh",
    "threads",
    "checkpoint_every",
    "tensorboard",
)
"""Settings that say where and how, never what: they may change when a run is gone on with."""


HOSTS = tuple(field.name for field in fields(HostOptions))


NOT_RECORDED = ("out", "resume", "explain_plan", "debug", *HOSTS)
"""Options that are no part of a run's configuration."""


def to_record(config: OptimizeConfig) -> dict:
    """The configuration as config.json holds it."""
    values = {key: value for key, value in asdict(config).items() if key not in NOT_RECORDED}
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def from_record(record: dict, where: Path | str) -> OptimizeConfig:
    """The resolved configuration in config.json; settings that it does not hold have their defaults.

    Raises:
        UserError: a value of another type, or out of its range.
    """
    kinds = get_type_hints(OptimizeConfig)
    values = {}
    for field in fields(OptimizeConfig):
        value = record.get(field.name)
        if value is None or field.name in NOT_RECORDED:
            continue
        if not (isinstance(value, str) if kinds[field.name] == Path | None else _is(value, kinds[field.name])):
            raise UserError(f"{where} does not hold a run's configuration: {field.name} is {value!r}"[:500])
        if kinds[field.name] == Path | None:
            value = Path(value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    try:
        return resolve(OptimizeConfig(**values))
    except UserError as error:
        raise UserError(f"{where} does not hold a run's configuration: {error}") from error


def _is(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of this type; a tuple is a list there."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if origin is Literal:
        return type(value) is str and value in inner
    if origin is tuple:
        one = [inner[0]] * len(value) if inner[-1] is Ellipsis and isinstance(value, list) else inner
        return isinstance(value, list) and len(value) == len(one) and all(map(_is, value, one))
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e300
    if kind is int:
        return type(value) is int and abs(value) < 1 << 53
    return type(value) is kind


def attack_in(config: OptimizeConfig) -> Attack | None:
    """The attack of a resolved configuration, or None."""
    return None if config.attack == "none" else attack_of(config.attack, config.epsilon)


def views(config: OptimizeConfig) -> int:
    """How often each image of a subset is simulated: twice where it counts clean and attacked."""
    return 1 if config.attack == "none" or config.attack_mix == "attacked" else 2


def resolve(config: OptimizeConfig) -> OptimizeConfig:
    """The configuration with the preset's values filled in and every setting checked."""
    chosen = asdict(preset(config.preset))
    config = replace(config, **{k: v for k, v in chosen.items() if getattr(config, k) is None})
    config.plan()
    least = {
        "seed": 0,
        "population": 4,
        "generations": 1,
        "images": 1,
        "timesteps": 2,
        "test_timesteps": 2,
        "finalists": 1,
        "limit_images": 1,
    }
    for name, low in (least | {"calibration_images": 1}).items():
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    for name in ("population", "timesteps", "test_timesteps"):
        if getattr(config, name) > MOST:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at most {MOST}")
    if not 0 <= config.checkpoint_every < float("inf"):
        raise UserError(f"--checkpoint-every is {config.checkpoint_every}, expected at least 0 seconds")
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
        if views(config) > 1:
            raise UserError(
                "--race compares right answers on one kind of image: leave it out, or --attack-mix "
                f"{config.attack_mix}"
            )
        if config.engine.startswith("evosax:"):
            raise UserError(
                f"--race needs greedy selection, which {config.engine} does not do; leave one of them out"
            )
    attack_in(config)
    if not 0 < config.low < 1 < config.high:
        raise UserError(
            f"--low {config.low} and --high {config.high} must be above 0, with 1, the baseline, between them"
        )
    if not 0 <= config.v0 < 1 or not 0 < config.leak <= 1:
        raise UserError(f"--v0 is {config.v0}, expected in [0, 1); --leak is {config.leak}, expected in (0, 1]")
    return config
