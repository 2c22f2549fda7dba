"""The compiled loops of the event-driven back-end (Numba).

A spike adds the row of weights that it drives to the membranes it reaches. Seen from an output position, that is
a sum of rows: the spikes of each input row that it sees are neighbours in the spike list, and so are their rows
of weights. The sum over up to 128 channels stays in vector registers, which Numba's own loops do not achieve, so
that the innermost loops are written as LLVM instructions here; LLVM lowers the same vectors to AVX-512, AVX2 and
NEON. A prototype of one layer, 8 x 8 x 256 to 256 at 8 % density on one Zen 4 core, made 13 * 10^9 additions a
second as loops in plain Numba, 23 as C++ with vector types, 24 written like this, and 80 with int8 weights that
are summed in int16.

Arrays of one layer, for the ``n`` images of one task and ``T`` steps:
    bits      uint16 (n, T, H, W, words), a spike per bit; words is even
    rows      int32, every spike as x * C + c, ordered by image, step, y, x, c, and 16 entries that mean nothing
    starts    int64 (n, T, H * W + 1), where in ``rows`` the spikes of each position start
    spans     int64 (H' * W', KH, 3): for each output position and kernel row, the first input position that it
              sees, the one after the last, and what turns an entry of ``rows`` into a row of ``weights``
    weights   (blocks, rows, width), float32, int8, int16 or int32: output channels in blocks of ``width``, a row
              for each of KH * KW * C, once for each kernel where those at the border are kernels of their own
    membranes float32 or int32 (n, H, W, C filled up to whole blocks)
"""

# Numba gives an intrinsic its first parameter (the typing context) itself, which pyright takes for missing:
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numba.np.numpy_support import as_dtype

from jaxsnn.runtime.compile_cache import keep_loop

LANES = 16
"""Channels of one vector; widths of blocks are multiples of it, up to 128 (32 for int8)."""


_INDEX = ir.IntType(64)


def _pointer(context, builder, kind, array, offset, element=None):
    """Pointer to ``array[offset]`` in C order, or to a vector that starts there."""
    pointer = builder.gep(make_array(kind)(context, builder, array).data, [offset])
    return pointer if element is None else builder.bitcast(pointer, element.as_pointer())


def _vector(dtype: types.Type, lanes: int) -> ir.VectorType:
    scalar = ir.FloatType() if dtype == types.float32 else ir.IntType(8 * as_dtype(dtype).itemsize)
    return ir.VectorType(scalar, lanes)


def _add(builder, one, two):
    return builder.fadd(one, two) if isinstance(one.type.element, ir.FloatType) else builder.add(one, two)


def _loop(builder, first, last, carried):
    """Open a loop with an index from ``first`` to below ``last`` and carried values; returns what closes it."""
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_INDEX)
    index.add_incoming(first, before)
    values = [builder.phi(value.type) for value in carried]
    for phi, value in zip(values, carried):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, last), body, after)
    builder.position_at_end(body)

    def close(results):
        end = builder.block
        index.add_incoming(builder.add(index, _INDEX(1)), end)
        for phi, value in zip(values, results):
            phi.add_incoming(value, end)
        builder.branch(head)
        builder.position_at_end(after)
        return values

    return index, values, close


