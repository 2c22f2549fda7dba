"""A folder of photographs, large if one likes: seconds and peak memory of listing, search, evaluation, training.

    python -m benchmarks.image_folder --out DIR --images 100000
    python -m benchmarks.image_folder --out DIR --stages names        # ImageNet's number of files, empty
    python -m benchmarks.image_folder --out DIR --images 100000 --side 64 --stages train step    # Tiny-ImageNet's

The JPEGs are synthetic, 40 kB each, of ImageNet's sizes, and are made once, in DIR; a thousand are drawn, the
others are files of their own with the same pixels. Every stage runs in a process of its own, whose memory and time
the system counts; the network is drawn, not trained, but for the stage that trains one. "Step alone" trains on as
many images as "train", of noise and in memory.
"""

import functools
import io
import json
import os
import shutil
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

BATCH = 64
CLASSES = 100
DRAWN = 1000
"""Different photographs of a split, a multiple of ``CLASSES``; the others are these with a number behind them."""
FOLDERS = 1000
"""Of empty files."""
SETTLED = 3.0
"""Seconds after which a folder's time of change is believed."""
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
NAMES = """
import sys
from pathlib import Path
from data import listing
found = len(listing.of_classes(Path(sys.argv[1])).names)
sys.exit(found != int(sys.argv[2]) and f"{found} names listed, {sys.argv[2]} are there")
"""
STEP = """
import sys
import numpy as np
import data
from jaxsnn.training.loop import AnnDescent, Batches, Place, descend, make_optimizer
from jaxsnn.training.recipes import recipe_of
from jaxsnn.training.start import drawn_ann, network_for
images, size, batch = map(int, sys.argv[1:4])
rng = np.random.default_rng(0)
few = rng.integers(0, 256, (2000, size, size, 3), np.uint8)
classes = tuple(map(str, range(int(sys.argv[4]))))
held = data.Dataset(few, rng.integers(0, len(classes), 2000).astype(np.int32), classes, "noise", "train", "noise")
recipe = recipe_of("fast", batch=batch)
ann = drawn_ann(network_for(sys.argv[5], held, width=float(sys.argv[6])), recipe, few[:batch], 0)
epochs = round(images / len(few))
descent = AnnDescent(ann, make_optimizer(ann, recipe, images // batch), held, recipe)
for place in descend(descent, Batches(len(few), batch, 0), epochs, Place(), wait=10):
    pass
"""


@dataclass(frozen=True, kw_only=True)
class FolderConfig(DebugOptions):
    """Measure what a folder of photographs costs."""

    out: Path = Path("runs/image-folder")
    """Folder for the photographs, the runs and results.json."""
    images: int = 3000
    """Training photographs; for testing there are a twentieth more."""
    side: int | None = None
    """Of photographs that are squares, as Tiny-ImageNet's are with 64; default: ImageNet's sizes."""
    image_size: int = 224
    """Side to which the search and the evaluation crop them."""
    train_size: int = 64
    """Side to which training crops them."""
    subset: int = 100
    """Training images of the search, and of its calibration."""
    test_images: int = 100
    """Test images of the search and of the evaluation."""
    network: str = "vgg11-slim"
    """That is trained."""
    width: float = 0.25
    """Of all networks."""
    names: int = 1_281_000
    """Empty files of the stage "names", in 1,000 folders; they are made in the stage and deleted after it."""
    stages: tuple[Literal["names", "list", "search", "evaluate", "train", "step"], ...] = (
        "list",
        "search",
        "evaluate",
        "train",
        "step",
    )
    """What is measured; evaluate needs the run of search."""


@dataclass(frozen=True)
class Measured:
    """What a process took: seconds by the clock and of the processor, the most memory it held in bytes."""

    stage: str
    seconds: float
    processor_seconds: float
    peak: int


