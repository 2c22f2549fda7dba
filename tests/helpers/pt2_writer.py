"""Archives of torch.export from plain values, so that the reader is tested without PyTorch."""

import json
import zipfile

import numpy as np

RNG = np.random.default_rng(0)
ARRAYS = {
    "a.weight": RNG.normal(size=(4, 6)).astype(np.float32),
    "a.bias": RNG.normal(size=4).astype(np.float32),
    "b.weight": RNG.normal(size=(3, 4)).astype(np.float32),
}


def meta(sizes, strides=None, dtype=7):
    strides = strides or [int(np.prod(sizes[k + 1 :])) for k in range(len(sizes))]
    numbers = {key: [{"as_int": n} for n in values] for key, values in (("sizes", sizes), ("strides", strides))}
    return numbers | {"dtype": dtype, "layout": 7, "storage_offset": {"as_int": 0}}


def call(target, result, **arguments):
    kinds = {str: "as_tensor", list: "as_ints", float: "as_float", bool: "as_bool", int: "as_int"}
    inputs = [
        {"name": key, "arg": {kinds[type(v)]: {"name": v} if isinstance(v, str) else v}}
        for key, v in arguments.items()
    ]
    return {
        "target": f"torch.ops.aten.{target}",
        "inputs": inputs,
        "outputs": [{"as_tensor": {"name": result}}],
        "metadata": {},
    }


CALLS = [
    call("flatten.using_ints", "flat", self="x", start_dim=1),
    call("linear.default", "h", input="flat", weight="p_a_weight", bias="p_a_bias"),
    call("relu_.default", "r", self="h"),
    call("linear.default", "y", input="r", weight="p_b_weight"),
]


def parts(calls=CALLS, sizes=(2, 1, 2, 3)):
    """The members of an archive by name: JSON as dictionaries, weights as bytes."""
    specs = [
        {"parameter": {"arg": {"name": f"p_{name.replace('.', '_')}"}, "parameter_name": name}} for name in ARRAYS
    ]
    specs.append({"user_input": {"arg": {"as_tensor": {"name": "x"}}}})
    signature = {"input_specs": specs, "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}]}
    graph = {"nodes": list(calls), "tensor_values": {"x": meta(sizes)}}
    config = {
        name: {"path_name": f"weight_{k}", "use_pickle": False, "tensor_meta": meta(array.shape)}
        for k, (name, array) in enumerate(ARRAYS.items())
    }
    members = {
        "m/models/model.json": {"graph_module": {"graph": graph, "signature": signature}},
        "m/data/weights/model_weights_config.json": {"config": config},
    }
    return members | {f"m/data/weights/weight_{k}": a.tobytes() for k, a in enumerate(ARRAYS.values())}


def written(folder, members, compression=zipfile.ZIP_STORED):
    """The path of an archive of ``members``."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return path
