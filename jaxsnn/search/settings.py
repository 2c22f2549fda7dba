"""What the result of a search depends on, and what is checked before it starts."""

import types
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from evo.engines.gde3 import STRATEGIES
from jaxsnn.analysis.adversarial import Attack, attack_of
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import MOST_SPIKES, Dynamics
from jaxsnn.runtime.checks import at_least, at_most, in_range, named
from jaxsnn.search.evolve import LEADERS

MOST = 10_000
"""Candidates, and timesteps: what a configuration declares is allocated."""
WEIGHTS = (
    "alpha",
    "beta",
    "gamma",
    "area",
    "limit",
    "spike_weight",
    "synop_weight",
    "energy_weight",
    "peak_weight",
    "divergence",
)
"""Settings that weigh the parts of the cost."""
CALIBRATED_FIXED = (("threshold",), "normalised", 1.0, 0.0)
"""search, space, leak and v0 of a search around a calibrated network, which has a space of its own."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Everything that a search's result depends on, beside the network, the images and the arithmetic.

    The defaults are the preset "thresholds": the paper's way, and small. ``jaxsnn.search.presets`` holds the
    others.
    """

    seed: int = 0
    population: int = 12
    """Number of candidates P, at least 4."""
    generations: int = 12
    """Generations after the initial population, at most."""
    images: int = 80
    """Training images that a candidate is evaluated on."""
    timesteps: int = 34
    """Timesteps T of the search, layer delay included."""
    finalists: int = 4
    """Best candidates that are compared again at the end on more training images, up to 8; 1 for none."""
    final_images: int = 300
    """Training images of that comparison, at most as many as there are."""
    calibration_images: int = 500
    """Training images from which the percentiles are read."""

    alpha: float = 1.0
    """Weight of the step of steepest accuracy gain, eq. 11."""
    beta: float = 10.0
    """Weight of 1 - that slope, eq. 11."""
    gamma: float = 100.0
    """Weight of 1 - the final accuracy, eq. 11."""
    area: float = 1.0
    """Weight of the area above the accuracy curve, in steps; not in the paper."""
    limit: float = 1500.0
    """Weight of 1 - the accuracy as T goes to infinity, from the ANN clipped at the thresholds (eq. 6); not in the
    paper."""
    limit_images: int = 1500
    """Training images for that, at most as many as there are."""
    spike_weight: float = 0.0
    """Cost of a thousand spikes per image."""
    synop_weight: float = 0.0
    """Cost of a million synaptic operations per image."""
    energy_weight: float = 0.0
    """Cost of a microjoule per image, at 0.9 pJ a synaptic operation."""
    peak_weight: float = 0.0
    """Cost of one spike per neuron and step in the busiest layer."""

    divergence: float = 0.0
    """Weight of the divergence of the class probabilities from the ANN's, KL[T] + 0.03 times its mean over t, in
    nats; it needs no labels. Not in the paper."""

    objectives: tuple[Literal["accuracy", "divergence", "latency", "energy", "synops", "peak"], ...] = ()
    """Two or three to search at once, for a whole frontier instead of one optimum: wrong answers, the divergence
    from the ANN, timesteps, energy, synaptic operations, activity of the busiest layer."""
    front_timesteps: tuple[int, ...] = (2, 4, 8, 16)
    """Timesteps among which such a search chooses, a network calibrated for each."""
    energy_kind: Literal["FP32", "FP16", "INT8", "with memory"] = "INT8"
    """Arithmetic whose energy is an objective or has a limit: 45 nm in a format, or with memory."""
    max_energy: float | None = None
    """Most microjoules an image."""
    less_energy: float | None = None
    """Percent of the energy to save, counted from the network that the search starts around."""
    max_latency: int | None = None
    """Most timesteps, with --objectives."""
    max_peak: float | None = None
    """Most spikes a neuron and step of the busiest layer."""

    attack: Literal["none", "fgsm", "pgd"] = "none"
    """Optimise on attacked images, crafted once on the ANN: fgsm (eq. 16) or pgd (10 steps of epsilon / 4)."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    attack_mix: Literal["attacked", "both", "worst"] = "attacked"
    """The cost on attacked images, on clean and attacked ones together, or the higher of the two."""

    start: Literal["percentile", "calibrated"] = "percentile"
    """Search thresholds from a percentile of the ANN's activations (the paper), or around a network whose
    thresholds, biases and initial membranes are first calibrated, channel by channel, for the timesteps."""
    reconstruct: bool = False
    """While calibrating, change each layer's weights so that they fit the spikes that really arrive, in closed
    form, without labels."""
    distillation: int = 0
    """Steps of gradient descent through the timesteps, from what calibration found, that bring the spiking network
    closer to the ANN; no labels. Taken where it lowers the divergence on the search's images. A hundred may do
    more harm than good; 2,000 take half a minute on an H100 (VGG15, T = 4) and hours on a CPU."""
    distillation_batch: int = 128
    """Training images of each of these steps, with random crops and flips."""
    distilled: Literal["channels", "weights"] = "channels"
    """What these steps train: the thresholds, amplitudes, biases and initial membranes of all channels, or the
    weights, too."""
    percentile: float = 99.7
    """Percentile of the ANN's activations that is the baseline's threshold."""
    std: float = 0.15
    """Spread of the initial population around the baseline, in units of the search."""
    space: Literal["normalised", "percentile"] = "normalised"
    """Search thresholds relative to the baseline's, or percentiles."""
    low: float = 0.3
    """Lowest threshold, relative to the baseline's."""
    high: float = 1.5
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
    tol: float = 0.0
    """Stop when the costs' standard deviation is at most this share of their mean."""

    delay: Literal["layer", "none"] = "layer"
    """Count one step of delay per layer (the paper) or none."""
    comparison: Literal[">", ">="] = ">"
    """Fire when the membrane is above the threshold, or at it too."""
    spikes_per_step: int = 1
    """Spikes that a neuron may send in one step. With several it needs fewer steps, and about as many spikes; they
    are simulated in float32."""
    v0: float = 0.0
    """Initial membrane as a fraction of the threshold, where it is not searched."""
    leak: float = 1.0
    """Factor on the membrane at each step, where it is not searched."""

    @property
    def evaluations(self) -> int:
        """Evaluations that the search may spend: P (G + 1), also where the population shrinks on the way."""
        return self.population * (self.generations + 1)

    @property
    def dynamics(self) -> Dynamics:
        """How the neurons behave."""
        return Dynamics(self.comparison, self.delay, self.spikes_per_step)

    @property
    def attack_used(self) -> Attack | None:
        """The attack, or None."""
        return None if self.attack == "none" else attack_of(self.attack, self.epsilon)

    @property
    def views(self) -> int:
        """How often each image of a subset is simulated: twice where it counts clean and attacked."""
        return 1 if self.attack == "none" or self.attack_mix == "attacked" else 2

    @property
    def paper_cost(self) -> bool:
        """Whether eq. 11 has any weight."""
        return bool(self.alpha or self.beta or self.gamma)

    @property
    def limits(self) -> dict[str, float]:
        """Limits of a frontier by what they are of."""
        limits = {"energy": self.max_energy, "latency": self.max_latency, "peak": self.max_peak}
        return {name: float(limit) for name, limit in limits.items() if limit is not None}

    @property
    def budgeted(self) -> bool:
        """Whether one optimum is searched below a limit of energy or of peak activity."""
        limits = (self.max_energy, self.less_energy, self.max_peak)
        return not self.objectives and any(limit is not None for limit in limits)

    def checked(self) -> Self:
        """The same settings; raises ``UserError`` where one is out of its range or contradicts another."""
        counts = dict.fromkeys(("generations", "images", "finalists", "limit_images", "calibration_images"), 1)
        at_least(
            self,
            seed=0,
            distillation=0,
            distillation_batch=1,
            population=4,
            timesteps=2 if self.paper_cost else 1,
            **counts,
        )
        at_most(self, population=MOST, timesteps=MOST, finalists=LEADERS)
        in_range(self, "[0, inf)", *WEIGHTS, "std", "tol")
        in_range(self, "(0.5, 1]", "race")
        in_range(self, "(0, 100]", "percentile")
        in_range(self, "[0, 1)", "v0")
        in_range(self, "(0, 1]", "leak")
        race = named(self, "race")
        if self.race is not None and self.views > 1:
            raise UserError(
                f"{race} compares right answers on one kind of image: leave it out, or "
                f"{named(self, 'attack_mix')} {self.attack_mix}"
            )
        if self.race is not None and self.engine.startswith("evosax:"):
            raise UserError(
                f"{race} needs greedy selection, which {self.engine} does not do; leave one of them out"
            )
        self._check_neurons()
        _ = self.attack_used
        if self.divergence and self.attack != "none":
            raise UserError(
                f"{named(self, 'divergence')} compares with the ANN on clean images: leave it or "
                f"{named(self, 'attack')} out"
            )
        if self.reconstruct and self.start != "calibrated":
            raise UserError(
                f"{named(self, 'reconstruct')} is a part of {named(self, 'start')} calibrated: give that too"
            )
        if self.distillation and self.start != "calibrated":
            raise UserError(
                f"{named(self, 'distillation')} trains what {named(self, 'start')} calibrated finds: give that too"
            )
        if self.start == "calibrated" and (self.search, self.space, self.leak, self.v0) != CALIBRATED_FIXED:
            raise UserError(
                f"{named(self, 'start')} calibrated searches factors on thresholds and shifts of initial "
                f"membranes: leave {', '.join(named(self, n) for n in ('search', 'space', 'leak', 'v0'))} out"
            )
        self._check_objectives()
        if not 0 < self.low < 1 < self.high:
            raise UserError(
                f"{named(self, 'low')} {self.low} and {named(self, 'high')} {self.high} must be above 0, with 1, "
                "the baseline, between them"
            )
        return self

    def _check_neurons(self) -> None:
        """Raise ``UserError`` where something else knows only neurons that send one spike in a step."""
        at_least(self, spikes_per_step=1)
        at_most(self, spikes_per_step=MOST_SPIKES)
        usual = SearchSettings()
        for name in ("distillation", "objectives", "max_energy", "less_energy", "max_peak", "comparison"):
            if self.spikes_per_step > 1 and getattr(self, name) != getattr(usual, name):
                raise UserError(
                    f"{named(self, name)} is for neurons that send one spike in a step: leave it or "
                    f"{named(self, 'spikes_per_step')} out"
                )

    def _check_objectives(self) -> None:
        """Raise ``UserError`` where a frontier, or a limit, contradicts something else."""
        in_range(self, "(0, inf)", "max_energy", "max_peak")
        in_range(self, "(0, 100)", "less_energy")
        at_least(self, max_latency=1, front_timesteps=1)
        at_most(self, front_timesteps=MOST)
        objectives, less = named(self, "objectives"), named(self, "less_energy")
        if not self.objectives:
            if self.max_latency is not None:
                raise UserError(
                    f"{named(self, 'max_latency')} is a limit of a frontier: give {objectives}, too, or set "
                    f"{named(self, 'timesteps')}"
                )
            if self.max_energy is not None and self.less_energy is not None:
                raise UserError(f"{named(self, 'max_energy')} and {less} are two limits of the energy: give one")
            if self.budgeted and self.start != "calibrated":
                raise UserError(
                    f"a limit of energy or peak needs {named(self, 'start')} calibrated: give that too"
                )
            if self.budgeted and self.attack != "none":
                raise UserError(f"a limit of energy or peak is of clean images: leave {named(self, 'attack')} out")
            return
        if len(set(self.objectives)) != len(self.objectives) or len(self.objectives) not in (2, 3):
            raise UserError(
                f"{objectives} is {' '.join(self.objectives)}, expected two or three different ones: for one "
                "alone, weigh the cost instead"
            )
        if not self.front_timesteps or sorted(set(self.front_timesteps)) != list(self.front_timesteps):
            raise UserError(
                f"{named(self, 'front_timesteps')} is {' '.join(map(str, self.front_timesteps)) or 'empty'}, "
                "expected whole numbers in ascending order, none twice"
            )
        if self.population < len(self.front_timesteps):
            raise UserError(
                f"{named(self, 'population')} is {self.population}, expected at least one candidate for each of "
                f"the {len(self.front_timesteps)} {named(self, 'front_timesteps')}"
            )
        if self.max_latency is not None and self.max_latency < self.front_timesteps[0]:
            raise UserError(
                f"{named(self, 'max_latency')} is {self.max_latency}, below all {named(self, 'front_timesteps')}"
            )
        if self.race is not None:
            raise UserError(
                f"{named(self, 'race')} stops candidates that lose by one cost, which a frontier does not have: "
                f"leave it or {objectives} out"
            )
        if self.strategy not in (None, *STRATEGIES):
            raise UserError(
                f"{named(self, 'strategy')} is {self.strategy}, expected one of {', '.join(STRATEGIES)} with "
                f"{objectives}, which has no single best candidate"
            )
        usual = [("start", "calibrated"), ("subset", "fixed"), ("attack", "none"), ("engine", "scipy")]
        for name, value in (*usual, ("less_energy", None)):
            if getattr(self, name) != value:
                wanted = "leave it out" if value is None else f"expected {value}"
                raise UserError(
                    f"{named(self, name)} is {getattr(self, name)}, which does not go with {objectives}: {wanted}"
                )


def settings_in(
    record: dict, where: Path | str, kind: type[SearchSettings], base: SearchSettings
) -> dict[str, Any]:
    """The fields of ``kind`` that a config.json holds; those that it does not hold have the values of ``base``.

    Raises:
        UserError: a value of another type.
    """
    kinds = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        value = record.get(field.name)
        if value is None:
            if hasattr(base, field.name):
                values[field.name] = getattr(base, field.name)
            continue
        wanted = kinds[field.name]
        if not (isinstance(value, str) if wanted == Path | None else _is(value, wanted)):
            raise UserError(f"{where} does not hold a run's configuration: {field.name} is {value!r}"[:500])
        if wanted == Path | None:
            value = Path(value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return values


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
