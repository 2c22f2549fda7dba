"""The compiled loops of the event-driven back-end (Numba).

A spike adds the row of weights that it drives to the membranes it reaches. Seen from an output position, that is
a sum of rows: the spikes of each input row that it sees are neighbours in the spike list, and so are their rows
of weights. The sum over up to 128 channels stays in vector registers, which Numba's own loops do not achieve, so
that the innermost loops are written as LLVM instructions (``vectors``); LLVM lowers the same vectors to AVX-512,
AVX2 and NEON. A prototype of one layer, 8 x 8 x 256 to 256 at 8 % density on one Zen 4 core, made 13 * 10^9
additions a second as loops in plain Numba, 23 as C++ with vector types, 24 written like this, and 80 with int8
weights that are summed in int16. Layers of integers are in ``patterns`` where there are several steps.

Arrays of one layer, for the ``n`` images of one task and ``T`` steps:
    bits      uint16 (n, T, H, W, words), a spike per bit; words is even
    rows      int32, every spike as x * C + c, ordered by image, step, y, x, c, and 16 entries that mean nothing
    starts    int64 (n, T, H * W + 1), where in ``rows`` the spikes of each position start
    spans     int64 (H' * W', KH, 3): for each output position and kernel row, the first input position that it
              sees, the one after the last, and what turns an entry of ``rows`` into a row of ``weights``
    weights   (blocks, rows, width), float32, int8, int16 or int32: output channels in blocks of ``width``, a row
              for each of KH * KW * C, once for each kernel where those at the border are kernels of their own
    membranes float32 or int32 (n, H, W, C filled up to whole blocks); of one image, which all use in turn, where
              nobody needs them afterwards
    starts    (C,), where membranes start, or (0,) where they go on from what they hold
    constant  (n or 1, H, W, C), or (1, 1, 1, C) where all positions have the same
"""

# Numba gives an intrinsic its first parameter (the typing context) itself, which pyright takes for missing:
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from jaxsnn.runtime.compile_cache import keep_loop
from jaxsnn.simulation.events.vectors import (
    LANES,
    accumulate_16,
    accumulate_32,
    accumulate_48,
    accumulate_64,
    accumulate_80,
    accumulate_96,
    accumulate_112,
    accumulate_128,
    accumulate_256,
    add,
    bit_count,
    copy,
    copy_moved,
    fire,
    fire_leaky,
    lowest_bit,
    scaled,
)


def compiled(function: Callable) -> Any:
    return keep_loop(numba.njit(nogil=True, error_model="numpy")(function))


inline = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@inline
def add_rows(weights, block, rows, first, last, total, inside, kept):
    width = weights.shape[2]
    if width == 16:
        accumulate_16(weights, block, rows, first, last, total, inside, kept)
    elif width == 32:
        accumulate_32(weights, block, rows, first, last, total, inside, kept)
    elif width == 48:
        accumulate_48(weights, block, rows, first, last, total, inside, kept)
    elif width == 64:
        accumulate_64(weights, block, rows, first, last, total, inside, kept)
    elif width == 80:
        accumulate_80(weights, block, rows, first, last, total, inside, kept)
    elif width == 96:
        accumulate_96(weights, block, rows, first, last, total, inside, kept)
    elif width == 112:
        accumulate_112(weights, block, rows, first, last, total, inside, kept)
    elif width == 256:
        accumulate_256(weights, block, rows, first, last, total, inside, kept)
    else:
        accumulate_128(weights, block, rows, first, last, total, inside, kept)


@inline
def _sum_rows(edge, block, origin, position, seen, total):
    """total = the rows of weights that the spikes seen from an output position drive; returns their number.

    ``edge`` is (weights, rows, starts, spans, limit), ``origin`` where in the flat ``starts`` the image and step
    begin, ``limit`` the most rows to sum at once, ``seen`` room to work in.
    """
    weights, rows, starts, spans, limit = edge
    count = 0
    for k in range(spans.shape[1]):
        start, stop = starts[origin + spans[position, k, 0]], starts[origin + spans[position, k, 1]]
        offset = spans[position, k, 2]
        for at in range(start, stop, LANES):
            copy_moved(rows, at, offset, seen, count + at - start)
        count += stop - start
    for first in range(0, max(count, 1), limit):
        add_rows(weights, block, seen, first, min(first + limit, count), total, np.int64(0), first > 0)
    return count


