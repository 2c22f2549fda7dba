"""How significant each layer is, by principal component analysis of its feature maps (the paper's eq. 12-13)."""

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network, layer_shapes
from jaxsnn.networks.forward import ann_forward


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of rows (K, F), from which the covariance follows; the rows themselves are not kept.

    Attributes:
        rows: K.
        mean: (F,) float64.
        scatter: (F, F) float64, the sum of (q - mean)(q - mean)^T over the rows q.
    """

    rows: int
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together (Chan, Golub and LeVeque, 1983): nothing cancels."""
        rows = self.rows + other.rows
        apart = other.mean - self.mean
        return Moments(
            rows,
            self.mean + apart * (other.rows / rows),
            self.scatter + other.scatter + np.outer(apart, apart) * (self.rows * other.rows / rows),
        )

    @property
    def variances(self) -> np.ndarray:
        """Variances along the principal components, largest first, (F,): eigenvalues of the covariance."""
        eigenvalues = np.linalg.eigvalsh(self.scatter / max(1, self.rows - 1))[::-1]
        return eigenvalues.clip(0)


@dataclass(frozen=True)
class Significance:
    """What PCA says of the spiking layers.

    Attributes:
        variances: per layer, those along its principal components, largest first, (F,).
        components: per layer, the number k of components that explain the wanted share of the variance.
        change: per layer, 100 (k / k of the layer before - 1) in percent; None for the first.
    """

    variances: list[np.ndarray]
    components: list[int]
    change: list[float | None]


def components_for(variances: np.ndarray, ratio: float = 0.999, power: int = 1) -> int:
    """The least k whose first components explain ``ratio`` of the variance.

    Args:
        variances: eigenvalues of the covariance, largest first, (F,).
        power: 1 sums the eigenvalues, the usual explained variance and eq. 12; 2 sums their squares, as eq. 13
            is printed.

    Raises:
        UserError: a ratio outside (0, 1], another power, or rows without any variance.
    """
    if not 0 < ratio <= 1:
        raise UserError(f"the share of the variance to explain is {ratio}, expected in (0, 1]")
    if power not in (1, 2):
        raise UserError(f"the power of the eigenvalues is {power}, expected 1 (eq. 12) or 2 (eq. 13)")
    shares = np.cumsum(np.asarray(variances, np.float64) ** power)
    if not shares[-1] > 0:
        raise UserError("the feature maps do not vary, so they have no principal components: give other images")
    # a ratio of 1 must not fail by the last bit of a sum
    return int(np.searchsorted(shares, ratio * shares[-1] * (1 - 1e-12)) + 1)


def percent_changes(components: list[int]) -> list[float | None]:
    """The change of k from layer to layer in percent, None for the first layer."""
    return [None, *(100 * (k / before - 1) for before, k in itertools.pairwise(components))]


def images_needed(network: Network) -> int:
    """The least number of images for which every spiking layer has more rows B H W than features F."""
    shapes = layer_shapes(network)[:-1]
    return max(shape[-1] // int(np.prod(shape[:-1], dtype=int)) + 1 for shape in shapes)


def layer_moments(network: Network, params: Arrays, batches: Iterable[np.ndarray]) -> list[Moments]:
    """Moments of every spiking layer's sums in front of the ReLU, flattened to (B H W, F).

    Each batch is centred on its own mean on the device and only its F x F scatter leaves it; batches are added
    in float64. After a dense layer H = W = 1.

    Args:
        params: of the folded network.
        batches: uint8 images (B, H, W, C) each.
    """
    totals: list[Moments] | None = None
    for images in batches:
        parts = [
            Moments(int(rows), np.asarray(mean, np.float64), np.asarray(scatter, np.float64))
            for rows, mean, scatter in _batch_moments(network, params, images)
        ]
        totals = parts if totals is None else [a + b for a, b in zip(totals, parts)]
    if totals is None:
        raise UserError("PCA needs images")
    return totals


@functools.partial(jax.jit, static_argnames="network")
@jax.default_matmul_precision("highest")  # a GPU would take TF32
def _batch_moments(network, params, images):
    moments = []
    for sums in ann_forward(network, params, images)[:-1]:
        rows = sums.reshape(-1, sums.shape[-1])
        mean = rows.mean(0)
        centred = rows - mean
        # the mean of float32 is off by its last bits; what that leaves in the scatter is exactly this
        left = centred.mean(0)
        scatter = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST)
        moments.append((len(rows), mean + left, scatter - len(rows) * jnp.outer(left, left)))
    return moments


def significance(
    network: Network, params: Arrays, images: np.ndarray, ratio: float = 0.999, power: int = 1, batch: int = 100
) -> Significance:
    """PCA of every spiking layer of a folded network on uint8 ``images`` (N, H, W, C), eq. 12-13.

    Eq. 12 sums the variances and eq. 13 their squares; see ``components_for``. The columns are centred, as PCA
    has it; the paper's text does not say.

    Raises:
        UserError: too few images for the covariance of some layer to have full rank.
    """
    needed = images_needed(network)
    if len(images) < needed:
        shapes = layer_shapes(network)[:-1]
        worst = max(range(len(shapes)), key=lambda i: shapes[i][-1] / np.prod(shapes[i][:-1], dtype=int))
        positions = int(np.prod(shapes[worst][:-1], dtype=int))
        raise UserError(
            f"PCA of layer {network.layers[worst].name} with {shapes[worst][-1]} features and {positions} "
            f"positions an image needs at least {needed} images, not {len(images)}"
        )
    batches = (images[start : start + batch] for start in range(0, len(images), batch))
    variances = [moments.variances for moments in layer_moments(network, params, batches)]
    components = [components_for(v, ratio, power) for v in variances]
    return Significance(variances, components, percent_changes(components))
