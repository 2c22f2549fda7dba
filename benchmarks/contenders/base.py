"""What every contender is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.problem import CHECK_STEPS, Problem
from jaxsnn.networks.description import Conv, Dense, Op, layer_shapes


class Unsupported(Exception):
    """A contender cannot simulate this problem; the message says why."""


class Contender(Protocol):
    """One simulator, ready to simulate one problem."""

    def run(self, *args: Any, **request: Any) -> dict:
        """One measurement; everything that it returns is on the host."""
        ...

    def check(self, images: int) -> dict:
        """{"differing": predictions that differ from the reference, "error": what else differs, relatively}."""
        ...


class PeerLayer(NamedTuple):
    """A layer as peers build it.

    Attributes:
        ops: from its input to the drive of its neurons.
        shape: of its input, (H, W, C) or (N,).
        amplitude: of the spikes that come in.
        threshold: of its neurons; None for the read-out.
    """

    ops: Sequence[Op]
    shape: tuple[int, ...]
    amplitude: float
    threshold: float | None


@dataclass
class Scores(ABC):
    """What peers share: batches of images in, summed scores out."""

    problem: Problem
    bfloat16: bool = False
    extra_steps: int = field(default=0, init=False)
    """Steps by which the peer's scores come later than ours without layer delay."""

    def __post_init__(self):
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Make the network in the peer's terms."""

    @abstractmethod
    def scores(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Summed scores (N, classes) of uint8 images (N, H, W, C) after ``steps``."""

    def run(self, images: int, steps: int, batch: int, channels_last: bool = False) -> dict:
        """Simulate the first candidate on the first images."""
        self.set_layout(channels_last)
        self.predict(images, steps, batch)
        return {}

    def set_layout(self, channels_last: bool) -> None:  # noqa: B027 (not all peers have layouts)
        """Keep kernels and activations channels-last from now on, where a peer can."""

    def check(self, images: int) -> dict:
        """Predictions and the largest difference of a score, relative to the largest score."""
        scores = self.predict(images, CHECK_STEPS + self.extra_steps, images)
        expected = self.problem.check_scores[:images]
        differing = (scores.argmax(-1) != expected.argmax(-1)).sum()
        error = np.abs(scores - expected).max() / np.abs(expected).max()
        return {"differing": int(differing), "error": float(error), "of": "scores"}

    def predict(self, images: int, steps: int, batch: int) -> np.ndarray:
        """Summed scores (images, classes)."""
        parts = [
            self.scores(self.problem.images[start : min(start + batch, images)], steps)
            for start in range(0, images, batch)
        ]
        return np.concatenate(parts)

    def edges(self) -> Iterator[PeerLayer]:
        """The layers, from the image on.

        Raises:
            Unsupported: the network is not a chain of layers with weights.
        """
        network, thresholds = self.problem.network, self.problem.thresholds[0]
        shapes = layer_shapes(network)
        for index, layer in enumerate(network.layers):
            if len(layer.edges) != 1 or layer.edges[0].source != index - 1:
                raise Unsupported(f"layer {layer.name} does not read the layer before it alone")
            ops, first = layer.edges[0].ops, index == 0
            if not any(isinstance(op, Conv | Dense) for op in ops):
                raise Unsupported(f"layer {layer.name} has no weights")
            amplitude = 1.0 if first else float(thresholds[index - 1])
            threshold = float(thresholds[index]) if index < len(thresholds) else None
            shape = network.input_shape if first else shapes[index - 1]
            yield PeerLayer(ops, shape, amplitude, threshold)

    def kernel(self, op: Conv | Dense, amplitude: float, shape: tuple[int, ...]) -> np.ndarray:
        """OIHW or (outputs, inputs) kernel for channels-first arrays, the amplitude multiplied in."""
        kernel = self.problem.params[f"{op.name}.kernel"] * np.float32(amplitude)
        if isinstance(op, Conv):
            return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        if len(shape) == 3:
            kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        return np.ascontiguousarray(kernel.T)

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C) as float32, normalised."""
        network = self.problem.network
        mean, std = (np.asarray(part, np.float32) for part in (network.mean, network.std))
        return (images.astype(np.float32) / 255 - mean) / std