@inline
def _fire_row(flat, at, drive, start, level, threshold, base, leak, out, word, count):
    """One step of ``count`` neighbouring neurons, whose first is channel ``base``."""
    for j in range(0, count, LANES):
        if leak == 1:
            out[word + j // LANES] = fire(flat, at + j, drive, start + j, level, threshold, base + j, leak)
        else:
            out[word + j // LANES] = fire_leaky(flat, at + j, drive, start + j, level, threshold, base + j, leak)


@inline
def strides_of(constant):
    """How far apart in the flat array the drives of two images are, and those of two positions."""
    images, height, columns, channels = constant.shape
    return height * columns * channels if images > 1 else 0, channels if height * columns > 1 else 0


@inline
def start_row(flat, at, initial, base, count):
    for j in range(0, count, LANES):
        copy(initial, base + j, flat, at + j)


@compiled
def spiking_layer(
    weights, rows, starts, spans, limits, gains, constant, level, threshold, leak, initial, membranes, bits
):
    """Simulate a layer that spikes drive; ``membranes`` are advanced and ``bits`` filled.

    ``weights``, ``rows``, ``starts`` and ``spans`` are tuples with one array an edge, ``limits`` (edges,) and
    ``gains`` (edges, C). The drive is constant + sum of gain * sum of rows, ``constant`` being (n or 1, H, W, C).
    A spike where the membrane is above ``level`` takes away ``threshold``, both (C,). Returns the additions.
    """
    images, steps, height, columns, words = bits.shape
    width, positions, channels = weights[0].shape[2], height * columns, membranes.shape[3]
    total, drive = np.zeros(width, membranes.dtype), np.zeros(width, membranes.dtype)
    largest = 0
    for edge in range(len(weights)):
        largest = max(largest, weights[edge].shape[1])
    seen = np.zeros(largest + LANES, np.int32)
    flat, fixed, out = membranes.reshape(-1), constant.reshape(-1), bits.reshape(-1)
    by_image, by_position = strides_of(constant)
    additions = 0
    for block in range(weights[0].shape[0]):
        base = block * width
        for i in range(images):
            neurons = i % len(membranes) * positions * channels + base
            if len(initial):
                for position in range(positions):
                    start_row(flat, neurons + position * channels, initial, base, width)
            for t in range(steps):
                moment = i * steps + t
                for position in range(positions):
                    at = neurons + position * channels
                    word = (moment * positions + position) * words + base // LANES
                    source, inside = fixed, i * by_image + position * by_position + base
                    for edge in range(len(weights)):
                        origin = moment * starts[edge].shape[2]
                        one = weights[edge], rows[edge], starts[edge].reshape(-1), spans[edge], limits[edge]
                        additions += width * _sum_rows(one, block, origin, position, seen, total)
                        for j in range(0, width, LANES):
                            scaled(source, inside + j, gains[edge], base + j, total, j)
                        if len(weights) > 1:
                            drive[:] = total
                            source, inside = drive, 0
                    _fire_row(flat, at, total, 0, level, threshold, base, leak, out, word, width)
    return additions


@compiled
def grouped_layer(
    weights, targets, rows, starts, spans, gain, constant, level, threshold, leak, initial, membranes, bits
):
    """``spiking_layer`` with one edge whose rows of ``weights`` (rows, width) reach ``width`` channels each.

    ``targets`` (rows,) says from which channel on; the other arrays are those of the one edge.
    """
    images, steps, height, columns, words = bits.shape
    width, positions, channels = weights.shape[1], height * columns, membranes.shape[3]
    total, additions = np.zeros(channels, membranes.dtype), 0
    flat, fixed, out, first = membranes.reshape(-1), constant.reshape(-1), bits.reshape(-1), starts.reshape(-1)
    by_image, by_position = strides_of(constant)
    for i in range(images):
        neurons = i % len(membranes) * positions * channels
        if len(initial):
            for position in range(positions):
                start_row(flat, neurons + position * channels, initial, 0, channels)
        for t in range(steps):
            moment = i * steps + t
            origin = moment * starts.shape[2]
            for position in range(positions):
                total[:] = 0
                for k in range(spans.shape[1]):
                    offset = spans[position, k, 2]
                    start, stop = first[origin + spans[position, k, 0]], first[origin + spans[position, k, 1]]
                    for spike in range(start, stop):
                        row = rows[spike] + offset
                        for j in range(width):
                            total[targets[row] + np.uint32(j)] += weights[row, j]
                    additions += width * (stop - start)
                at, inside = neurons + position * channels, i * by_image + position * by_position
                word = (moment * positions + position) * words
                for j in range(0, channels, LANES):
                    scaled(fixed, inside + j, gain, j, total, j)
                _fire_row(flat, at, total, 0, level, threshold, 0, leak, out, word, channels)
    return additions


@compiled
def constant_layer(current, bias, level, threshold, leak, initial, membranes, bits):
    """Simulate a layer that only a constant current (n or 1, H, W, C) drives, plus ``bias`` (C,)."""
    images, steps, height, columns, words = bits.shape
    channels, positions = membranes.shape[3], height * columns
    flat, source, out = membranes.reshape(-1), current.reshape(-1), bits.reshape(-1)
    drive = np.empty(channels, membranes.dtype)
    by_image, by_position = strides_of(current)
    for i in range(images):
        for position in range(positions):
            inside = i * by_image + position * by_position
            for j in range(0, channels, LANES):
                add(source, inside + j, bias, j, drive, j)
            at = (i % len(membranes) * positions + position) * channels
            if len(initial):
                start_row(flat, at, initial, 0, channels)
            for t in range(steps):
                word = ((i * steps + t) * positions + position) * words
                _fire_row(flat, at, drive, 0, level, threshold, 0, leak, out, word, channels)


@compiled
def readout(weights, rows, starts, spans, limits, gains, constant, scores, curve):
    """Add up the drive of the last layer: ``scores`` (n, C) are advanced, ``curve`` (n, T, C) holds each step."""
    images, steps, _ = curve.shape
    width = weights[0].shape[2]
    total, drive = np.zeros(width, scores.dtype), np.zeros(width, scores.dtype)
    largest = 0
    for edge in range(len(weights)):
        largest = max(largest, weights[edge].shape[1])
    seen = np.zeros(largest + LANES, np.int32)
    additions = 0
    for block in range(weights[0].shape[0]):
        base = block * width
        for i in range(images):
            fixed = constant[min(i, len(constant) - 1), 0, 0]
            for t in range(steps):
                for j in range(width):
                    drive[j] = fixed[base + j]
                for edge in range(len(weights)):
                    one = weights[edge], rows[edge], starts[edge].reshape(-1), spans[edge], limits[edge]
                    origin = (i * steps + t) * starts[edge].shape[2]
                    additions += width * _sum_rows(one, block, origin, 0, seen, total)
                    for j in range(width):
                        drive[j] += gains[edge, base + j] * total[j]
                for j in range(width):
                    scores[i, base + j] += drive[j]
                    curve[i, t, base + j] = scores[i, base + j]
    return additions


@compiled
def count_spikes(bits, starts, counts):
    """Fill ``starts`` from ``bits``, add each position's spikes to ``counts`` (H * W), and return their sum."""
    images, steps, height, columns, words = bits.shape
    out = bits.reshape(-1).view(np.uint32)
    words //= 2
    total = at = 0
    for i in range(images):
        for t in range(steps):
            for position in range(height * columns):
                starts[i, t, position] = total
                spikes = 0
                for word in range(at, at + words):
                    spikes += np.int64(bit_count(out[word]))
                at += words
                counts[position] += spikes
                total += spikes
            starts[i, t, height * columns] = total
    return total


@compiled
def list_spikes(bits, channels, rows):
    """Fill ``rows`` from ``bits`` of ``channels`` channels; ``rows`` has 16 entries more than there are spikes."""
    images, steps, height, columns, words = bits.shape
    out = bits.reshape(-1).view(np.uint32)
    words //= 2
    at = end = 0
    for _ in range(images * steps * height):
        for x in range(columns):
            for word in range(words):
                left = out[at]
                at += 1
                first = np.int32(x * channels + word * 32)
                count = np.int64(bit_count(left))
                # most words hold few spikes: four are written without asking, what is too much is overwritten
                for start in range(0, max(count, 1), 4):
                    for k in range(4):
                        rows[end + start + k] = first + np.int32(lowest_bit(left))
                        left &= left - np.uint32(1)
                end += count
