"""One file of a photograph as an array: which files are read, which way is up, how its pixels become 8 bits."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import SEEK_END, BytesIO
from typing import IO, TYPE_CHECKING

import numpy as np

from data import files, geometry
from data.errors import DataError
from data.limits import BUDGET

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
# What Pillow may take a file for, whatever its name: it would hand an EPS to Ghostscript, which runs programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
_ORIENTATION = 0x0112  # of EXIF
# Larger photographs, of 64 MB in Pillow's RGB, are decoded one at a time, so that threads do not hold one each.
_LARGE = 1 << 24
# What is longer than so many times its width is no photograph: unless it is small, it is not resized, which would
# take as much time as the largest photograph for a file of a few bytes.
_LONGEST = 64
_MOST_SCANS = 16  # of the largest image; programs write about ten
_one_large = threading.Lock()


class Unreadable(Exception):
    """Why a photograph cannot be read, in a few words."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's own warnings, of large or odd files: what counts is said here.

    Filters of warnings belong to the process, so that only the main thread may change them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def size(path: str, fit: geometry.Geometry) -> tuple[int, int]:
    """Width and height as the file's header declares them; the pixels are not read.

    Raises:
      Unreadable: it is no plain file or no image, or is too large, also as `fit` would resize it.
    """
    with _explained(), files.opened(path) as file:
        image = _identified(file, fit)
        return image.size


def decode(path: str, fit: geometry.Geometry, offset: np.ndarray) -> np.ndarray:
    """Return the pixels, uint8 (H, W, 3), upright, resized and cropped as `fit` says.

    Grey, palette, CMYK and transparent images become RGB, transparency is dropped. 16-bit pixels are divided by
    257; floats are taken for shares of white.

    Raises:
      Unreadable: as `size`, and a file that is cut short or damaged, or pixels without a known range.
    """
    with _explained():
        with files.opened(path) as file:
            content = file.read()
        image = _identified(BytesIO(content), fit)
        pixels = image.width * image.height
        # A progressive JPEG goes over all its pixels once a scan, of which a few bytes make one.
        scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 1
        if scans * pixels > _MOST_SCANS * BUDGET.pixels:
            raise Unreadable(f"it has {scans} scans of {pixels} pixels, more than a camera writes")
        with _one_large if pixels > _LARGE else nullcontext():
            return fit.fit(_upright(_in_8_bits(image)), offset)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Unreadable:
        raise
    except DataError as error:
        raise Unreadable(str(error)) from error
    except OSError as error:
        raise Unreadable(error.strerror or f"{type(error).__name__}: {error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds, from ValueError to SyntaxError
        raise Unreadable(f"{type(error).__name__}: {str(error)[:200]}") from error


def _identified(file: IO[bytes], fit: geometry.Geometry) -> "Image.Image":
    """The image in a file, of which no more is read than its header."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        empty = file.seek(0, SEEK_END) == 0
        raise Unreadable("it is empty" if empty else f"it is none of {', '.join(_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it declares more than {BUDGET.pixels} pixels") from error
    width, height = image.size
    if width * height > BUDGET.pixels:
        raise Unreadable(f"it declares {width} x {height} pixels, more than {BUDGET.pixels}")
    wide, high = fit.resized(width, height)
    most = BUDGET.pixels if fit.resize is None else min(BUDGET.pixels, max(_LARGE, _LONGEST * fit.resize**2))
    if wide * high > most:
        raise Unreadable(f"its {width} x {height} pixels would be resized to {wide} x {high}, more than {most}")
    return image


def _in_8_bits(image: "Image.Image") -> "Image.Image":
    """The image with 8 bits a channel: Pillow would clip larger values, and cut fractions off."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        shares = np.asarray(image)
        if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1):
            raise Unreadable("its floating-point pixels are not between 0 and 1: save it with 8 bits")
        scaled = Image.fromarray(np.rint(shares * 255).astype(np.uint8))
    elif image.mode == "I":
        raise Unreadable("its 32-bit pixels have no known range: save it with 8 bits")
    else:
        return image
    scaled.info = image.info
    return scaled


def _upright(image: "Image.Image") -> "Image.Image":
    """The image turned as its EXIF says the camera was held."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()  # a TIFF is turned by Pillow while it is loaded, which then forgets the orientation
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what a damaged EXIF raises is nowhere listed; the pixels are right without it
        return image
    return image if turn is None else image.transpose(turn)
