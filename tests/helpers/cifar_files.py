"""CIFAR files in the official layouts, with a few records a file in place of thousands."""

import dataclasses
import gzip
import io
import struct
import tarfile

import numpy as np

from data import cifar

RECORDS = {"train": 4, "test": 3}


LAYOUTS = [("cifar10", 0), ("cifar10", 1), ("cifar100", 0), ("cifar100", 1)]


IDS = ["cifar10-binary", "cifar10-python", "cifar100-binary", "cifar100-python"]


def small(family):
    layouts = tuple(dataclasses.replace(layout, records=RECORDS) for layout in family.layouts)
    return dataclasses.replace(family, layouts=layouts)


SMALL = {"cifar10": small(cifar.CIFAR10), "cifar100": small(cifar.CIFAR100)}


def expected(name, split):
    """Images (N, 32, 32, 3) and labels (N,), different in every byte's place, colour and record."""
    layout = SMALL[name].layouts[0]
    count = len(layout.members[split]) * RECORDS[split]
    rng = np.random.default_rng((len(name), count))
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, len(SMALL[name].classes), count)


def file_contents(name, place, split):
    """The bytes of each file of one split, written by the description of the format on the official page."""
    layout = SMALL[name].layouts[place]
    images, labels = expected(name, split)
    out = {}
    for i, member in enumerate(layout.members[split]):
        part = slice(i * RECORDS[split], (i + 1) * RECORDS[split])
        planes = images[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        if place == 0:
            coarse = [b"\x07"] if name == "cifar100" else []
            rows = [b"".join([*coarse, bytes([label]), row.tobytes()]) for label, row in zip(labels[part], planes)]
            out[member] = b"".join(rows)
        else:
            key = "labels" if name == "cifar10" else "fine_labels"
            out[member] = python2_pickle(planes, labels[part].tolist(), key)
    return out


def python2_pickle(planes, labels, key):
    """A batch as Python 2 pickled the official ones: protocol 2, str as bytes, numpy.core."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    array += b"(K\x01K" + bytes([len(planes)]) + b"M" + struct.pack("<H", planes.shape[1]) + b"\x86" + dtype
    array += b"\x89T" + struct.pack("<i", planes.nbytes) + planes.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text(key) + numbers + text("batch_label") + text("x") + b"u."


def tar_of(contents, folder):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, raw in contents.items():
            info = tarfile.TarInfo(f"{folder}/{member}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def everything(name, place):
    return {**file_contents(name, place, "train"), **file_contents(name, place, "test")}


def packed(name, place):
    layout = SMALL[name].layouts[place]
    return gzip.compress(tar_of(everything(name, place), layout.folder), mtime=0)


def write_packed(folder, name, place):
    path = folder / SMALL[name].layouts[place].archive.name
    path.write_bytes(packed(name, place))
    return path


def write_unpacked(folder, name, place):
    path = folder / SMALL[name].layouts[place].folder
    path.mkdir()
    for member, raw in everything(name, place).items():
        (path / member).write_bytes(raw)
    return path


def check_exact(dataset, name, split):
    images, labels = expected(name, split)
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert (dataset.name, dataset.split) == (name, split)
    assert dataset.classes == SMALL[name].classes


def shorten(monkeypatch):
    """Let the readers expect a few records a file."""
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(cifar, name, small(getattr(cifar, name)))
