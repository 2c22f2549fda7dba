"""Options of benchmarks.bptt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxsnn.cli.options import DebugOptions
from jaxsnn.runtime.checks import at_least, in_range


@dataclass(frozen=True)
class Config(DebugOptions):
    """The search of thresholds against fine-tuning by BPTT: accuracy (Fig. 4), memory and time (Fig. 5).

    Fig. 4: Acc(t) on the same test images of the converted network, of the search, of BPTT from the same start, of
    BPTT with few timesteps, and of a search after BPTT, whose cost includes that BPTT's. Each command runs in a
    process of its own; a run that is there already is read. An image counts as often as it was simulated; image
    steps add one for each pass of the clipped ANN, which the search's cost needs in addition. Peak memory is the
    process's, Python and JAX included, taken before the test images where the run says so.

    Fig. 5: VGG15 at 224 x 224. Memory is what XLA plans for the compiled step (arguments, results, temporaries) on
    this device; nothing is run at that size. Each T gets the largest batch with which BPTT fits into --memory, and
    the search simulates one candidate on the same batch. Time is eq. 19, tau x training cost x D_train / B, with
    eq. 17's cost for the search and 20 epochs for BPTT. Tau is measured on a smaller image and carried over by the
    number of multiply-accumulates, unless --measure full runs the real thing. Images are synthetic and weights
    random: neither changes memory or time.
    """

    part: Literal["both", "accuracy", "memory"] = "both"
    out: Path = Path("runs/bptt")
    """Folder for the runs, tables (bptt.json) and figures."""
    data: str = "embedded"
    data_dir: Path | None = None
    weights: Path | None = None
    """Trained ANN; default: the embedded network."""
    search: Path | None = None
    """Folder of a finished jaxsnn.optimize run to compare with; default: make one."""
    test_images: int | None = None
    test_timesteps: int = 60
    population: int | None = None
    generations: int | None = None
    """Of all searches, like --population; default: the preset's."""
    epochs: int = 2
    """Epochs of each BPTT run."""
    batch: int = 50
    images: int = 2000
    """Training images of each BPTT run."""
    timesteps: int = 42
    """T of BPTT, layer delay included; the short run trains with 8 steps and the delay."""

    memory: float = 16.0
    """GiB that BPTT must fit into."""
    unrolled: tuple[int, ...] = (5, 25, 50, 75)
    """Timesteps of Fig. 5."""
    network: str = "vgg15"
    side: int = 224
    classes: int = 1000
    measure: Literal["none", "small", "full"] = "small"
    """Measure the time of a batch: not, on images of --measure-side, or at full size (needs that much memory)."""
    measure_side: int = 64
    repeats: int = 2
    """Batches that a time is the median of."""


def check(config: Config) -> None:
    """Raise ``UserError`` for settings that cannot be; those of the runs are checked by their commands."""
    at_least(config, side=1, classes=1, measure_side=1, repeats=1, unrolled=1)
    in_range(config, "(0, inf)", "memory")


def sizes(config: Config) -> list[str]:
    """The options --population and --generations of a search, where they are given."""
    pairs = [(f"--{name}", getattr(config, name)) for name in ("population", "generations")]
    return [str(part) for flag, value in pairs if value is not None for part in (flag, value)]
