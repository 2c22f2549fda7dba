"""Networks and weights that somebody hands over: whatever is in them, it ends in a sentence."""

import json
import struct
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import torch_files
from helpers.hostile import DAMAGE, JUNK, MEGABYTE, RELAXED, damaged, mutated, one_sentence, peak
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.loading import load_network
from jaxsnn.errors import UserError
from jaxsnn.networks import description
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.weights import describes_network

DESCRIPTION = json.loads(
    to_json(vgg([[3], [4]], [5], name="mlp", norm=description.BatchNorm, dropout=0.1, classes=3))
)


@RELAXED
@given(mutated(DESCRIPTION))
@example(DESCRIPTION | {"input_shape": [32.0, 32.0, 3.0]})
@example(DESCRIPTION | {"classes": 3.0})
@example(DESCRIPTION | {"layers": [DESCRIPTION["layers"][0] | {"edges": [{"source": -1, "ops": ""}]}]})
@example(DESCRIPTION | {"layers": [{"name": "a", "edges": [{"source": -1, "ops": []}]}, *DESCRIPTION["layers"]]})
@example(DESCRIPTION | {"layers": [DESCRIPTION["layers"][0] | {"levels": 2**53}, *DESCRIPTION["layers"][1:]]})
def test_a_network_description_is_refused_or_describes_a_network(description):
    """One that is taken can be converted and computed, as far as shapes and types go."""
    found = one_sentence(from_json, json.dumps(description))
    if found is None or sum(np.prod(shape) for shape in shapes_of(found).values()) > 1e6:
        return
    shapes = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(found).items()}
    folded = one_sentence(fold, found, shapes)
    if folded is not None and np.prod(found.input_shape) < 1e6:
        images = jax.ShapeDtypeStruct((2, *found.input_shape), np.uint8)
        jax.eval_shape(lambda params, x: ann_forward(folded[0], params, x), folded[1], images)
    from_json(to_json(found))


@RELAXED
@given(st.text(max_size=30))
def test_any_text_is_refused_as_a_description(text):
    one_sentence(from_json, text)


@RELAXED
@given(DAMAGE)
def test_damaged_weights_are_refused_or_whole(tiny, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    path.write_bytes(damaged(tiny.read_bytes(), damage))
    one_sentence(load_network, path)


@RELAXED
@given(
    st.dictionaries(
        st.sampled_from(["__metadata__", "conv1.kernel", "conv1.weight", "fc.weight", "a.b.c", "", "\x00"]),
        st.one_of(
            JUNK,
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F64", "I64", "BF16", "F8_E4M3", "U64", "C64", "X"]),
                    "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 10**12, 2**63]), max_size=5),
                    "data_offsets": st.lists(st.sampled_from([0, 4, 16, 64, 10**15]), min_size=2, max_size=2),
                }
            ),
        ),
        max_size=4,
    ),
    st.sampled_from([None, 0, 7, 2**40, 2**64 - 1]),
)
def test_safetensors_of_any_header_are_refused_before_anything_is_allocated(tmp_path, header, length):
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(64))

    def read():
        describes_network(path)
        one_sentence(load_network, path, None, (32, 32, 3))

    assert peak(read) < 4 * MEGABYTE


def pytorch_file(path, written=torch_files.save):
    state = {"0.weight": np.ones((4, 3, 3, 3), np.float32), "2.weight": np.ones((5, 64), np.float32)}
    return written(path, state)


@pytest.mark.parametrize("written", [torch_files.save, torch_files.save_row])
@RELAXED
@given(DAMAGE)
def test_a_damaged_pytorch_file_is_refused_or_whole(tmp_path, written, damage):
    path = pytorch_file(tmp_path / "whole.pt", written)
    path.write_bytes(damaged(path.read_bytes(), damage))
    one_sentence(load_network, path, None, (32, 32, 3))


def test_a_pytorch_file_whose_end_says_that_it_has_several_parts_is_refused(tmp_path):
    path = pytorch_file(tmp_path / "w.pt")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x05\x06") + 4] = 0x11
    content[content.rindex(b"PK\x01\x02") + 1] = 0
    path.write_bytes(content)
    with pytest.raises(UserError, match="cut short or damaged"):
        load_network(path)


def test_a_pytorch_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path):
    """PyTorch stores tensors as they are; a packed record of zeros is a thousand times larger than it looks."""
    whole, bomb = pytorch_file(tmp_path / "whole.pt"), tmp_path / "bomb.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            content = source.read(record)
            target.writestr(
                record.filename, bytes(20 * MEGABYTE) if record.filename.endswith("data/0") else content
            )

    def read():
        with pytest.raises(UserError, match=r"declares \d+ bytes, but has \d+"):
            load_network(bomb, None, (32, 32, 3))

    assert bomb.stat().st_size < MEGABYTE and peak(read) < 5 * MEGABYTE
