"""Options of fine-tuning: the network that it starts from, and how it is trained."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import data
from jaxsnn.cli.options import DebugOptions, WeightsOptions
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.loading import check_data, load_named
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes, check_single
from jaxsnn.records.finished_run import located_weights
from jaxsnn.records.thresholds_file import dynamics_of, read_thresholds
from jaxsnn.runtime.checks import at_least, at_most, in_range
from jaxsnn.runtime.marks import Where
from jaxsnn.search.evolve import subsets
from jaxsnn.search.settings import MOST
from jaxsnn.simulation import surrogate
from jaxsnn.training.bptt import TRAINABLE, Unrolling
from jaxsnn.training.recipes import TUNING_PRESETS, TuningPreset, tuning_preset

RATES = {"learning_rate": 1e-4, "neuron_rate": 1e-2}
"""Adam's rates at the start: of the weights, and of thresholds, leaks and v0."""


@dataclass(frozen=True, kw_only=True)
class StartOptions(WeightsOptions):
    """Which spiking network fine-tuning starts from."""

    weights: Where[Path | None] = None
    """Trained ANN; default: the one that --start names, or the embedded network."""
    start: Path | None = None
    """Folder of a run, or a file of thresholds, to start from; default: the percentile's thresholds."""
    percentile: float = 99.7
    """Percentile of the ANN's activations that is the threshold at the start."""
    calibration_images: int = 500
    """Training images from which the percentiles are read."""
    delay: Literal["layer", "none"] | None = None
    """Count one step of delay per layer (the paper) or none; default: as in --start, or per layer."""
    comparison: Literal[">", ">="] | None = None
    """Fire above the threshold, or at it too; default: as in --start, or above."""


@dataclass(frozen=True)
class Start:
    """A spiking network with one candidate's genes (1, L).

    Attributes:
        sha256: of the file of weights.
    """

    snn: SNN
    sha256: str
    genes: Genes
    dynamics: Dynamics


def load_start(options: StartOptions, train: data.Dataset, say: Callable[[str], None]) -> Start:
    """What the options name.

    Args:
        train: the training images.
        say: gets a sentence for everything that was assumed about the weights.

    Raises:
        UserError: thresholds, weights and images that do not fit each other.
    """
    found = {} if options.start is None else read_thresholds(options.start)
    if options.start is not None and options.weights is None and isinstance(found.get("weights"), str):
        folder = options.start if options.start.is_dir() else options.start.parent
        found["weights"] = str(located_weights(Path(found["weights"]), folder))
    shape = train.images.shape[1:]
    snn, sha256 = load_named(found, options.start, options.weights, options.network, shape, say)
    check_data(snn.network, train.images, len(train.classes), f"{train.name} ({train.split})")
    dynamics = dynamics_of(found, options.start, options.comparison, options.delay)
    check_single(dynamics, "fine-tuning is")
    if found:
        genes = Genes.from_record(found)
        layers = len(snn.network.spiking)
        if genes.threshold.shape[1] != layers:
            raise UserError(
                f"{options.start} has {genes.threshold.shape[1]} thresholds, network {snn.network.name} has "
                f"{layers} spiking layers: give the weights that they belong to as --weights"
            )
    else:
        if options.calibration_images > len(train):
            raise UserError(
                f"--calibration-images is {options.calibration_images}, but {train.name} has only {len(train)} "
                "training images"
            )
        subset = next(subsets(train.labels, options.calibration_images, "fixed", 0))
        activations = calibrate(snn.network, snn.params, train.images[subset])
        genes = Genes(activations.threshold(options.percentile)[None])
    check_genes(snn.network, genes)
    return Start(snn, sha256, genes, dynamics)


@dataclass(frozen=True, kw_only=True)
class BpttOptions(DebugOptions):
    """How a spiking network is trained by backpropagation through time."""

    preset: str = "demo"
    """demo, or paper: 25 epochs on all training images with T = 70. Sets the defaults of --epochs, --batch,
    --images, --timesteps and --test-timesteps."""
    seed: int = 0
    train: tuple[str, ...] = ("weights", "thresholds")
    """What is trained: any of weights, thresholds, leak, v0."""
    epochs: int | None = None
    """Times that every training image is seen."""
    batch: int | None = None
    """Images of one step."""
    images: int | None = None
    """Training images, at most as many as there are; the paper preset takes all."""
    augment: bool = False
    """Random crops and flips of the training images."""
    timesteps: int | None = None
    """Timesteps T of training, layer delay included."""
    loss: Literal["mean", "final"] = "mean"
    """Cross-entropy of scores / t, its mean over all steps t, or at the last step alone."""
    learning_rate: float = RATES["learning_rate"]
    """Adam's rate for the weights at the start; it falls to 0 along a cosine."""
    neuron_rate: float = RATES["neuron_rate"]
    """The same for thresholds (relative to where they start), leaks and v0."""
    surrogate: str = "triangle"
    """Derivative of a spike: triangle (eq. 18), arctan or sigmoid."""
    scale: float = 0.15
    """Factor on that derivative: gamma of eq. 18. Within few steps, little of the gradient comes through many
    layers at 0.15: benchmarks.bptt trains T = 8 at 1."""
    checkpoint: bool = False
    """Keep only every few steps for the way back and compute those between again: less memory, more time."""
    truncate: int | None = None
    """Let gradients reach back over windows of so many steps only, layer delay not counted; saves memory together
    with --checkpoint."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the maps that carry spikes, in training; the test is in float32."""
    test_timesteps: int | None = None
    """Timesteps of the comparison on the test images."""

    def used(self) -> TuningPreset:
        """The preset, with what the user changed of it."""
        return tuning_preset(self.preset, **{name: getattr(self, name) for name in asdict(TUNING_PRESETS["demo"])})

    def rates(self) -> dict[str, float]:
        """The learning rates by name."""
        return {name: getattr(self, name) for name in RATES}

    def check(self) -> None:
        """Raise ``UserError`` where a setting is out of range."""
        unknown = [name for name in self.train if name not in TRAINABLE]
        if unknown or not self.train:
            wrong = unknown[0] if unknown else "empty"
            raise UserError(f"--train cannot be {wrong}: any of {', '.join(TRAINABLE)}")
        counts = ("epochs", "batch", "images", "timesteps", "test_timesteps")
        at_least(self, seed=0, **dict.fromkeys(counts, 1))
        at_most(self, timesteps=MOST, test_timesteps=MOST)
        in_range(self, "(0, inf)", *RATES)

    def unrolling(self, dynamics: Dynamics, network: Network) -> Unrolling:
        """How the gradient of one batch is computed.

        Raises:
            UserError: no step is left when the layer delay is over, or settings that cannot be.
        """
        used, silent = self.used(), dynamics.silent_steps(network)
        steps = used.timesteps - silent
        if min(steps, used.test_timesteps - silent) < 1:
            raise UserError(
                f"--timesteps {used.timesteps} and --test-timesteps {used.test_timesteps} must be above the layer "
                f"delay of {network.delay} steps: nothing reaches the read-out before"
            )
        surrogate.check(steps, self.surrogate, self.scale, self.truncate, self.precision)
        return Unrolling(
            timesteps=steps,
            comparison=dynamics.comparison,
            loss=self.loss,
            surrogate=self.surrogate,
            scale=self.scale,
            checkpoint=self.checkpoint,
            truncate=self.truncate,
            precision=self.precision,
        )
