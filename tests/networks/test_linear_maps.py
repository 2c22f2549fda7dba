"""Every lowering of a linear map is the same function as its definition."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.ops import convolutions, pools
from jaxsnn.errors import UserError
from jaxsnn.networks.description import AvgPool, Conv, Dense, output_shape, parameter_shapes
from jaxsnn.networks.linear_maps import linear_map, lowering, pool_unit


@st.composite
def edges(draw):
    """An input shape and ops that fit it: convolutions and pools of every shape, dense maps."""
    shape = (draw(st.sampled_from([1, 2, 3, 5, 8])), draw(st.sampled_from([2, 4, 7])), draw(st.integers(1, 4)))
    made, current = [], shape
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 4))
        if len(current) == 1 or kind == 0:
            op = Dense(f"op{index}", draw(st.integers(1, 4)), draw(st.booleans()))
        elif kind == 1:
            op = draw(st.just(AvgPool(2)) | pools(3))
        else:
            plain = Conv(f"op{index}", 3, draw(st.sampled_from([1, 3, 5])))
            op = draw(st.just(plain) | convolutions(current[-1], f"op{index}", 3))
        try:
            current = output_shape(op, current)
        except UserError:
            assume(False)
        made.append(op)
    return shape, made


def dyadic_params(ops, shape, rng):
    """Arrays of small multiples of a quarter."""
    params = {}
    for op in ops:
        for name, array in parameter_shapes(op, shape).items():
            params[name] = jnp.asarray(rng.integers(-2, 3, array) / 4, jnp.float32)
        shape = output_shape(op, shape)
    return params


@settings(max_examples=25, deadline=None)
@given(edges(), st.integers(0, 2**31), st.booleans())
def test_lowerings_equal_the_definition(edge, seed, trained):
    """Bit for bit where every sum is exact: pools over other counts than powers of two have thirds."""
    shape, ops = edge
    rng = np.random.default_rng(seed)
    params = dyadic_params(ops, shape, rng)
    x = rng.integers(0, 2, (2, *shape)).astype(np.float32)
    expected = reference.apply_edge(ops, params, x.astype(np.float64), bias=True)
    found = np.asarray(linear_map(ops, params, shape, trained=trained)(jnp.asarray(x)))
    unit = pool_unit(ops, shape)
    if unit & (unit - 1):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=20, deadline=None)
@given(edges(), st.integers(0, 2**31), st.booleans())
def test_whole_numbers_stay_whole_whatever_the_pools_divide_by(edge, seed, narrow):
    """In float32, and in int8, at its largest weights, where no convolution has groups."""
    shape, ops = edge
    ops = [replace(op, bias=False) if isinstance(op, Conv | Dense) else op for op in ops]
    rng = np.random.default_rng(seed)
    params = {
        name: jnp.round((252 if narrow else 4) * value) for name, value in dyadic_params(ops, shape, rng).items()
    }
    x = rng.integers(0, 2, (2, *shape)).astype(np.float32)
    if narrow:  # one map, for sums of sums leave int8
        maps = [op for op in ops if isinstance(op, Conv | Dense)]
        assume(len(maps) < 2 and pool_unit(ops, shape) < 128 and all(getattr(op, "groups", 1) == 1 for op in maps))
    held = {name: value.astype(jnp.int8) for name, value in params.items()} if narrow else params
    sums = jnp.int32 if narrow else jnp.float32
    found = np.asarray(linear_map(ops, held, shape, sums=sums, whole=True)(jnp.asarray(x)))
    expected = reference.apply_edge(ops, params, x.astype(np.float64), bias=False) * pool_unit(ops, shape)
    assume(np.abs(expected).max() < 2**22)
    np.testing.assert_array_equal(found, np.round(expected))


@pytest.mark.parametrize("pool", [AvgPool(2), AvgPool((1, 2), 1)])
def test_int8_kernels_may_be_merged_with_a_pool(pool):
    """Small images become one matrix, whose entries are sums of up to four weights."""
    ops, shape, rng = [Conv("a", 3, 3, bias=False), pool], (2, 2, 4), np.random.default_rng(0)
    kernel = rng.integers(100, 128, (3, 3, 4, 3)) * rng.choice([-1, 1], 3)
    assert lowering(ops[0], pool, shape) == "matrix product"
    x = rng.integers(0, 2, (5, *shape))
    held = {"a.kernel": jnp.asarray(kernel, jnp.int8)}
    found = linear_map(ops, held, shape, sums=jnp.int32, whole=True)(jnp.asarray(x, jnp.float32))
    expected = reference.apply_edge(ops, {"a.kernel": kernel}, x.astype(float), bias=False)
    np.testing.assert_array_equal(found, np.round(expected * pool_unit(ops, shape)))


@pytest.mark.parametrize(
    "op", [Conv("a", 4, groups=4), Conv("a", 8, (3, 1), (1, 2), padding=((0, 1), (2, 0)), groups=2, dilation=2)]
)
def test_gradients_are_those_of_the_definition(op):
    """A linear map's gradient is the transposed map: <g, J dx> = <J^T g, dx>, and so for the kernel."""
    shape, rng = (6, 7, 4), np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *shape)), rng.normal(size=parameter_shapes(op, shape)["a.kernel"])
    y, pull = jax.vjp(
        lambda x, k: linear_map([op], {"a.kernel": k}, shape)(x), jnp.float32(x), jnp.float32(kernel)
    )
    cotangent, dx, dk = rng.normal(size=y.shape), rng.normal(size=x.shape), rng.normal(size=kernel.shape)
    back_x, back_k = pull(jnp.float32(cotangent))
    forward = reference.apply_edge([op], {"a.kernel": kernel}, dx, bias=False)
    assert np.vdot(back_x, dx) == pytest.approx(np.vdot(cotangent, forward), rel=1e-4, abs=1e-3)
    forward = reference.apply_edge([op], {"a.kernel": dk}, x, bias=False)
    assert np.vdot(back_k, dk) == pytest.approx(np.vdot(cotangent, forward), rel=1e-4, abs=1e-3)
