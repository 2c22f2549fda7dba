"""A folder of photographs, large if one likes: seconds and peak memory of listing, search, evaluation, training.

    python -m benchmarks.image_folder --out DIR --images 100000

The JPEGs are synthetic, 40 kB each, of ImageNet's sizes, and are made once, in DIR. Every stage
runs in a process of its own, whose memory and time the system counts; the network is drawn, not trained, but for
the stage that trains one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.weights import save_weights
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json
from jaxsnn.training.recipes import RECIPES
from jaxsnn.training.start import drawn_ann

CLASSES = 100
TEST_SHARE = 0.05
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480), (256, 300))
"""Width and height in turn."""
LISTING = """
import json, sys, time
began = time.perf_counter()
import data
train = data.load("imagefolder", "train", sys.argv[1])
print(json.dumps({"images": len(train), "seconds": time.perf_counter() - began}))
"""


@dataclass(frozen=True, kw_only=True)
class FolderConfig(DebugOptions):
    """Measure what a folder of photographs costs."""

    out: Path = Path("runs/image-folder")
    """Folder for the photographs, the runs and results.json."""
    images: int = 3000
    """Training photographs; for testing there are a twentieth more."""
    image_size: int = 224
    """Side to which the search and the evaluation crop them."""
    train_size: int = 64
    """Side to which training crops them."""
    subset: int = 100
    """Training images of the search, and of its calibration."""
    test_images: int = 100
    """Test images of the search and of the evaluation."""
    stages: tuple[Literal["list", "search", "evaluate", "train"], ...] = ("list", "search", "evaluate", "train")
    """What is measured; evaluate needs the run of search."""


@dataclass(frozen=True)
class Measured:
    """What a process took: seconds by the clock and of the processor, the most memory it held in bytes."""

    stage: str
    seconds: float
    processor_seconds: float
    peak: int


def photograph(number: int, label: int) -> Image.Image:
    """A smooth picture with some noise, in the colour of its class: about 40 kB as a JPEG."""
    rng = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = Image.fromarray(rng.integers(0, 256, (height // 2, width // 2), np.uint8)).resize((width, height))
    colour = Image.new(
        "RGB", (width, height), tuple(int(c) for c in np.random.default_rng(label).integers(0, 256, 3))
    )
    return Image.blend(Image.blend(coarse, noise.convert("RGB"), 0.12), colour, 0.3)


def make(folder: Path, images: int) -> None:
    """Write the photographs that are not there yet: train and val, class by class."""

    def one(split: str, number: int) -> None:
        label = number % CLASSES
        path = folder / split / f"class{label:03}" / f"{number:07}.jpg"
        if not path.exists():
            part = path.with_suffix(".part")  # whole or not there, where this is interrupted
            photograph(number + (1 << 40) * (split == "val"), label).save(part, "JPEG", quality=88)
            part.replace(path)

    for split, count in (("train", images), ("val", max(CLASSES, round(images * TEST_SHARE)))):
        for label in range(CLASSES):
            (folder / split / f"class{label:03}").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            for start in range(0, count, 1000):
                list(pool.map(one, [split] * 1000, range(start, min(count, start + 1000))))


def measured(stage: str, called: Sequence[str]) -> Measured:
    """Run a program in a process of its own.

    Raises:
        UserError: it ends with an error.
    """
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *called], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise UserError(f"python {' '.join(called)} ended with exit code {child.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Measured(stage, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale)


def drawn_weights(path: Path, size: int) -> None:
    """Write a small network with random weights for the photographs."""
    network = architecture("vgg11-slim", width=0.25, classes=CLASSES, input_shape=(size, size, 3))
    few = np.stack([np.asarray(photograph(i, i).resize((size, size))) for i in range(4)])
    ann = drawn_ann(network, RECIPES["fast"], few, 0)
    save_weights(path, network, {name: np.asarray(value) for name, value in ann.params().items()})


def stages(config: FolderConfig, photographs: Path) -> list[Measured]:
    """Measure the stages that were asked for, in their order."""
    weights, run = config.out / "drawn.safetensors", config.out / "search"
    there = ["--data", "imagefolder", "--data-dir", str(photographs)]
    rows = []
    if "list" in config.stages:
        rows += [measured(name, ["-c", LISTING, str(photographs)]) for name in ("list", "list again")]
    if "search" in config.stages:
        drawn_weights(weights, config.image_size)
        counts = {"images": config.subset, "calibration-images": config.subset, "test-images": config.test_images}
        counts |= {"population": 5, "generations": 2, "timesteps": 16, "test-timesteps": 16, "finalists": 1}
        options = [word for name, value in counts.items() for word in (f"--{name}", str(value))]
        options += ["--preset", "thresholds", "--weights", str(weights), "--image-size", str(config.image_size)]
        rows.append(measured("search", ["-m", "jaxsnn.optimize", *there, *options, "--out", str(run)]))
    if "evaluate" in config.stages:
        options = ["--images", str(config.test_images), "--timesteps", "16"]
        rows.append(measured("evaluate", ["-m", "jaxsnn.evaluate", str(run), *options]))
    if "train" in config.stages:
        options = ["--network", "vgg11-slim", "--width", "0.25", "--epochs", "1", "--batch", "64"]
        options += ["--image-size", str(config.train_size), "--out", str(config.out / "train")]
        rows.append(measured("train, one epoch", ["-m", "jaxsnn.train", *there, *options]))
    return rows


def main(config: FolderConfig) -> None:
    """Make the photographs, measure, print a table and write results.json."""
    at_least(config, images=CLASSES, image_size=32, train_size=32, subset=1, test_images=1)
    for name in ("search", "train"):
        if name in config.stages and (config.out / name / "config.json").exists():
            raise UserError(f"{config.out / name} holds a run: delete it, or choose another --out")
    console = Console()
    photographs = config.out / "photographs"
    with console.status(f"making {config.images} photographs"):
        make(photographs, config.images)
    rows = stages(config, photographs)
    table = Table("stage", "s", "s of processor", "peak MB", title=f"{config.images} photographs")
    for row in rows:
        table.add_row(row.stage, f"{row.seconds:.1f}", f"{row.processor_seconds:.1f}", f"{row.peak / 1e6:,.0f}")
    console.print(table)
    write_json(config.out / "results.json", json.loads(json.dumps([vars(row) for row in rows])))


if __name__ == "__main__":
    command.run(FolderConfig, main, "image_folder", __doc__)
