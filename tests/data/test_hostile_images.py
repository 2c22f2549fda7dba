"""Images that somebody hands over: they are read, or it ends in a sentence."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import data
from helpers.hostile import DAMAGE, MEGABYTE, RELAXED, damaged, one_sentence, peak


@settings(RELAXED, max_examples=100)
@given(kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"]), damage=DAMAGE)
def test_a_damaged_image_is_read_or_a_data_error(tmp_path, kind, damage):
    (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)).save(whole, kind)
    (tmp_path / "train" / "a" / "x.png").write_bytes(damaged(whole.getvalue(), damage))
    one_sentence(lambda: data.load("imagefolder", "train", tmp_path).images[:])


def test_an_image_that_declares_a_billion_pixels_is_refused_by_its_header(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    content = bytearray(whole.getvalue())
    content[16:24] = struct.pack(">II", 12_000, 12_000)
    header = bytes(content[12:29])
    content[29:33] = struct.pack(">I", zipfile.crc32(header))
    (tmp_path / "train" / "a" / "x.png").write_bytes(bytes(content))

    def read():
        with pytest.raises(data.DataError, match="declares 12000 x 12000 pixels"):
            data.load("imagefolder", "train", tmp_path)

    assert peak(read) < 5 * MEGABYTE
