"""Weights of one layer, chosen so that the spikes that really arrive bring out what the ANN's activations did.

What a layer receives is its input's spikes, averaged over T steps: the ANN's activations, rounded, shifted and
correlated in other ways. The least change of the kernel that takes the error of the sums back is a ridge
regression of that error on the layer's actual inputs, in closed form and without labels. The local reconstruction
of rounded networks (BRECQ, Li et al., ICLR 2021; GPTQ's compensation, Frantar et al., ICLR 2023) minimises the
same error.
"""

import math
from collections import Counter
from dataclasses import dataclass

import jax
import numpy as np
import scipy.linalg  # JAX itself needs SciPy
from jax import lax

from jaxsnn.conversion.channels import maps_of
from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, Layer, Network, shapes_of, walk
from jaxsnn.networks.linear_maps import DIMENSIONS, linear_map

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, relative to the inputs' mean square."""
HELD = 4
"""Every fourth value chooses among them."""


def rebuilt(network: Network, layer: Layer) -> tuple[Edge, ...]:
    """The edges of a layer whose kernels can be fitted.

    They have one map, of their own and without groups, and do not read the image, which is exact.
    """
    used = Counter(op.name for _, _, op, _ in walk(network) if isinstance(op, Conv | Dense))
    return tuple(
        edge
        for edge in layer.edges
        if edge.source != IMAGE
        and len(maps := maps_of(edge)) == 1
        and used[maps[0].name] == 1
        and not (isinstance(maps[0], Conv) and maps[0].groups > 1)
    )


def fan_in(network: Network, layer: Layer) -> int:
    """Weights that one neuron's sum has in those edges."""
    shapes = shapes_of(network)
    kernels = [shapes[f"{maps_of(edge)[0].name}.kernel"] for edge in rebuilt(network, layer)]
    return sum(math.prod(kernel[:-1]) for kernel in kernels)


def inputs_of(edge: Edge, x: jax.Array) -> jax.Array:
    """What each weight of the edge's map multiplies, (N, positions, K), for inputs ``x`` (N, *shape).

    K counts as ``kernel_matrix`` does. A pool after the map averages what its weights multiply. The largest of the
    inputs' mean spikes is the mean of those that a max pool passes.
    """
    op = maps_of(edge)[0]
    at = edge.ops.index(op)
    x = linear_map(edge.ops[:at], {}, x.shape[1:])(x)
    if isinstance(op, Dense):
        return x.reshape(len(x), 1, -1)
    taps = op.taps
    seen = lax.conv_general_dilated_patches(
        x, taps.sides, taps.strides, taps.pads, rhs_dilation=taps.dilation, dimension_numbers=DIMENSIONS
    )
    seen = linear_map(edge.ops[at + 1 :], {}, seen.shape[1:])(seen)
    return seen.reshape(len(x), -1, seen.shape[-1])


def kernel_matrix(kernel: np.ndarray) -> np.ndarray:
    """A kernel as (K, F): inputs times taps, and features."""
    if kernel.ndim == 2:
        return kernel
    return kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])


def from_matrix(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The kernel of ``shape`` that ``kernel_matrix`` made into ``matrix``."""
    if len(shape) == 2:
        return matrix
    high, wide, channels, features = shape
    return matrix.reshape(channels, high, wide, features).transpose(1, 2, 0, 3)


def one_sided(error: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """``error`` (the ANN's ``sums`` less the SNN's) without what a ReLU hides: below zero all sums are alike."""
    return np.maximum(sums, 0) - np.maximum(sums - error, 0)


def correction(inputs: np.ndarray, error: np.ndarray, centred: bool) -> np.ndarray:
    """The change (K, F) of a kernel that takes ``error`` (S, F) back on ``inputs`` (S, K), float64.

    The ridge is the one of ``RIDGES`` that leaves least of the error on values that it was not fitted to; no
    change at all is among them.

    Args:
        centred: a bias takes the means back, so that they are not the kernel's to mend.
    """
    held = np.arange(len(inputs)) % HELD == 0
    if centred:
        inputs, error = inputs - inputs[~held].mean(0), error - error[~held].mean(0)
    nothing = np.zeros((inputs.shape[1], error.shape[1]))
    level = float(np.square(inputs).mean())
    if not level > 0 or held.all():
        return nothing
    fitted, rest = (_Sums.of(inputs[part], error[part]) for part in (~held, held))
    tried = [(ridge, fitted.solve(ridge * level)) for ridge in RIDGES]
    changes = [(np.inf, nothing), *((ridge, change) for ridge, change in tried if change is not None)]
    ridge, change = min(changes, key=lambda one: rest.left(one[1]))
    whole = None if ridge == np.inf else (fitted + rest).solve(ridge * level)
    return change if whole is None else whole


@dataclass(frozen=True)
class _Sums:
    """Sums over ``count`` values: of products of inputs (K, K), and of inputs and errors (K, F)."""

    count: int
    gram: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "_Sums":
        return cls(len(x), (x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64))

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.count + other.count, self.gram + other.gram, self.cross + other.cross)

    def solve(self, penalty: float) -> np.ndarray | None:
        """argmin over w of the mean of |y - x w|^2 + penalty |w|^2; None where the penalty is too small for it.

        Sums of float32 products of many inputs alike are off by more than a small penalty.
        """
        ridged = self.gram + penalty * self.count * np.eye(len(self.gram))
        try:
            return scipy.linalg.solve(ridged, self.cross, assume_a="pos", overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None

    def left(self, w: np.ndarray) -> float:
        """Sum of |y - x w|^2, less that of |y|^2, which is the same for all."""
        return float((w * (self.gram @ w)).sum() - 2 * (w * self.cross).sum())
