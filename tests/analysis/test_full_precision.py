"""What is measured of the ANN and of one candidate is computed in float32 on a GPU, not in TF32."""

import jax
import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn
from jaxsnn.analysis import comparison, sensitivity, significance
from jaxsnn.networks.spiking import Genes
from jaxsnn.simulation import clipped_ann


def products(jaxpr):
    """The precisions of all products and convolutions, also of programs inside."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(
    ("function", "rest"),
    [
        (comparison._classes, ()),
        (significance._batch_moments, ()),
        (sensitivity._activations, ()),
        (sensitivity._spike_counts, ("genes", 3, ">")),
        (clipped_ann._clipped, ("thresholds",)),
    ],
)
def test_products_are_in_full_precision(function, rest):
    snn, images = dyadic_snn("residual"), dyadic_images(2)
    layers = len(snn.network.spiking)
    if function is clipped_ann._clipped:
        traced = function.trace(snn.network, snn.params, np.ones((2, layers), np.float32), images)
    elif rest:
        traced = function.trace(snn.network, snn.params, Genes(np.ones(layers, np.float32)), images, *rest[1:])
    else:
        traced = function.trace(snn.network, snn.params, images)
    found = list(products(traced.jaxpr.jaxpr))
    highest = jax.lax.Precision.HIGHEST
    assert found and all(precision in (highest, (highest, highest)) for precision in found)
