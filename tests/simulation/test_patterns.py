"""Four steps at once give integer layers the membranes and spikes of one step after the other."""

import numpy as np
import pytest

from jaxsnn.simulation.events.lowering import interleave, paired

numba = pytest.importorskip("numba", reason="Numba is not installed")

PLACES, OUTPUTS, CHANNELS, WIDTH, EACH = 6, 4, 20, 64, 32
"""A row of 6 positions of 20 channels, of which an output sees 3; two blocks of 32 channels."""


def _bits(spikes: np.ndarray) -> np.ndarray:
    """Spikes (n, T, W, C) as words of 16 bits, (n, T, 1, W, words)."""
    words = 2 * -(-spikes.shape[-1] // 32)
    padded = np.zeros((*spikes.shape[:-1], 16 * words), bool)
    padded[..., : spikes.shape[-1]] = spikes
    packed = np.packbits(padded, axis=-1, bitorder="little").view(np.uint16)
    return np.ascontiguousarray(packed[:, :, None])


def _stepwise(spikes, weights, gains, constant, level, threshold, membranes):
    """The same layer in plain NumPy: ``weights`` per edge (3, channels, outputs)."""
    fired, v = [], membranes[:, 0].astype(np.int64)
    for step in range(spikes[0].shape[1]):
        drive = constant[:, 0].astype(np.int64)
        for kernel, gain, edge in zip(weights, gains, spikes):
            windows = np.stack([edge[:, step, k : k + OUTPUTS] for k in range(3)], 2)
            drive = drive + gain * np.einsum("nokc,kcf->nof", windows.astype(np.int64), kernel.astype(np.int64))
        v = v + drive
        fired.append(v > level)
        v = v - threshold * fired[-1]
    return np.stack(fired, 1), v


@pytest.mark.parametrize("edges", [1, 2])
def test_patterns_are_the_steps_one_by_one(edges):
    """T = 1 to 9, silent, sparse and full, few listed at once, fewer rows summed at once than are seen."""
    from jaxsnn.simulation.events.patterns import spiking_patterns

    rng = np.random.default_rng(edges)
    spans = np.array([[[x, x + 3, -x * CHANNELS]] for x in range(OUTPUTS)])
    for steps, density, listed, limit in (
        (1, 0.5, 1, 258),
        (4, 0.0, 1, 258),
        (6, 0.2, 1 << 20, 7),
        (9, 1.0, 1, 3),
    ):
        spikes = [rng.random((2, steps, PLACES, CHANNELS)) < density for _ in range(edges)]
        weights = [rng.integers(-127, 128, (3, CHANNELS, WIDTH)).astype(np.int8) for _ in range(edges)]
        gains = rng.integers(1, 4, (edges, WIDTH), np.int32) if edges > 1 else np.ones((1, WIDTH), np.int32)
        constant = rng.integers(-40, 90, (2, 1, OUTPUTS, WIDTH), np.int32)
        level, threshold = rng.integers(50, 300, (2, WIDTH), np.int32)
        membranes = rng.integers(-50, 100, (2, 1, OUTPUTS, WIDTH), np.int32)
        fired, v = _stepwise(spikes, weights, gains, constant, level, threshold, membranes)
        blocks = tuple(
            np.ascontiguousarray(kernel.reshape(-1, WIDTH // EACH, EACH).swapaxes(0, 1)) for kernel in weights
        )
        out = np.zeros((2, steps, 1, OUTPUTS, WIDTH // 16), np.uint16)
        spiking_patterns(
            blocks,
            tuple(_bits(each) for each in spikes),
            np.full(edges, CHANNELS),
            (spans,) * edges,
            np.full(edges, limit),
            gains,
            constant,
            level,
            threshold,
            np.zeros(0, np.int32),
            membranes,
            out,
            listed,
        )
        np.testing.assert_array_equal(out, _bits(fired))
        np.testing.assert_array_equal(membranes[:, 0], v)


def test_one_image_of_membranes_serves_all_where_they_start_alike():
    """Images of several groups of steps, in chunks that end within an image; one drive for all positions."""
    from jaxsnn.simulation.events.patterns import spiking_patterns

    rng = np.random.default_rng(5)
    spans = np.array([[[x, x + 3, -x * CHANNELS]] for x in range(OUTPUTS)])
    spikes = rng.random((3, 6, PLACES, CHANNELS)) < 0.3
    kernel = rng.integers(-127, 128, (3, CHANNELS, WIDTH)).astype(np.int8)
    gains, initial = np.ones((1, WIDTH), np.int32), rng.integers(-50, 100, WIDTH, np.int32)
    constant = rng.integers(-40, 90, (1, 1, 1, WIDTH), np.int32)
    level, threshold = rng.integers(50, 300, (2, WIDTH), np.int32)
    everywhere = np.broadcast_to(initial, (3, 1, OUTPUTS, WIDTH))
    drives = np.broadcast_to(constant, everywhere.shape)
    fired, v = _stepwise([spikes], [kernel], gains, drives, level, threshold, everywhere)
    block = np.ascontiguousarray(kernel.reshape(-1, WIDTH // EACH, EACH).swapaxes(0, 1))
    edge = (block,), (_bits(spikes),), np.full(1, CHANNELS), (spans,), np.full(1, 258), gains
    for images, listed in ((1, 3 * 4 * 15 * PLACES * CHANNELS), (3, 1)):
        out = np.zeros((3, 6, 1, OUTPUTS, WIDTH // 16), np.uint16)
        membranes = np.full((images, 1, OUTPUTS, WIDTH), 7, np.int32)
        spiking_patterns(*edge, constant, level, threshold, initial, membranes, out, listed)
        np.testing.assert_array_equal(out, _bits(fired))
        np.testing.assert_array_equal(membranes[:, 0], v[-images:])


def test_pairs_of_channels_are_two_bytes_of_one_number():
    weights = np.random.default_rng(0).integers(-127, 128, (1, 5, 128)).astype(np.int8)
    assert paired(weights.dtype, 128) and not paired(weights.dtype, 96) and not paired(np.dtype(np.int16), 128)
    pairs = interleave(weights).view(np.int16).reshape(5, 2, 32).astype(int)
    low, high = weights.reshape(5, 2, 2, 32).astype(int).swapaxes(0, 2)
    np.testing.assert_array_equal(pairs.swapaxes(0, 1), low + 128 + 256 * high)
