"""Make the embedded dataset from the official CIFAR-10 files: for maintainers, not needed to use the program.

    python benchmarks/make_embedded.py --data-dir DIR     # DIR: what data.load("cifar10") reads
    python benchmarks/make_embedded.py --data-dir DIR --out OTHER

The rule does not depend on the order of the images in the files. Within each split and class the images
are ranked by sha256(salt + pixels), pixels as 32·32·3 bytes in the order row, column, colour; the first 200
are taken; all 2,000 are then put in the order of that hash. Pixel for pixel, no image is in both splits.

The decoded content is compared with the sha256 recorded in the package. The files are byte for byte the same
with the same libwebp (1.6.0 made those in the package); another version may pack the same pixels differently.
Some minutes on one core, nearly all of it WebP's slowest and smallest setting.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

import data
from data import embedded_subset

SALT = b"jaxsnn-evo embedded CIFAR-10, version 1"


PER_CLASS = 200


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the official CIFAR-10")
    default = Path(embedded_subset.__file__).parent / "embedded"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split, name in embedded_subset.FILES.items():
        drawn = draw(data.load("cifar10", split, args.data_dir))
        raw = embedded_subset.encode(drawn)
        content = embedded_subset.decode(raw, split).content_hash()
        if content != drawn.content_hash():
            raise SystemExit(f"{name}: the packed images do not decode to the drawn ones")
        (args.out / name).write_bytes(raw)
        state = "as recorded" if content == embedded_subset.CONTENT[split] else "NOT the recorded content"
        print(
            f"{args.out / name}: {len(drawn)} images, {len(raw)} bytes, sha256 {content} ({state})",
            flush=True,
        )


if __name__ == "__main__":
    main()