def photograph(number: int, label: int, side: int | None = None) -> Image.Image:
    """A smooth picture with some noise, in the colour of its class: about 40 kB as a JPEG, or a square."""
    rng = np.random.default_rng(number)
    width, height = (side, side) if side else SIZES[number % len(SIZES)]
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = Image.fromarray(rng.integers(0, 256, (height // 2, width // 2), np.uint8)).resize((width, height))
    colour = Image.new(
        "RGB", (width, height), tuple(int(c) for c in np.random.default_rng(label).integers(0, 256, 3))
    )
    return Image.blend(Image.blend(coarse, noise.convert("RGB"), 0.12), colour, 0.3)


def make(folder: Path, images: int, side: int | None = None) -> None:
    """Write the photographs that are not there yet: train and val, class by class."""

    def one(split: str, number: int) -> None:
        label = number % CLASSES
        path = folder / split / f"class{label:03}" / f"{number:07}.jpg"
        if not path.exists():
            part = path.with_suffix(".part")  # whole or not there, where this is interrupted
            part.write_bytes(drawn(split, number % DRAWN) + b"%d" % number)
            part.replace(path)

    @functools.cache
    def drawn(split: str, number: int) -> bytes:
        held = io.BytesIO()
        photograph(number + (1 << 40) * (split == "val"), number % CLASSES, side).save(held, "JPEG", quality=88)
        return held.getvalue()

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


def listed(folder: Path, names: int) -> list[Measured]:
    """List that many empty files, twice: the second time from what the first remembered."""
    for label in range(FOLDERS):
        place = folder / f"n{label:08}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(label, names, FOLDERS):
            (place / f"{number:08}.JPEG").touch()
    time.sleep(SETTLED)
    found = [measured(name, ["-c", NAMES, str(folder), str(names)]) for name in ("names", "names again")]
    shutil.rmtree(folder)
    return found


def drawn_weights(path: Path, size: int, width: float) -> None:
    """Write a small network with random weights for the photographs."""
    network = architecture("vgg11-slim", width=width, classes=CLASSES, input_shape=(size, size, 3))
    few = np.stack([np.asarray(photograph(i, i).resize((size, size))) for i in range(4)])
    ann = drawn_ann(network, RECIPES["fast"], few, 0)
    save_weights(path, network, {name: np.asarray(value) for name, value in ann.params().items()})


def stages(config: FolderConfig, photographs: Path) -> list[Measured]:
    """Measure the stages that were asked for, in their order."""
    weights, run = config.out / "drawn.safetensors", config.out / "search"
    there = ["--data", "imagefolder", "--data-dir", str(photographs)]
    rows = listed(config.out / "names", config.names) if "names" in config.stages else []
    if "list" in config.stages:
        rows += [measured(name, ["-c", LISTING, str(photographs)]) for name in ("list", "list again")]
    if "search" in config.stages:
        drawn_weights(weights, config.image_size, config.width)
        counts = {"images": config.subset, "calibration-images": config.subset, "test-images": config.test_images}
        counts |= {"population": 5, "generations": 2, "timesteps": 16, "test-timesteps": 16, "finalists": 1}
        options = [word for name, value in counts.items() for word in (f"--{name}", str(value))]
        options += ["--preset", "thresholds", "--weights", str(weights), "--image-size", str(config.image_size)]
        rows.append(measured("search", ["-m", "jaxsnn.optimize", *there, *options, "--out", str(run)]))
    if "evaluate" in config.stages:
        options = ["--images", str(config.test_images), "--timesteps", "16"]
        rows.append(measured("evaluate", ["-m", "jaxsnn.evaluate", str(run), *options]))
    if "train" in config.stages:
        options = [
            "--network",
            config.network,
            "--width",
            str(config.width),
            "--epochs",
            "1",
            "--batch",
            str(BATCH),
        ]
        options += ["--image-size", str(config.train_size), "--out", str(config.out / "train")]
        rows.append(measured("train, one epoch", ["-m", "jaxsnn.train", *there, *options]))
    if "step" in config.stages:
        counts = [config.images, config.train_size, BATCH, CLASSES, config.network, config.width]
        rows.append(measured("step alone", ["-c", STEP, *map(str, counts)]))
    return rows


def main(config: FolderConfig) -> None:
    """Make the photographs, measure, print a table and write results.json."""
    at_least(config, images=CLASSES, names=FOLDERS, side=8, image_size=32, train_size=32, subset=1, test_images=1)
    for name in ("search", "train"):
        if name in config.stages and (config.out / name / "config.json").exists():
            raise UserError(f"{config.out / name} holds a run: delete it, or choose another --out")
    console = Console()
    photographs = config.out / "photographs"
    if config.stages != ("names",):
        with console.status(f"making {config.images} photographs"):
            make(photographs, config.images, config.side)
    rows = stages(config, photographs)
    table = Table("stage", "s", "s of processor", "peak MB", title=f"{config.images} photographs")
    for row in rows:
        table.add_row(row.stage, f"{row.seconds:.1f}", f"{row.processor_seconds:.1f}", f"{row.peak / 1e6:,.0f}")
    console.print(table)
    write_json(config.out / "results.json", json.loads(json.dumps([vars(row) for row in rows])))


if __name__ == "__main__":
    command.run(FolderConfig, main, "image_folder", __doc__)
