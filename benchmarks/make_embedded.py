"""Make the embedded dataset from the official CIFAR-10 files: for maintainers, not needed to use the program.

    python -m benchmarks.make_embedded --data-dir DIR     # DIR: what data.load("cifar10") reads
    python -m benchmarks.make_embedded --data-dir DIR --out OTHER

The rule does not depend on the order of the images in the files. Within each split and class the images
are ranked by sha256(salt + pixels), pixels as 32·32·3 bytes in the order row, column, colour; the first 200
are taken; all 2,000 are then put in the order of that hash. Pixel for pixel, no image is in both splits.

The decoded content is compared with the sha256 recorded in the package. The files are byte for byte the same
with the same libwebp (1.6.0 made those in the package); another version may pack the same pixels differently.
Some minutes on one core, nearly all of it WebP's slowest and smallest setting.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import data
from benchmarks import command
from data import embedded_subset
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError

SALT = b"jaxsnn-evo embedded CIFAR-10, version 1"


PER_CLASS = 200


@dataclass(frozen=True)
class EmbeddedConfig(DebugOptions):
    """Make the embedded dataset from the official CIFAR-10 files."""

    data_dir: Path
    """Folder with the official CIFAR-10."""
    out: Path = Path(embedded_subset.__file__).parent / "embedded"
    """Folder to write to."""


def draw(dataset: data.Dataset) -> data.Dataset:
    """Return `PER_CLASS` images of each class by the rule above, in the order of their hashes."""
    hashes = [hashlib.sha256(SALT + image.tobytes()).digest() for image in dataset.images]
    ranked = np.array(sorted(range(len(hashes)), key=hashes.__getitem__))
    labels = dataset.labels[ranked]
    rank_in_class = np.empty(len(labels), np.int64)
    for label in range(len(dataset.classes)):
        of_class = labels == label
        rank_in_class[of_class] = np.arange(of_class.sum())
    return dataset.select(ranked[rank_in_class < PER_CLASS])


def main(config: EmbeddedConfig) -> None:
    """Draw, pack and write both splits; print what they are."""
    drawn = {split: draw(data.load("cifar10", split, config.data_dir)) for split in embedded_subset.FILES}
    config.out.mkdir(parents=True, exist_ok=True)
    for split, name in embedded_subset.FILES.items():
        raw = embedded_subset.encode(drawn[split])
        content = embedded_subset.decode(raw, split).content_hash()
        if content != drawn[split].content_hash():
            raise UserError(f"{name}: the packed images do not decode to the drawn ones")
        path = config.out / name
        path.write_bytes(raw)
        state = "as recorded" if content == embedded_subset.CONTENT[split] else "NOT the recorded content"
        print(f"{path}: {len(drawn[split])} images, {len(raw)} bytes, sha256 {content} ({state})", flush=True)


if __name__ == "__main__":
    command.run(EmbeddedConfig, main, "make_embedded", __doc__)
