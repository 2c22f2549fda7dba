"""Every lowering of a linear map is the same function as its definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from jaxsnn.networks.description import AvgPool, Conv, Dense, output_shape
from jaxsnn.networks.linear_maps import linear_map


@st.composite
def edges(draw):
    """An input shape and ops that fit it: convolutions of every size and stride, pools, dense maps."""
    side = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    shape = (side, side, draw(st.integers(1, 3)))
    ops, current = [], shape
    for index in range(draw(st.integers(1, 3))):
        if len(current) == 3 and current[0] % 2 == 0 and draw(st.booleans()):
            op = AvgPool(2)
        elif len(current) == 1 or draw(st.integers(0, 3)) == 0:
            op = Dense(f"op{index}", draw(st.integers(1, 4)), draw(st.booleans()))
        else:
            kernel = draw(st.sampled_from([1, 3, 5]))
            stride = draw(st.sampled_from([1, 2]))
            op = Conv(f"op{index}", draw(st.integers(1, 3)), kernel, stride, draw(st.booleans()))
        ops.append(op)
        current = output_shape(op, current)
    return shape, ops


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(edges(), st.integers(0, 2**31))
def test_lowerings_equal_the_definition_bit_for_bit_on_dyadic_numbers(edge, seed):
    shape, ops = edge
    rng = np.random.default_rng(seed)
    params, current = {}, shape
    for op in ops:
        target = output_shape(op, current)
        if isinstance(op, Conv):
            params[f"{op.name}.kernel"] = rng.integers(-2, 3, (op.kernel, op.kernel, current[-1], op.features)) / 4
        elif isinstance(op, Dense):
            params[f"{op.name}.kernel"] = rng.integers(-2, 3, (int(np.prod(current)), op.features)) / 4
        if getattr(op, "bias", False):
            params[f"{op.name}.bias"] = rng.integers(-2, 3, op.features) / 4
        current = target
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    x = rng.integers(0, 2, (2, *shape)).astype(np.float32)
    expected = reference.apply_edge(ops, params, x.astype(np.float64), bias=True)
    for trained in (False, True):
        found = linear_map(ops, params, shape, trained=trained)(jnp.asarray(x))
        np.testing.assert_array_equal(np.asarray(found), expected)
