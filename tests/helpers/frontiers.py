"""Frontiers with made-up numbers."""

import numpy as np

from jaxsnn.networks.spiking import Genes
from jaxsnn.records.frontier import Frontier, Point
from jaxsnn.runtime.files import write_json


def frontier_of(points, layers=("conv <1>", "dense")):
    """The more timesteps, the more accurate and the more expensive; the first is as calibrated."""
    found = tuple(
        Point(
            timesteps=2**index,
            genes=Genes(np.array([[1.0 + index, 2.0]]), np.array([[0.5, 0.25]])),
            start=index == 0,
            training={"accuracy": 0.5 / (index + 1), "latency": 2.0**index, "energy": 1.0 + index},
            accuracy=0.5 + 0.04 * index,
            spikes=(1000.0 * (index + 1), 10.0),
            synops=(2e6 * (index + 1), 1e5),
            peak=0.25,
            energy={"FP32": 10.0 + index, "INT8": 1.0 + index},
        )
        for index in range(points)
    )
    return Frontier(("accuracy", "latency", "energy"), "INT8", "none", 0.93, 400, layers, found)


def write_frontier(folder, frontier):
    """frontier.json, and a thresholds.json that says what the points belong to."""
    write_json(folder / "frontier.json", frontier.to_json())
    first = frontier.points[0].genes.to_record()
    write_json(folder / "thresholds.json", first | {"delay": "none", "comparison": ">", "timesteps": 1})
