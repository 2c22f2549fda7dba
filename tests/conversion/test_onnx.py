"""ONNX files written by hand, computed beside by other means; and what is refused, each in a sentence."""

import re
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxsnn
from helpers.onnx_writer import dense_model, drawn, field, model, node, tensor, varint
from jaxsnn.conversion.evaluate_graph import evaluate
from jaxsnn.conversion.from_onnx import graph_of_onnx
from jaxsnn.conversion.model_import import import_model
from jaxsnn.errors import UserError
from jaxsnn.import_weights import ImportConfig, import_weights
from jaxsnn.networks.weights import load_weights

DIMENSIONS = ("NCHW", "OIHW", "NCHW")


def written(folder, content):
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def conv(x, weight, stride=(1, 1), pads=((0, 0), (0, 0)), groups=1, dilation=(1, 1)):
    return lax.conv_general_dilated(
        x, weight, stride, pads, rhs_dilation=dilation, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )


def test_a_dense_file_gives_its_arrays_and_says_how_far_the_logits_are(tmp_path):
    content, arrays = dense_model()
    said = []
    snn = jaxsnn.load(written(tmp_path, content), say=said.append)
    np.testing.assert_array_equal(np.asarray(snn.params["a.kernel"]), arrays["a.weight"].T * np.float32(0.5))
    np.testing.assert_array_equal(np.asarray(snn.params["a.bias"]), arrays["a.bias"])
    np.testing.assert_array_equal(np.asarray(snn.params["b.kernel"]), arrays["b.weight"])
    assert "pixels in [0, 1]" in said[0]
    assert re.match(r"largest difference of a logit on 8 random images: \S+ from ", said[-1])


