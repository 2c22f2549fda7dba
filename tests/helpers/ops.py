"""Convolutions and pools of every shape that the description can hold, drawn by Hypothesis."""

from hypothesis import strategies as st

from jaxsnn.networks.description import AvgPool, Conv


def _two(least, most):
    return st.integers(least, most) | st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def convolutions(draw, channels=8, name="a", kernels=4):
    """A convolution of an input of ``channels`` that fits 11 x 13 positions (5 x 5 with kernels up to 3)."""
    groups = draw(st.sampled_from([g for g in (1, 2, 4, channels) if channels % g == 0]))
    kernel = draw(_two(1, kernels))
    padding = draw(st.none() | st.integers(0, 2) | st.tuples(_pads(2), _pads(2)))
    features = groups * draw(st.integers(1, 2))
    dilation = draw(_two(1, 2))
    return Conv(name, features, kernel, draw(_two(1, 3)), draw(st.booleans()), padding, dilation, groups)


@st.composite
def pools(draw, window=4):
    """An average pool."""
    high, wide = draw(st.integers(1, window)), draw(st.integers(1, window))
    padding = draw(st.just(0) | st.tuples(_pads(high - 1), _pads(wide - 1)))
    return AvgPool((high, wide), draw(st.none() | _two(1, 3)), padding, draw(st.booleans()))


def _pads(most):
    return st.tuples(st.integers(0, most), st.integers(0, most))


def ops(channels=8):
    """One op."""
    return convolutions(channels) | pools()
