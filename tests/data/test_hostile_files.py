"""What a hostile or careless file may ask for: memory, time, other programs, and waiting without end."""

import contextlib
import gzip
import io
import os
import pickle
import signal
import socket
import struct
import tarfile
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import data
from data import archive, files, pictures, safe_pickle
from data.geometry import Geometry
from data.limits import BUDGET


def _image(tmp_path, name="x.png"):
    (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
    return tmp_path / "train" / "a" / name


def _peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _load(tmp_path, **options):
    return data.load("imagefolder", "train", tmp_path, **options).images[:]


def test_a_line_of_pixels_is_not_resized_to_gigabytes(tmp_path):
    Image.new("L", (60_000, 1)).save(_image(tmp_path))
    with pytest.raises(data.DataError, match="60000 x 1 pixels would be resized to 15360000 x 256, more than"):
        _load(tmp_path)


def test_a_tape_of_pixels_takes_no_more_time_than_its_bytes_explain(tmp_path):
    """A TIFF of 400 bytes that declared 9 x 4 million pixels took 1.3 s."""

    def decoded(height):
        path = _image(tmp_path)
        Image.new("1", (9, height)).save(path)
        return pictures.decode(str(path), Geometry(size=8), np.array([0.5, 0.5]))

    with pytest.raises(pictures.Unreadable, match=f"would be resized to 9 x 4000000, more than {1 << 24}"):
        decoded(4_000_000)
    assert decoded(9 * 70).shape == (8, 8, 3)


def test_an_eps_named_as_a_photograph_does_not_reach_ghostscript(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    script = tmp_path / "bin" / "gs"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    _image(tmp_path, "x.jpg").write_bytes(eps)
    with pytest.raises(data.DataError, match=r"x.jpg cannot be read as an image \(it is none of JPEG, PNG"):
        _load(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_divided_not_clipped(tmp_path, kind):
    levels = np.array([[0, 257, 40_000, 65_535]], np.uint16).repeat(4, 0)
    Image.fromarray(levels).save(_image(tmp_path), kind)
    assert _load(tmp_path, size=None)[0, 0, :, 0].tolist() == [0, 1, 156, 255]


def test_floats_are_shares_of_white_and_others_are_refused(tmp_path):
    shares = np.array([[0, 0.25, 0.5, 1]], np.float32).repeat(4, 0)
    Image.fromarray(shares).save(_image(tmp_path), "TIFF")
    assert _load(tmp_path, size=None)[0, 0, :, 0].tolist() == [0, 64, 128, 255]
    for values, message in ((shares * 255, "not between 0 and 1"), (shares * np.nan, "not between 0 and 1")):
        Image.fromarray(values).save(_image(tmp_path), "TIFF")
        with pytest.raises(data.DataError, match=message):
            _load(tmp_path, size=None)
    Image.fromarray(np.array([[70_000] * 4] * 4, np.int32)).save(_image(tmp_path), "TIFF")
    with pytest.raises(data.DataError, match="32-bit pixels have no known range"):
        _load(tmp_path, size=None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_says(tmp_path, kind, orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[8:, :16], pixels[:8, 16:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    # the camera's own order of the rows and columns of the upright picture, by the definition of each number
    held = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(held)).save(_image(tmp_path), kind, exif=exif, **options)
    found = _load(tmp_path, size=None)[0].astype(int)
    assert found.shape == pixels.shape
    assert np.abs(found - pixels).mean() < 4


def test_a_damaged_exif_leaves_the_pixels(tmp_path):
    Image.new("RGB", (8, 8), (9, 8, 7)).save(
        _image(tmp_path), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 30
    )
    assert (_load(tmp_path) == (9, 8, 7)).all()


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path):
    whole = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(whole, "JPEG", progressive=True)
    raw = whole.getvalue()
    at = raw.rindex(b"\xff\xda")
    _image(tmp_path).write_bytes(raw[:at] + (raw[at:-2]) * 130 + raw[-2:])
    began = time.perf_counter()
    with pytest.raises(data.DataError, match="scans of 9000000 pixels"):
        _load(tmp_path)
    assert time.perf_counter() - began < 2


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _device(path):
    path.symlink_to("/dev/zero")


@pytest.fixture
def alarm():
    """What waits is interrupted after two seconds."""

    def ring(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(2)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("make", [_fifo, _socket, _device])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(_image(tmp_path))
    with pytest.raises(data.DataError, match=r"x.png cannot be read as an image \(it is no file"):
        _load(tmp_path)
    with pytest.raises(data.DataError, match=r"is a (FIFO|socket|device), but a file was expected"):
        files.opened(_image(tmp_path))
    for place, name in (("cifar-10-binary.tar.gz", "cifar10"), ("train-images-idx3-ubyte.gz", "mnist")):
        make(tmp_path / place)
        with pytest.raises(data.DataError):
            data.load(name, "train", tmp_path)


def test_a_file_that_becomes_a_fifo_after_it_was_looked_at_is_not_waited_for(tmp_path, monkeypatch, alarm):
    path = tmp_path / "x"
    os.mkfifo(path)
    (tmp_path / "plain").touch()
    plain = os.stat(tmp_path / "plain")
    monkeypatch.setattr(files.os, "stat", lambda _: plain)
    with pytest.raises(data.DataError, match="is a FIFO"):
        files.opened(path)


# Claims of archives and pickles.


def _reading(tmp_path, contents):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(contents, 1))
    known = archive.Archive(path.name, 1, "", "a page")
    return lambda: archive.read_members(path, known, {"folder/x": 1000})


def _header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_long_name_is_not_read_into_memory(tmp_path, kind):
    size = 16 << 20
    read = _reading(
        tmp_path, _header("././@LongLink", size, kind) + bytes(size) + _header("folder/x", 3, b"0") + b"abc"
    )

    def attempt():
        with contextlib.suppress(data.DataError):
            read()

    assert _peak(attempt) < 4 << 20
    if kind == tarfile.GNUTYPE_LONGNAME:
        with pytest.raises(data.DataError, match=r"folder/x in .* has another name as well"):
            read()
    else:
        assert read() == {"folder/x": b"abc"}


@pytest.mark.parametrize(
    "told, sentence",
    [
        (b"19 path=folder/y\n", "has another name as well"),
        (b"11 size=2\n", "other sizes than their own"),
        (b"23 GNU.sparse.major=1\n", "other sizes than their own"),
    ],
)
def test_an_archive_that_python_would_read_otherwise_is_refused(tmp_path, told, sentence):
    """Extended headers make the next member another one; a sparse member holds less than it says."""
    extended = _header("././@PaxHeader", len(told), tarfile.XHDTYPE) + told.ljust(512, b"\0")
    member = _header("folder/x", 3, b"0") + b"abc".ljust(512, b"\0")
    with pytest.raises(data.DataError, match=sentence):
        _reading(tmp_path, extended + member)()
    harmless = extended.replace(told, b"9 mtime=1\n".ljust(len(told), b"\0"))
    assert _reading(tmp_path, harmless + member)() == {"folder/x": b"abc"}
    with pytest.raises(data.DataError, match="is not a plain file"):
        _reading(tmp_path, _header("folder/x", 3, tarfile.GNUTYPE_SPARSE) + b"abc")()
    with pytest.raises(data.DataError, match="has folder/x more than once"):
        _reading(tmp_path, member + member)()


def test_long_names_in_front_of_long_names_are_no_recursion(tmp_path):
    read = _reading(tmp_path, _header("././@LongLink", 0, tarfile.GNUTYPE_LONGNAME) * 5000)
    with pytest.raises(data.DataError, match=f"more than {BUDGET.members} members"):
        read()


def test_an_archive_unpacks_to_no_more_than_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BUDGET", type(BUDGET)(bytes=1 << 20))
    with pytest.raises(data.DataError, match=f"unpacks to more than {1 << 20} bytes"):
        _reading(tmp_path, _header("other", 4 << 20, b"0") + bytes(4 << 20))()


def _array_of_shape(shape):
    """A uint8 array with a shape of one's own, as NumPy pickles it."""
    raw = pickle.dumps(np.zeros(2, np.uint8), protocol=2)
    before, after = raw.split(b"K\x02\x85", 1)
    return before + b"(" + shape + b"t" + after


@pytest.mark.parametrize(
    "hostile",
    [
        # 20,000 lengths of a thousand digits each
        _array_of_shape((b"\x8a\xff" + b"\x7f" * 255) * 20_000),
        _array_of_shape(b"K\x02" + b"K\x01" * 20),
        # tuples that hold each other twice, whose hash and text take 2^100 steps
        b"\x80\x02}K\x01" + b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(100)) + b"K\x00s.",
        b"\x80\x02cnumpy\n" + b"x" * 1000 + b"\n.",
        b"\x80\x02" + b"(" * 1000 + b".",
        # one text encoded again and again
        b"\x80\x02](X\x00\x00\x10\x00"
        + b"a" * (1 << 20)
        + b"q\x00"
        + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 9000
        + b"e.",
    ],
    ids=["absurd shape", "dimensions", "keys", "long name", "depth", "one text"],
)
def test_a_pickle_takes_little_time_and_memory_whatever_it_claims(hostile):
    began = time.perf_counter()
    with pytest.raises(safe_pickle.RefusedPickle) as caught:
        safe_pickle.loads(hostile)
    assert time.perf_counter() - began < 4
    assert len(str(caught.value)) < 400


def test_a_pickle_takes_no_more_steps_than_the_budget(monkeypatch):
    monkeypatch.setattr(safe_pickle, "BUDGET", type(BUDGET)(steps=1000))
    assert safe_pickle.loads(b"\x80\x02" + b"K\x01" * 990 + b"].") == []
    with pytest.raises(safe_pickle.RefusedPickle, match="more than 1000 steps"):
        safe_pickle.loads(b"\x80\x02" + b"]" * 1001 + b".")


def test_no_pickle_changes_the_reader_for_the_next_one():
    # BUILD on the function that encodes, which was one for all pickles
    sets = b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__U\x06latin1\x85s\x86b."
    with pytest.raises(safe_pickle.RefusedPickle, match="sets the state of a function"):
        safe_pickle.loads(sets)
    with pytest.raises(safe_pickle.RefusedPickle, match="TypeError"):
        safe_pickle.loads(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a\x85R.")


@pytest.mark.parametrize(
    "value", [b"c_codecs\nencode\n", b"cnumpy\ndtype\n", b"](c_codecs\nencode\ncnumpy\nndarray\ne"]
)
def test_no_stand_in_comes_out_of_a_pickle(value):
    """A function of ours in the place of what the pickle asked for would pass for data."""
    for whole in (b"\x80\x02" + value + b".", b"\x80\x02}U\x01a" + value + b"s.", b"\x80\x02]](" + value + b"ea."):
        with pytest.raises(safe_pickle.RefusedPickle, match="a function, a type or an array"):
            safe_pickle.loads(whole)


def test_an_idx_file_is_not_believed(tmp_path):
    header = struct.pack(">IIII", 0x803, 2_000_000, 28, 28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(2 << 20)) + bytes(1 << 21))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">II", 0x801, 2) + bytes(2)))

    def read():
        with pytest.raises(data.DataError, match="the header declares 1568000000 bytes"):
            data.load("mnist", "train", tmp_path)

    assert _peak(read) < 8 << 20