def test_a_residual_file_computes_what_jax_computes_in_its_own_layout(tmp_path):
    w = {"c1.weight": drawn(0, 6, 2, 3, 3), "c2.weight": drawn(1, 8, 3, 3, 3), "d.weight": drawn(2, 8, 6, 1, 1)}
    norm = {"g": drawn(3, 8) ** 2 + 0.5, "h": drawn(4, 8), "m": drawn(5, 8), "v": drawn(6, 8) ** 2 + 0.1}
    head = {"fc.weight": drawn(7, 3, 8 * 2 * 3), "fc.bias": drawn(8, 3)}
    limits = {"low": np.array(0, np.float32), "high": np.array(0.75, np.float32)}
    nodes = [
        node("Conv", ["x", "c1.weight"], "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], "b"),
        node("Conv", ["b", "c2.weight"], "c", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", group=2),
        node("BatchNormalization", ["c", "g", "h", "m", "v"], "d", epsilon=0.01),
        node("Conv", ["b", "d.weight"], "e", kernel_shape=[1, 1], strides=[2, 2]),
        node("Add", ["d", "e"], "f"),
        node("Clip", ["f", "low", "high"], "i"),
        node("AveragePool", ["i"], "j", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Flatten", ["j"], "k"),
        node("Gemm", ["k", "fc.weight", "fc.bias"], "y", transB=1),
    ]
    path = written(tmp_path, model(nodes, w | norm | head | limits, (2, 2, 8, 12), "y"))
    x = drawn(9, 2, 2, 8, 12)
    b = jnp.maximum(conv(x, w["c1.weight"], pads=((1, 1), (1, 1))), 0)
    c = conv(b, w["c2.weight"], (2, 2), ((0, 1), (0, 1)), groups=2)
    d = (c - norm["m"][:, None, None]) / np.sqrt(norm["v"] + 0.01)[:, None, None]
    d = d * norm["g"][:, None, None] + norm["h"][:, None, None]
    i = jnp.clip(d + conv(b, w["d.weight"], (2, 2)), 0, 0.75)
    window = ((1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    j = lax.reduce_window(i, 0.0, lax.add, *window) / lax.reduce_window(jnp.ones_like(i), 0.0, lax.add, *window)
    expected = j.reshape(2, -1) @ head["fc.weight"].T + head["fc.bias"]
    np.testing.assert_allclose(evaluate(graph_of_onnx(path), x), expected, rtol=1e-4, atol=1e-5)
    imported = import_model(path, mean=(0.4, 0.5), std=(0.2, 0.3))
    assert imported.difference < 1e-5 < imported.largest
    assert [layer.cap for layer in imported.network.layers] == [None, 0.75, None]
    assert [len(layer.edges) for layer in imported.network.layers] == [1, 2, 1]


def test_a_file_in_nhwc_with_padding_and_dilation_keeps_its_order(tmp_path):
    """As converters from TensorFlow write it: transposed in front and, before the dense map, back."""
    w = {"c": drawn(0, 3, 2, 3, 2), "k": drawn(1, 5 * 7 * 3, 4), "p": np.array([0, 0, 1, 0, 0, 0, 2, 1])}
    nodes = [
        node("Transpose", ["x"], "a", perm=[0, 3, 1, 2]),
        node("Pad", ["a", "p"], "b"),
        node("Conv", ["b", "c"], "d", kernel_shape=[3, 2], dilations=[2, 1]),
        node("Relu", ["d"], "e"),
        node("Transpose", ["e"], "f", perm=[0, 2, 3, 1]),
        node("Flatten", ["f"], "g"),
        node("MatMul", ["g", "k"], "y"),
    ]
    path = written(tmp_path, model(nodes, w, (1, 6, 7, 2), "y"))
    x = drawn(3, 1, 6, 7, 2)
    inner = jnp.pad(x.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (1, 2), (0, 1)))
    hidden = jnp.maximum(conv(inner, w["c"], dilation=(2, 1)), 0).transpose(0, 2, 3, 1).reshape(1, -1)
    np.testing.assert_allclose(evaluate(graph_of_onnx(path), x), hidden @ w["k"], rtol=1e-4, atol=1e-5)
    imported = import_model(path)
    assert imported.network.input_shape == (6, 7, 2)
    np.testing.assert_array_equal(imported.params["y.kernel"], w["k"])


def test_the_command_imports_a_file_and_what_it_writes_loads(tmp_path, capsys):
    """Images of another shape than the data's: the logits are compared, the accuracy is not known."""
    path = written(tmp_path, dense_model()[0])
    results = import_weights(
        ImportConfig(path, out=tmp_path / "mine.safetensors", mean=(0.5,), std=(0.25,), images=4)
    )
    assert results["difference"] < 1e-6
    network, params, notes = load_weights(tmp_path / "mine.safetensors")
    assert network.std == (0.25,)
    assert set(params) == {"a.kernel", "a.bias", "b.kernel"}
    assert notes["imported_from"] == "model.onnx"
    assert "its accuracy is not known" in capsys.readouterr().out


def test_weights_in_a_file_beside_are_read_within_its_bounds(tmp_path):
    array = drawn(0, 4, 6)
    (tmp_path / "more.bin").write_bytes(b"12345678" + array.tobytes())

    def content(**entries):
        nodes = [
            node("Gemm", ["x", "w"], "h", transB=1),
            node("Relu", ["h"], "r"),
            node("Gemm", ["r", "w2"], "y", transB=1),
        ]
        outside = tensor("w", array, external={"location": "more.bin", "offset": "8"} | entries)
        return model(nodes, {"w2": drawn(1, 3, 4)}, ("n", 6), "y", tensors=(outside,))

    imported = import_model(written(tmp_path, content()))
    np.testing.assert_array_equal(imported.params["h.kernel"], array.T)
    for entries, sentence in (
        ({"location": "../more.bin"}, "no file in its own folder"),
        ({"location": "/etc/passwd"}, "no file in its own folder"),
        ({"offset": "16"}, "holds fewer"),
        ({"length": "99999999999999"}, "holds fewer"),
        ({"offset": "-4"}, "holds fewer"),
    ):
        with pytest.raises(UserError, match=sentence):
            graph_of_onnx(written(tmp_path, content(**entries)))


def doubled(count):
    """y + y + ..., as often doubled."""
    names = ["y", *(f"y{k}" for k in range(count))]
    return [node("Add", [one, one], other) for one, other in pairwise(names)], names[-1]


def with_end(*end, output="z", **options):
    return dense_model(end=end, output=output, **options)[0]


HUGE = tensor("w", np.zeros(1, np.float32), dims=(2**40, 2**20))
ENDLESS = np.array([2**40], np.int64)
BAD = {
    "a text": (b"this is no model", "is not an ONNX file"),
    "nothing": (b"", "is not an ONNX file"),
    "cut short": (dense_model()[0][:-40], "is not an ONNX file"),
    "a length beyond the file": (varint(7 << 3 | 2) + varint(2**62) + b"x", "cut short"),
    "an old opset": (dense_model(opset=3)[0], "opset 3 of ONNX, expected 7 to 27"),
    "an opset to come": (dense_model(opset=99)[0], "opset 99 of ONNX"),
    "sizes that lie": (dense_model(tensors=(HUGE,))[0], "holds 1 numbers for it"),
    "a circle": (with_end(node("Add", ["y", "w"], "z"), node("Relu", ["z"], "w")), "the nodes go in a circle"),
    "twice": (with_end(node("Relu", ["y"], "r")), "writes a value that is there already"),
    "softmax": (with_end(node("Softmax", ["y"], "z", name="/prob")), "prob is Softmax.*return the logits"),
    "leaky": (with_end(node("LeakyRelu", ["y"], "z")), "z is LeakyRelu.*train with ReLU"),
    "a foreign operation": (with_end(node("Fancy", ["y"], "z", domain="com.acme")), "com.acme.Fancy"),
    "a graph in a node": (with_end(node("If", ["y"], "z")), "z is If, which is not converted; converted are"),
    "a product": (with_end(node("Mul", ["y", "y"], "z")), "multiplies or divides two activations"),
    "doubled sums": (with_end(*doubled(40)[0], output=doubled(40)[1]), "more than 512 chains"),
    "a huge constant": (
        with_end(node("ConstantOfShape", ["e"], "z"), tensors=(tensor("e", ENDLESS),)),
        "makes a constant of shape",
    ),
    "a huge image": (dense_model(shape=(1, 1, 2**20, 2**20))[0], "at most 67108864 numbers"),
    "an open image": (dense_model(shape=("n", "c", 2, 3))[0], "leaves the size of its images open"),
    "a huge padding": (
        with_end(node("Relu", ["x"], "q"), node("AveragePool", ["q"], "z", kernel_shape=[2, 2], pads=[2**40] * 4)),
        "pads its pool by",
    ),
    "no activation": (model([node("Flatten", ["x"], "y")], {}, (1, 2, 3, 3), "y"), "has no ReLU"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_come_in_is_refused_in_one_sentence(name, tmp_path):
    content, sentence = BAD[name]
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=sentence) as refused:
        import_model(path)
    assert "\n" not in str(refused.value)


def test_a_max_pool_is_refused_by_name_or_kept_or_replaced_on_demand(tmp_path):
    nodes = [
        node("Conv", ["x", "c"], "a", kernel_shape=[1, 1]),
        node("Relu", ["a"], "b"),
        node("MaxPool", ["b"], "d", name="/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["d"], "e"),
        node("MatMul", ["e", "k"], "y"),
    ]
    path = written(tmp_path, model(nodes, {"c": drawn(0, 3, 2, 1, 1), "k": drawn(1, 12, 4)}, (1, 2, 4, 4), "y"))
    with pytest.raises(UserError, match=r"pool is a max pool.*--max-pool average"):
        import_model(path)
    imported = import_model(path, max_pool="spiking")
    assert "max pools pass the spikes of the input that has fired most: pool" in imported.notes
    assert imported.network.layers[1].edges[0].max_pool and imported.difference < 1e-5
    imported = import_model(path, max_pool="average")
    assert any("in place of the max pools pool:" in note for note in imported.notes)
    assert imported.difference < 1e-5


def test_a_dropout_is_nothing_unless_it_is_training(tmp_path):
    arrays = {"w": drawn(0, 6, 4), "v": drawn(1, 4, 3), "ratio": drawn(2, 1)}

    def graph(*mode):
        values = arrays if not mode else arrays | {"mode": np.array(mode, np.int64)}
        dropout = node("Dropout", ["r", "ratio", *(["mode"] if mode else [])], "d", name="drop")
        nodes = [
            node("MatMul", ["x", "w"], "h"),
            node("Relu", ["h"], "r"),
            dropout,
            node("MatMul", ["d", "v"], "y"),
        ]
        return graph_of_onnx(written(tmp_path, model(nodes, values, (1, 6), "y")))

    graph()
    graph(0)
    with pytest.raises(UserError, match="drop drops out at random: export the model after eval"):
        graph(1)


def test_no_damage_to_a_file_ends_in_a_traceback(tmp_path):
    content = bytearray(dense_model()[0])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            graph_of_onnx(written(tmp_path, bytes(broken[: rng.integers(len(broken) // 2, len(broken) + 1)])))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 200


def test_a_type_that_is_not_read_is_named(tmp_path):
    strange = field(1, 1) + field(2, 14) + field(8, "odd") + field(9, b"12345678")
    with pytest.raises(UserError, match="odd is of a type or shape that is not read"):
        graph_of_onnx(written(tmp_path, dense_model(tensors=(strange,))[0]))


def test_logits_that_do_not_depend_on_the_image_are_said_to_prove_little(tmp_path):
    arrays = {"w": np.zeros((6, 4), np.float32), "v": drawn(0, 4, 3), "b": drawn(1, 3)}
    nodes = [
        node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "r"), node("Gemm", ["r", "v", "b"], "y"),
    ]  # fmt: skip
    imported = import_model(written(tmp_path, model(nodes, arrays, ("n", 6), "y")))
    assert "hardly depend on the image" in imported.notes[-1]
