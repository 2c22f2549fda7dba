"""A network description as JSON, and back."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any, get_type_hints

from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    LONGEST_NAME,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Edge,
    Layer,
    MaxPool,
    Network,
    Op,
    ScaleNorm,
    WithParameters,
    is_name,
    walk,
)

MOST_LEVELS = 1 << 16
"""Steps of a quantised activation: what float32 tells apart with room to spare."""


_OPS = {op.__name__: op for op in (Conv, Dense, AvgPool, MaxPool, BatchNorm, ScaleNorm, Dropout)}


_LATER = {Conv: ("padding", "dilation", "groups"), AvgPool: ("stride", "padding", "count_padding")}
"""Fields that are written only where they are not as usual: a network without them is written as it always was."""


def to_json(network: Network) -> str:
    """The description as JSON; ``from_json`` is its inverse."""

    def op_fields(op: Op) -> dict:
        usual = {field.name: field.default for field in fields(op) if field.name in _LATER.get(type(op), ())}
        values = {name: value for name, value in asdict(op).items() if name not in usual or value != usual[name]}
        return {"op": type(op).__name__} | values

    layers = [
        {
            "name": layer.name,
            "edges": [{"source": e.source, "ops": [op_fields(op) for op in e.ops]} for e in layer.edges],
            "levels": layer.levels,
            **({"start": True} if layer.start else {}),
            **({} if layer.cap is None else {"cap": layer.cap}),
        }
        for layer in network.layers
    ]
    return json.dumps(asdict(network) | {"layers": layers})


def from_json(text: str) -> Network:
    """A network from its JSON description; raises ``UserError`` where it is not one.

    Fields of an op that have a default may be left out.
    """
    try:
        raw = json.loads(text)
        layers = tuple(
            Layer(
                layer["name"],
                tuple(_read_edge(edge, layer["name"]) for edge in layer["edges"]),
                layer.get("levels"),
                layer.get("start", False),
                layer.get("cap"),
            )
            for layer in raw["layers"]
        )
        _check_types(raw, layers)
        _check_names(layers)
        _check_levels(layers)
        network = Network(
            raw["name"],
            tuple(raw["input_shape"]),
            raw["classes"],
            layers,
            tuple(raw["mean"]),
            tuple(raw["std"]),
        )
        walk(network)
        channels = network.input_shape[2]
        if len(network.mean) != channels or len(network.std) != channels or not all(s > 0 for s in network.std):
            raise UserError(f"mean and std need {channels} numbers each, std above 0")
    except KeyError as error:
        raise UserError(f"not a network description: {error} is missing") from error
    except (TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, RecursionError) as error:
        raise UserError(f"not a network description: {error}") from error
    return network


def _read_edge(item: dict, layer: str) -> Edge:
    if not isinstance(item["ops"], list):
        raise UserError(f"layer {layer}: ops is {item['ops']!r:.200}, expected a list")
    return Edge(item["source"], tuple(_read_op(op, layer) for op in item["ops"]))


def _read_op(item: dict, layer: str) -> Op:
    kind = item["op"]
    if kind not in _OPS:
        names = ", ".join(_OPS)
        raise UserError(f"layer {layer} has the op {kind!r}, which cannot be converted: the ops are {names}")
    hints = get_type_hints(_OPS[kind])
    try:
        op = _OPS[kind](**{key: _tuples(value) for key, value in item.items() if key != "op"})
    except UserError as error:
        raise UserError(f"layer {layer}: {error}") from error
    for field in fields(op):
        value, wanted = getattr(op, field.name), hints[field.name]
        if wanted not in (str, bool, int, float):
            continue  # sizes, which the op itself checks
        good = isinstance(value, int | float if wanted is float else wanted)
        if wanted in (int, float):
            good = good and not isinstance(value, bool) and 0 <= value < math.inf
            good = good and (value > 0 or wanted is float)
        if not good:
            raise UserError(f"layer {layer}: {field.name} of {kind} is {value!r}")
    return op


def _tuples(value: Any) -> Any:
    """Lists as the tuples that they were before they were written."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _check_types(raw: dict, layers: Sequence[Layer]) -> None:
    """A number with a point, which equals a whole one, would be taken for a size and fail much later."""

    def whole(values: Sequence) -> bool:
        return all(type(value) is int and value > 0 for value in values)

    sources = [edge.source for layer in layers for edge in layer.edges]
    if not whole([*raw["input_shape"], raw["classes"]]) or len(raw["input_shape"]) != 3:
        raise UserError(
            f"input_shape is {raw['input_shape']!r} and classes {raw['classes']!r}, expected whole sizes"
        )
    if not all(type(source) is int for source in sources):
        raise UserError(f"the sources of the edges are {sources!r}, expected numbers of layers")
    ops = (op for layer in layers for edge in layer.edges for op in edge.ops)
    named = (op.name for op in ops if isinstance(op, WithParameters))
    for name in (raw["name"], *(layer.name for layer in layers), *named):
        if not is_name(name):
            raise UserError(f"a name is {name!r:.200}, expected printable text of at most {LONGEST_NAME}")
    for value in (*raw["mean"], *raw["std"]):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise UserError(f"mean and std hold {value!r}, expected finite numbers")


def _check_levels(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if type(layer.start) is not bool or (layer.start and layer is layers[-1]):
            raise UserError(
                f"layer {layer.name}: start is {layer.start!r}, expected true or false, not on the last"
            )
        capped = isinstance(layer.cap, int | float) and type(layer.cap) is not bool and 0 < layer.cap < math.inf
        if layer.cap is not None and (not capped or layer is layers[-1]):
            raise UserError(
                f"layer {layer.name}: cap is {layer.cap!r}, expected a number above 0, none on the last"
            )
        if layer.levels is None:
            continue
        if type(layer.levels) is not int or not 1 <= layer.levels <= MOST_LEVELS or layer is layers[-1]:
            raise UserError(
                f"layer {layer.name}: levels is {layer.levels!r}, expected 1 to {MOST_LEVELS}, none on the last"
            )


def _check_names(layers: Sequence[Layer]) -> None:
    """Names are what parameters are found by: two layers may not share one, two ops only where they are one map.

    Such ops differ in nothing but the bias, which only one edge of a layer may add (``description.then``).
    """
    twice = [name for name, count in Counter(layer.name for layer in layers).items() if count > 1]
    if twice:
        raise UserError(f"two layers are called {twice[0]!r}")
    known: dict[str, object] = {}
    for op in (op for layer in layers for edge in layer.edges for op in edge.ops):
        if isinstance(op, WithParameters):
            alone = replace(op, bias=False) if isinstance(op, Conv | Dense) else object()
            if known.setdefault(op.name, alone) != alone:
                raise UserError(f"two ops are called {op.name!r}")