def _make_accumulate(width: int):
    """``accumulate(weights, block, rows, first, last, total)`` for blocks of ``width`` channels.

    total[:width] += sum of weights[block, rows[i]] over first <= i < last. int8 and int16 are summed in int16,
    so the caller must not pass more rows than can be added without overflow.
    """

    @intrinsic
    def accumulate(typing, weights, block, rows, first, last, total):
        signature = types.void(weights, types.int64, rows, types.int64, types.int64, total)

        def codegen(context, builder, signature, args):
            kinds = signature.args
            integer = kinds[0].dtype != types.float32
            lanes = 2 * LANES if integer and width % (2 * LANES) == 0 else LANES
            stored = _vector(kinds[0].dtype, lanes)
            narrow = integer and kinds[0].dtype != types.int32
            summed = _vector(types.int16, lanes) if narrow else stored
            per_block = builder.extract_value(make_array(kinds[0])(context, builder, args[0]).shape, 1)
            origin = builder.mul(args[1], per_block)
            zeros = [ir.Constant(summed, None)] * (width // lanes)
            spike, sums, close = _loop(builder, args[3], args[4], zeros)
            row = builder.sext(builder.load(_pointer(context, builder, kinds[2], args[2], spike)), _INDEX)
            row = builder.mul(builder.add(origin, row), _INDEX(width))
            results = []
            for k, value in enumerate(sums):
                place = builder.add(row, _INDEX(k * lanes))
                read = builder.load(_pointer(context, builder, kinds[0], args[0], place, stored), align=1)
                results.append(_add(builder, value, read if stored == summed else builder.sext(read, summed)))
            wide = _vector(kinds[5].dtype, lanes)
            for k, value in enumerate(close(results)):
                place = _pointer(context, builder, kinds[5], args[5], _INDEX(k * lanes), wide)
                value = value if summed == wide else builder.sext(value, wide)
                builder.store(_add(builder, builder.load(place, align=4), value), place, align=4)
            return context.get_dummy_value()

        return signature, codegen

    return accumulate


_acc16, _acc32, _acc48, _acc64, _acc80, _acc96, _acc112, _acc128 = (
    _make_accumulate(width) for width in range(16, 129, 16)
)


@intrinsic
def _copy_moved(typing, source, at, offset, target, to):
    """target[to:+16] = source[at:+16] + offset."""
    signature = types.void(source, types.int64, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = _vector(kinds[0].dtype, LANES)
        values = builder.load(_pointer(context, builder, kinds[0], args[0], args[1], vector), align=4)
        offset = _spread(builder, builder.trunc(args[2], vector.element))
        place = _pointer(context, builder, kinds[3], args[3], args[4], vector)
        builder.store(builder.add(values, offset), place, align=4)
        return context.get_dummy_value()

    return signature, codegen


def _spread(builder, scalar):
    """A vector of 16 times the scalar."""
    vector = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    for k in range(LANES):
        vector = builder.insert_element(vector, scalar, ir.IntType(32)(k))
    return vector


@intrinsic
def _scaled(typing, constant, start, gain, channel, total, inside):
    """total[inside:+16] = constant[start:+16] + gain[channel:+16] * total[inside:+16]."""
    signature = types.void(constant, types.int64, gain, types.int64, total, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = _vector(kinds[0].dtype, LANES)
        fixed, factor, place = (
            _pointer(context, builder, kinds[k], args[k], args[k + 1], vector) for k in (0, 2, 4)
        )
        fixed, factor, value = (builder.load(p, align=4) for p in (fixed, factor, place))
        multiply = builder.fmul if kinds[0].dtype == types.float32 else builder.mul
        builder.store(_add(builder, fixed, multiply(factor, value)), place, align=4)
        return context.get_dummy_value()

    return signature, codegen


def _make_fire(leaky: bool):
    """``fire(membranes, at, drive, start, level, threshold, channel, leak)``: one step of 16 neurons, as bits.

    v = v + drive (with a leak: leak * v + drive), a spike where v > level, and minus the threshold there.
    """

    @intrinsic
    def fire(typing, membranes, at, drive, start, level, threshold, channel, leak):
        signature = types.uint16(
            membranes, types.int64, drive, types.int64, level, threshold, types.int64, types.float32
        )

        def codegen(context, builder, signature, args):
            kinds = signature.args
            vector = _vector(kinds[0].dtype, LANES)
            floating = kinds[0].dtype == types.float32
            places = [
                _pointer(context, builder, kinds[k], args[k], args[at], vector)
                for k, at in ((0, 1), (2, 3), (4, 6), (5, 6))
            ]
            v, step, above, theta = (builder.load(place, align=4) for place in places)
            if leaky and floating:
                v = builder.fmul(v, _spread(builder, args[7]))
            v = _add(builder, v, step)
            fired = builder.fcmp_ordered(">", v, above) if floating else builder.icmp_signed(">", v, above)
            reset = builder.fsub(v, theta) if floating else builder.sub(v, theta)
            builder.store(builder.select(fired, reset, v), places[0], align=4)
            return builder.bitcast(fired, ir.IntType(16))

        return signature, codegen

    return fire


_fire, _fire_leaky = _make_fire(False), _make_fire(True)


@intrinsic
def lowest_bit(typing, word):
    """Number of the lowest bit that is set (32 where none is)."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.uint32(types.uint32), codegen


@intrinsic
def _bit_count(typing, word):
    """How many bits are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint32(types.uint32), codegen


def compiled(function: Callable) -> Any:
    return keep_loop(numba.njit(nogil=True, error_model="numpy")(function))


_inline = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@_inline
def _add_rows(weights, block, rows, first, last, total):
    width = weights.shape[2]
    if width == 16:
        _acc16(weights, block, rows, first, last, total)
    elif width == 32:
        _acc32(weights, block, rows, first, last, total)
    elif width == 48:
        _acc48(weights, block, rows, first, last, total)
    elif width == 64:
        _acc64(weights, block, rows, first, last, total)
    elif width == 80:
        _acc80(weights, block, rows, first, last, total)
    elif width == 96:
        _acc96(weights, block, rows, first, last, total)
    elif width == 112:
        _acc112(weights, block, rows, first, last, total)
    else:
        _acc128(weights, block, rows, first, last, total)


@_inline
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
            _copy_moved(rows, at, offset, seen, count + at - start)
        count += stop - start
    total[:] = 0
    for first in range(0, count, limit):
        _add_rows(weights, block, seen, first, min(first + limit, count), total)
    return count


@_inline
def _fire_row(flat, at, drive, start, level, threshold, base, leak, out, word, count):
    """One step of ``count`` neighbouring neurons, whose first is channel ``base``."""
    for j in range(0, count, LANES):
        if leak == 1:
            out[word + j // LANES] = _fire(flat, at + j, drive, start + j, level, threshold, base + j, leak)
        else:
            out[word + j // LANES] = _fire_leaky(flat, at + j, drive, start + j, level, threshold, base + j, leak)


@compiled
def spiking_layer(weights, rows, starts, spans, limits, gains, constant, level, threshold, leak, membranes, bits):
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
    additions = 0
    for block in range(weights[0].shape[0]):
        base = block * width
        for i in range(images):
            for t in range(steps):
                moment = i * steps + t
                for position in range(positions):
                    at = (i * positions + position) * channels + base
                    word = (moment * positions + position) * words + base // LANES
                    source, inside = fixed, (at if len(constant) > 1 else position * channels + base)
                    for edge in range(len(weights)):
                        origin = moment * starts[edge].shape[2]
                        one = weights[edge], rows[edge], starts[edge].reshape(-1), spans[edge], limits[edge]
                        additions += width * _sum_rows(one, block, origin, position, seen, total)
                        for j in range(0, width, LANES):
                            _scaled(source, inside + j, gains[edge], base + j, total, j)
                        if len(weights) > 1:
                            drive[:] = total
                            source, inside = drive, 0
                    _fire_row(flat, at, total, 0, level, threshold, base, leak, out, word, width)
    return additions


@compiled
def grouped_layer(weights, targets, rows, starts, spans, gain, constant, level, threshold, leak, membranes, bits):
    """``spiking_layer`` with one edge whose rows of ``weights`` (rows, width) reach ``width`` channels each.

    ``targets`` (rows,) says from which channel on; the other arrays are those of the one edge.
    """
    images, steps, height, columns, words = bits.shape
    width, positions, channels = weights.shape[1], height * columns, membranes.shape[3]
    total, additions = np.zeros(channels, membranes.dtype), 0
    flat, fixed, out, first = membranes.reshape(-1), constant.reshape(-1), bits.reshape(-1), starts.reshape(-1)
    for i in range(images):
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
                at = (i * positions + position) * channels
                inside = at if len(constant) > 1 else position * channels
                word = (moment * positions + position) * words
                for j in range(0, channels, LANES):
                    _scaled(fixed, inside + j, gain, j, total, j)
                _fire_row(flat, at, total, 0, level, threshold, 0, leak, out, word, channels)
    return additions


@compiled
def constant_layer(current, level, threshold, leak, membranes, bits):
    """Simulate a layer that only a constant current (n or 1, H, W, C) drives."""
    images, steps, height, columns, words = bits.shape
    channels = membranes.shape[3]
    neurons = height * columns * channels
    flat, source, out = membranes.reshape(-1), current.reshape(-1), bits.reshape(-1)
    for i in range(images):
        for t in range(steps):
            for position in range(height * columns):
                word = ((i * steps + t) * height * columns + position) * words
                at = i * neurons + position * channels
                inside = at if len(current) > 1 else position * channels
                _fire_row(flat, at, source, inside, level, threshold, 0, leak, out, word, channels)


@compiled
def readout(weights, rows, starts, spans, limits, gains, constant, scores, curve):
    """Add up the drive of the last layer: ``scores`` (n, C) are advanced, ``curve`` (n, T, C) holds each step."""
    images, steps, _ = curve.shape
    width = weights[0].shape[2]
    total = np.zeros(width, scores.dtype)
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
                drive = fixed[base : base + width].copy()
                for edge in range(len(weights)):
                    one = weights[edge], rows[edge], starts[edge].reshape(-1), spans[edge], limits[edge]
                    origin = (i * steps + t) * starts[edge].shape[2]
                    additions += width * _sum_rows(one, block, origin, 0, seen, total)
                    for j in range(0, width, LANES):
                        _scaled(drive, j, gains[edge], base + j, total, j)
                    drive[:] = total
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
                    spikes += np.int64(_bit_count(out[word]))
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
                count = np.int64(_bit_count(left))
                # most words hold few spikes: four are written without asking, what is too much is overwritten
                for start in range(0, max(count, 1), 4):
                    for k in range(4):
                        rows[end + start + k] = first + np.int32(lowest_bit(left))
                        left &= left - np.uint32(1)
                end += count
