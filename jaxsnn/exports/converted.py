"""What every export carries: the network, one candidate's genes, and the conventions to run them by."""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Arrays, Conv, Dense, Layer, Network, layer_shapes
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_dynamics, check_genes
from jaxsnn.networks.taps import Pads, Pair
from jaxsnn.simulation.step import Neurons, neurons_of


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted network as it is run.

    Attributes:
        genes: of one candidate, (1, L) each.
        timesteps: T in the convention of ``dynamics.delay``.
    """

    snn: SNN
    genes: Genes
    dynamics: Dynamics
    timesteps: int

    def __post_init__(self):
        check_genes(self.network, self.genes)
        check_dynamics(self.dynamics)
        if len(self.genes.threshold) != 1:
            raise UserError(f"there are {len(self.genes.threshold)} candidates, expected one to export")
        if self.steps < 1:
            raise UserError(
                f"timesteps is {self.timesteps}, expected more than the layer delay of {self.silent} steps: "
                "nothing reaches the read-out before"
            )

    @property
    def network(self) -> Network:
        return self.snn.network

    @property
    def silent(self) -> int:
        """Steps of layer delay that ``timesteps`` counts."""
        return self.dynamics.silent_steps(self.network)

    @property
    def steps(self) -> int:
        """Steps without layer delay, all layers acting in the same one: what an exported network runs."""
        return self.timesteps - self.silent

    @property
    def leaky(self) -> bool:
        """Whether any membrane leaks."""
        return self.genes.leak is not None and not (np.asarray(self.genes.leak) == 1).all()

    def neurons(self) -> Neurons:
        """The neurons as the simulator has them, float32, in the units of the ANN's activations."""
        one = self.genes.map(lambda part: jnp.asarray(part[0], jnp.float32))
        return neurons_of(self.network, one, self.snn.params)

    def thresholds(self) -> np.ndarray:
        """(L,) float32."""
        return np.asarray(self.genes.threshold[0], np.float32)

    def starts(self) -> list[np.ndarray]:
        """Initial membranes of the channels of each spiking layer, float32 (C,), in units of the ANN."""
        shapes = layer_shapes(self.network)
        return [
            np.broadcast_to(np.asarray(v, np.float32), shape[-1:])
            for v, shape in zip(self.neurons().starts, shapes)
        ]

    def conventions(self) -> dict[str, str | int | float]:
        """How to run the network, in words and numbers that a file's metadata can hold."""
        return {
            "neuron": "integrate and fire",
            "reset": "subtract the threshold",
            "comparison": self.dynamics.comparison,
            "timesteps": self.steps,
            "timesteps_with_layer_delay": self.steps + self.network.delay,
            "delay": "none: in a step every layer sees the spikes of the same step, in the order of the layers",
            "input": "the normalised image, (pixel - mean) / std of pixels in [0, 1], the same at every step",
            "output": "class scores of a step: add them up over the steps, the class is that of the largest sum",
        }


def bias_currents(snn: SNN) -> list[np.ndarray | None]:
    """What the biases add to each layer's drive at every step, or None.

    (C,) float32, or (H, W, C) where positions differ.
    """
    shapes, found = layer_shapes(snn.network), []
    for layer, output in zip(snn.network.layers, shapes):
        total = None
        for edge in layer.edges:
            if any(getattr(op, "bias", False) for op in edge.ops):
                shape = snn.network.input_shape if edge.source == IMAGE else shapes[edge.source]
                part = linear_map(edge.ops, snn.params, shape, sums=jnp.float32)(jnp.zeros((1, *shape)))[0]
                total = part if total is None else total + part
        found.append(None if total is None else _by_channel(total, output))
    return found


def _by_channel(drive: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """One number a channel where all positions have the same."""
    whole = np.asarray(drive, np.float32)
    first = whole.reshape(-1, shape[-1])[0]
    return first if (whole == first).all() else whole


def channels_first(array: np.ndarray) -> np.ndarray:
    """(H, W, C) as (C, H, W), (C,) as it is."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def conv_weight(op: Conv, params: Arrays) -> np.ndarray:
    """The kernel of a convolution as PyTorch and NIR have it, (F, C / groups, h, w)."""
    return np.ascontiguousarray(np.asarray(params[f"{op.name}.kernel"], np.float32).transpose(3, 2, 0, 1))


def dense_weight(op: Dense, shape: tuple[int, ...], params: Arrays) -> np.ndarray:
    """The matrix of a dense map as PyTorch and NIR have it, (F, inputs), for inputs flattened channels first."""
    kernel = np.asarray(params[f"{op.name}.kernel"], np.float32)
    if len(shape) == 3:
        kernel = kernel.reshape(*shape, op.features).transpose(2, 0, 1, 3).reshape(-1, op.features)
    return np.ascontiguousarray(kernel.T)


def even_pads(pads: Pads) -> Pair | None:
    """Zeros on both sides of the rows, then of the columns; None where the two sides differ."""
    (top, bottom), (left, right) = pads
    return (top, left) if (top, left) == (bottom, right) else None


def plain_name(name: str) -> str:
    """A name that is fit for code and for files: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def plain_names(layers: tuple[Layer, ...]) -> list[str]:
    """Names of the layers that are fit for code and for files, each once."""
    found: list[str] = []
    for index, layer in enumerate(layers):
        name = plain_name(layer.name)
        found.append(f"layer{index}" if not name or name[0].isdigit() or name in found else name)
    return found
