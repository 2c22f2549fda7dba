"""How many synaptic operations a spike causes."""

import functools
from collections.abc import Sequence

import numpy as np

from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Network, Op, output_shape
from jaxsnn.networks.linear_maps import tap_table
from jaxsnn.networks.senders import heard, senders


@functools.lru_cache(maxsize=32)
def fan_out(network: Network) -> tuple[np.ndarray, ...]:
    """How many weights one spike drives, per sender (``jaxsnn.networks.senders``): int64 (H, W), or (1, 1) after a
    dense layer. The arrays are remembered, and only to be read."""
    shapes = [sender.shape for sender in senders(network)]
    totals = [np.zeros(shape[:2] if len(shape) == 3 else (1, 1), np.int64) for shape in shapes]
    for edges in heard(network):
        for edge, number, shape in edges:
            if number != IMAGE:
                totals[number] += _reach(edge.linear, shape)
    for total in totals:
        total.flags.writeable = False
    return tuple(totals)


def _reach(ops: Sequence[Op], shape: tuple[int, ...]) -> np.ndarray:
    """Weights driven by one unit at each position of an input of ``shape``.

    They are the outputs of the edge's last map that the unit reaches: maps without neurons between them are one
    map, a pool in front of it spreads the unit over its cells, and one behind it adds none. An edge without
    weights drives one for each cell.
    """
    last = max((index for index, op in enumerate(ops) if isinstance(op, Conv | Dense)), default=len(ops) - 1)
    rows, columns, channels = (np.eye(side, dtype=bool) for side in (shape if len(shape) == 3 else (1, 1, *shape)))
    for op in ops[: last + 1]:
        if isinstance(op, Dense):
            rows, columns = (np.ones((len(side), 1), bool) for side in (rows, columns))
            channels = np.ones((len(channels), op.features), bool)
        elif isinstance(op, Conv | AvgPool):
            rows, columns = (
                side @ tap_table(op.taps, axis, side.shape[1]).any(2) for axis, side in enumerate((rows, columns))
            )
        if isinstance(op, Conv):
            reached = channels.reshape(len(channels), op.groups, -1).any(2)
            channels = np.repeat(reached, op.features // op.groups, 1)
        shape = output_shape(op, shape)
    # where groups of several sizes meet, channels differ: the widest counts
    return np.outer(rows.sum(1), columns.sum(1)) * int(channels.sum(1).max())
