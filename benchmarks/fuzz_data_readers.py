"""Readers of datasets, for benchmarks.fuzz: images, archives, pickles, IDX, lists of files.

Nothing of this program may be imported before Atheris can instrument it, so that imports stand in functions.
"""

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_target import Finding, Target, of_bytes, of_path, same


def of_images(folder: Path) -> dict[str, Target]:
    """Those of datasets."""
    from data import archive, cifar, idx, pictures, safe_pickle
    from data import folder as tree
    from data.geometry import Geometry

    flat = folder / "images"
    flat.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (flat / name).touch()
    known = archive.Archive("cifar.tar.gz", 1, "", "a page")
    layouts = cifar.CIFAR10.layouts
    numbers = struct.pack(">IIII", 0x803, 2, 3, 3) + bytes(18)
    batches = [{b"data": [1, 2], b"labels": (3, "x", None, 1.5, True)}, {"data": np.zeros((2, 3), np.uint8)}]

    def picture(path: Path) -> np.ndarray:
        return pictures.decode(str(path), Geometry(size=8), np.array([0.5, 0.5]))

    def batch(content: bytes) -> object:
        return cifar._decode_pickle(layouts[1], b"labels", 2, content, "a batch")

    def is_picture(found: np.ndarray, content: bytes) -> None:
        if (found.dtype, found.shape) != (np.uint8, (8, 8, 3)):
            raise Finding(f"it became {found.dtype} of {found.shape}")

    def is_idx(found: np.ndarray, content: bytes) -> None:
        same(found.tobytes(), content[16:], "pixels")

    def read_idx(path: Path) -> np.ndarray:
        return idx._read_array(path, (3, 3))

    targets = {
        "images": Target(of_path(picture, folder / "image.jpg", is_picture), _pictures(), "picture"),
        "CIFAR's archive": Target(
            of_path(
                lambda path: archive.read_members(path, known, {"a/x": 100}), folder / known.name, _as_tarfile_says
            ),
            [
                _tar(tarfile.USTAR_FORMAT, "a/x"),
                _tar(tarfile.GNU_FORMAT, "a" * 200),
                _tar(tarfile.PAX_FORMAT, "é" * 120),
            ],
            "tar",
        ),
        "CIFAR's pickle": Target(
            of_bytes(safe_pickle.loads, _as_pickle_says),
            [pickle.dumps(one, protocol=p) for one in batches for p in (0, 2, 4)],
            "pickle",
        ),
        "CIFAR's batch": Target(
            of_bytes(batch),
            [pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)],
            "pickle",
        ),
        "IDX": Target(of_path(read_idx, folder / "plain", is_idx), [numbers]),
        "packed IDX": Target(of_path(read_idx, folder / "packed.gz"), [gzip.compress(numbers, mtime=0)], "packed"),
        "annotations": Target(
            of_path(lambda path: tree._annotated(flat, path, ("n1", "n2")), folder / "val_annotations.txt"),
            [b"a.png\tn1\t0\t0\t62\t62\nb.png\tn2\t0\t1\t2\t3\n"],
            "text",
        ),
    }
    return targets | _of_folders(folder)


def _of_folders(folder: Path) -> dict[str, Target]:
    """Names of files and folders, and the file that keeps them."""
    from data import listing

    tree = folder / "tree"

    def names(content: bytes) -> object:
        """The listing of a folder with empty files of these names."""
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        for name in content.split(b"\0")[:20]:
            parts = [part[:200] for part in name.split(b"/") if part not in (b"", b".", b"..")][:40]
            place = os.fsencode(tree) + b"".join(b"/" + part for part in parts)
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "xb"):
                    pass
            except OSError:  # no name for a file, or there already
                continue
        return listing.of_classes(tree)

    def are_files(found: listing.Listing, content: bytes) -> None:
        if not all((tree / name).is_file() for name in found.names) or len(found.names) != len(found.labels):
            raise Finding("it lists what is not there")

    kept = folder / "listing.npz"
    steady = folder / "steady"
    (steady / "a").mkdir(parents=True, exist_ok=True)
    (steady / "a" / "x.png").touch()

    def remembered(path: Path) -> object:
        """What is remembered of a folder, which is not believed where the folder has changed."""
        place, listing._place = listing._place, lambda folder: path
        try:
            return listing._recall(steady)
        finally:
            listing._place = place

    known = listing.Listing(("a",), ["a/x.png"], np.zeros(1, np.int32))
    place, listing._place = listing._place, lambda folder: kept
    changed = {name: os.stat(steady / name).st_mtime_ns for name in ("", "a")}
    listing._remember(steady, known, changed)
    listing._place = place
    return {
        "names of files": Target(
            of_bytes(names, are_files), [b"n1/a.png\0n1/b.jpg\0n2/c/d.webp\0.x/e.png\0f.png"], "bytes", 0.5
        ),
        "remembered names": Target(of_path(remembered, folder / "given.npz"), [kept.read_bytes()], "zip"),
    }


class _Oracle(pickle.Unpickler):
    """Python's own unpickler, with the one name that bytes need; NumPy's would crash on damaged arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _as_pickle_says(found: object, content: bytes) -> None:
    """What is read is what Python reads, where that reads it."""
    try:
        expected = _Oracle(io.BytesIO(content), encoding="bytes").load()
    except Exception:  # it is stricter in some things
        return
    with suppress(RecursionError):  # lists that hold themselves
        same(found, expected, "a pickle")


def _as_tarfile_says(found: dict[str, bytes], content: bytes) -> None:
    """The member is what Python's tarfile reads, where that finds one of the name."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            members = [member for member in tar.getmembers() if member.name == "a/x"]
            expected = [file.read() for member in members if (file := tar.extractfile(member)) is not None]
    except Exception:  # it is stricter in some things
        return
    if expected and found["a/x"] not in expected:
        raise Finding(f"a/x is {found['a/x']!r}, tarfile says {expected}")


def _tar(form: int, name: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
        for member in (name, "a/x") if name != "a/x" else (name,):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return gzip.compress(whole.getvalue(), mtime=0)


def _pictures() -> list[bytes]:
    """One of each format, and of what is read in a way of its own."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[str, dict[str, Any]]] = [
        (kind, {}) for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
    ]
    kinds += [
        ("JPEG", {"progressive": True, "exif": turned}),
        ("PNG", {"exif": turned}),
        ("WEBP", {"lossless": True}),
    ]
    kinds += [("TIFF", {"compression": name}) for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate")]
    made = [(Image.fromarray(pixels), kind, options) for kind, options in kinds]
    made += [(Image.fromarray(pixels).convert(mode), "TIFF", {}) for mode in ("CMYK", "P", "LA", "1")]
    made += [
        (Image.fromarray(pixels).convert("P"), "PNG", {}),
        (Image.fromarray(pixels).convert("CMYK"), "JPEG", {}),
    ]
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    made += [(deep, kind, {}) for kind in ("PNG", "PPM", "TIFF")]
    made.append((Image.fromarray(pixels[..., 0].astype(np.float32) / 255), "TIFF", {}))
    found = []
    for image, kind, options in made:
        whole = io.BytesIO()
        image.save(whole, kind, **options)
        found.append(whole.getvalue())
    return found
