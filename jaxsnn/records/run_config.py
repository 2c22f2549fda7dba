"""config.json: what a run of jaxsnn.optimize was asked to do."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, overload

import data
from data import KEPT, Dataset
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least, at_most, in_range
from jaxsnn.runtime.files import read_json
from jaxsnn.runtime.marks import Where, marked
from jaxsnn.search.presets import DEFAULT, PRESETS, TEST_TIMESTEPS, preset, preset_values
from jaxsnn.search.settings import MOST, SearchSettings, settings_in
from jaxsnn.simulation.cells import unroll
from jaxsnn.simulation.plan import PlanSettings


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Which trained network."""

    weights: Where[Path | None] = None
    """Trained ANN: a .safetensors file of jaxsnn.train, or a PyTorch state_dict (.pt, .pth) or plain .safetensors
    file, which jaxsnn.import_weights checks first; default: the embedded network."""
    network: str | None = None
    """Network of a file that does not describe it: an architecture by name, or a description, FILE.json."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images."""

    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Where[Path | None] = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    image_size: int | None = None
    """Side of the square that images of imagefolder and tfds:NAME are resized and cropped to; default: 224, or
    their own where all are squares of one smaller size."""
    resize: int | None = None
    """Length of their shorter side before they are cropped; default: 8 / 7 of --image-size."""

    def load(
        self,
        split: str,
        limit: int | None = None,
        keep: int = KEPT,
        progress: Callable[[float], object] | None = None,
    ) -> Dataset:
        """One split of the images; see ``data.load``."""
        return data.load(
            self.data, split, self.data_dir, limit=limit, keep=keep, progress=progress, **self.geometry()
        )

    def geometry(self) -> dict[str, Any]:
        """What ``data.load`` is told about sizes."""
        return {"size": "auto" if self.image_size is None else self.image_size, "resize": self.resize}


@dataclass(frozen=True, kw_only=True)
class RunConfig(PlanSettings, SearchSettings, DataOptions, WeightsOptions):
    """The complete configuration of a run."""

    preset: str = "thresholds"
    """demo: calibrated for 12 timesteps without layer delay, and searched around, in about a minute; few: the same
    for --timesteps (4), with more candidates and images; thresholds: the paper's way on the demo's scale; or a row
    of the paper's Table I: cifar10, cifar100-vgg15, cifar100-vgg11, imagenet, cifar10-attack, cifar100-attack.
    Sets the defaults of all other options."""
    encoding: Literal["constant", "rate"] = "constant"
    """How the image comes in: as a constant current, or as evenly spaced spikes of a layer in front, which is
    searched and calibrated like the others, so that weights are driven by spikes alone."""
    test_timesteps: int = TEST_TIMESTEPS["thresholds"]
    """Timesteps of the final comparison on the test images."""
    test_images: int | None = None
    """Test images of the final comparison; default: all."""
    checkpoint_every: Where[float] = 0.0
    """Seconds between two checkpoints, from which an interrupted run is resumed; default: one after every
    generation."""
    tensorboard: Where[bool] = False
    """Also write every generation's scalars into the run's folder for TensorBoard (pip install tensorboard)."""

    @classmethod
    def of(cls, preset: str, **changes: Any) -> Self:
        """The configuration of a preset, with ``changes``."""
        values: dict[str, Any] = {**preset_values(preset), "preset": preset, **changes}
        return cls(**values)

    def checked(self) -> Self:
        """The same configuration; raises ``UserError`` where a setting is out of its range."""
        preset(self.preset)
        super().checked()
        plan = self.plan()
        if self.spikes_per_step > 1:
            unroll.check(plan, self.dynamics)
            if self.encoding != "constant":
                raise UserError("--encoding is for neurons that send one spike in a step: leave it out")
        at_least(self, test_timesteps=2, test_images=1)
        at_most(self, test_timesteps=MOST)
        in_range(self, "[0, inf)", "checkpoint_every")
        return self


C = TypeVar("C", bound=RunConfig)


def to_record(config: Any) -> dict[str, Any]:
    """The configuration as config.json holds it."""
    left_out = marked(type(config), "unrecorded")
    values = {key: value for key, value in asdict(config).items() if key not in left_out}
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


@overload
def from_record(record: dict[str, Any], where: Path | str) -> RunConfig: ...
@overload
def from_record(record: dict[str, Any], where: Path | str, kind: type[C]) -> C: ...
def from_record(record: dict[str, Any], where: Path | str, kind: type[RunConfig] = RunConfig) -> RunConfig:
    """The configuration in a config.json, as a ``kind``; missing settings have their preset's values.

    Those of a run of ``DEFAULT`` are from when that was what "thresholds" is now.

    Raises:
        UserError: a value of another type, or out of its range.
    """
    name = record.get("preset")
    base = RunConfig.of(name if isinstance(name, str) and name in PRESETS and name != DEFAULT else "thresholds")
    unrecorded = marked(kind, "unrecorded")
    known = {key: value for key, value in record.items() if key not in unrecorded}
    values = settings_in(known, where, kind, base)
    try:
        return kind(**values).checked()
    except UserError as error:
        raise UserError(f"{where} does not hold a run's configuration: {error}") from error


def config_beside(run: Path) -> RunConfig | None:
    """The configuration of the run that ``run`` is, its folder or the thresholds.json in it; else None.

    Raises:
        UserError: the folder's config.json is not one.
    """
    record = (run if run.is_dir() else run.parent) / "config.json"
    if not (run.is_dir() or run.name == "thresholds.json") or not record.is_file():
        return None
    return from_record(read_json(record), record)
