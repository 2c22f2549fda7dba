"""Integer layers over four steps at once: neurons that spike in the same steps add their weights once (Numba).

In four steps a neuron spikes in one of 15 patterns, or not at all. The rows of weights of all neurons with one
pattern are summed, and the drive of a step is the sum over the patterns that hold it: exact in integers. A neuron
that spikes k times costs one row instead of k: 57 to 78 rows for 100 in the layers of VGG15 at T = 4, 8 and 42. A
membrane is read and written once in four steps. Arrays are those of ``kernels``. Floats go step by step: how their
sums are rounded would depend on where four steps begin.
"""

# Numba gives an intrinsic its first parameter (the typing context) itself, which pyright takes for missing:
# pyright: reportCallIssue=false

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jaxsnn.simulation.events.kernels import add_rows, compiled, inline, start_row, strides_of
from jaxsnn.simulation.events.lowering import STEPS
from jaxsnn.simulation.events.vectors import INDEX, LANES, bit_count, loop, pointer_to, spread, vector_of

PATTERNS = 1 << STEPS

_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1
PLACES = np.argsort(1 - _BITS, 1, kind="stable").astype(np.uint8)
"""The numbers of the bits that are set in each byte, from the lowest on, and then the others; (256, 8)."""


@intrinsic
def keep_patterns(typing, first, second, third, fourth, patterns, at):
    """The patterns of 16 neurons, from the bits of each step (uint16), to ``patterns[at:]`` (uint8); returns which
    of them are not zero (uint16)."""
    word = types.uint16
    signature = types.uint16(word, word, word, word, patterns, types.int64)

    def codegen(context, builder, signature, args):
        flags, lanes = ir.VectorType(ir.IntType(1), LANES), ir.VectorType(ir.IntType(8), LANES)
        nothing = ir.Constant(lanes, None)
        found, some = nothing, ir.IntType(16)(0)
        for step, spikes in enumerate(args[:STEPS]):
            bit = ir.Constant(lanes, [1 << step] * LANES)
            found = builder.or_(found, builder.select(builder.bitcast(spikes, flags), bit, nothing))
            some = builder.or_(some, spikes)
        builder.store(found, pointer_to(context, builder, signature.args[4], args[4], args[5], lanes), align=1)
        return some

    return signature, codegen


@intrinsic
def keep_places(typing, places, byte, base, found, at):
    """``found[at:+8]`` = ``base`` + ``places[byte]``."""
    signature = types.void(places, types.int64, types.int32, found, types.int64)

    def codegen(context, builder, signature, args):
        kinds, lanes = signature.args, 8
        wide = ir.VectorType(ir.IntType(32), lanes)
        row = builder.mul(args[1], INDEX(lanes))
        read = pointer_to(context, builder, kinds[0], args[0], row, ir.VectorType(ir.IntType(8), lanes))
        numbers = builder.zext(builder.load(read, align=1), wide)
        place = pointer_to(context, builder, kinds[3], args[3], args[4], wide)
        builder.store(builder.add(numbers, spread(builder, args[2], lanes)), place, align=4)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def see(typing, rows, ends, first, spans, at, ranges, seen, to):
    """Copy the entries of one pattern that an output position sees to ``seen[to:]``, as rows of weights.

    ``spans[at:]`` holds ``ranges`` ranges, and ``ends[first + 16 * position]`` where in ``rows`` the entries of an
    input position start. Returns how many were copied; up to 15 more are written, which mean nothing.
    """
    whole = types.int64
    signature = types.int64(rows, ends, whole, spans, whole, whole, seen, whole)

    def codegen(context, builder, signature, args):
        kinds, entries = signature.args, vector_of(types.int32, LANES)

        def read(array, offset):
            return builder.load(pointer_to(context, builder, kinds[array], args[array], offset))

        def place(position):
            return read(1, builder.add(args[2], builder.mul(position, INDEX(PATTERNS))))

        def copy(source, target, moved):
            values = builder.load(pointer_to(context, builder, kinds[0], args[0], source, entries), align=4)
            place = pointer_to(context, builder, kinds[6], args[6], target, entries)
            builder.store(builder.add(values, moved), place, align=4)

        k, (count,), close = loop(builder, INDEX(0), args[5], [args[7]])
        span = builder.add(args[4], builder.mul(k, INDEX(3)))
        start, stop = (place(read(3, builder.add(span, INDEX(n)))) for n in (0, 1))
        moved = spread(builder, builder.trunc(read(3, builder.add(span, INDEX(2))), ir.IntType(32)))
        length = builder.sub(stop, start)
        copy(start, count, moved)  # most ranges are short
        turns = builder.ashr(builder.add(length, INDEX(LANES - 1)), INDEX(4))
        turn, _, again = loop(builder, INDEX(1), turns, [])
        done = builder.mul(turn, INDEX(LANES))
        copy(builder.add(start, done), builder.add(count, done), moved)
        again([])
        (count,) = close([builder.add(count, length)])
        return builder.sub(count, args[7])

    return signature, codegen


@intrinsic
def fire_steps(typing, membranes, at, constant, start, level, threshold, channel, sums, inside, stride, count):
    """The first ``count`` of four steps of 16 neurons; returns their spikes, 16 bits a step from the lowest on.

    ``sums`` holds the sum of each pattern's rows, ``stride`` numbers apart.
    """
    whole = types.int64
    signature = types.uint64(membranes, whole, constant, whole, level, threshold, whole, sums, whole, whole, whole)

    def codegen(context, builder, signature, args):
        kinds, numbers = signature.args, vector_of(types.int32, LANES)

        def read(array, offset):
            return builder.load(pointer_to(context, builder, kinds[array], args[array], offset, numbers), align=4)

        def drives(sums):
            """Of each step: the patterns with the last one are the upper half, and the others need no such bit."""
            if len(sums) == 2:
                return [sums[1]]
            low, high = sums[: len(sums) // 2], sums[len(sums) // 2 :]
            last = functools.reduce(builder.add, high)
            return [*drives([low[0], *map(builder.add, low[1:], high[1:])]), last]

        places = [builder.add(args[8], builder.mul(args[9], INDEX(pattern))) for pattern in range(1, PATTERNS)]
        fixed, above, theta = read(2, args[3]), read(4, args[6]), read(5, args[6])
        v, spikes = read(0, args[1]), INDEX(0)
        for step, drive in enumerate(drives([None, *(read(7, place) for place in places)])):
            moved = builder.add(v, builder.add(drive, fixed))
            fired = builder.icmp_signed(">", moved, above)
            moved = builder.select(fired, builder.sub(moved, theta), moved)
            v = builder.select(builder.icmp_signed("<", INDEX(step), args[10]), moved, v)
            word = builder.zext(builder.bitcast(fired, ir.IntType(16)), INDEX)
            spikes = builder.or_(spikes, builder.shl(word, INDEX(16 * step)))
        builder.store(v, pointer_to(context, builder, kinds[0], args[0], args[1], numbers), align=4)
        return spikes

    return signature, codegen


@inline
def _aligned(size):
    """Room for int32 numbers that starts on a cache line."""
    room = np.empty(size + LANES, np.int32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + size]


@inline
def _list_patterns(bits, image, step, count, channels, rows, first, ends, to, room):
    """List the spikes of one image in ``count`` steps by pattern: entries x * C + c, ordered by position.

    Pattern k has the places ``rows[first + (k - 1) * H * W * channels:]``; ``ends[to:]`` (H * W + 1, 16) says
    where in ``rows`` those of each position start. ``room`` is (patterns of a position, its channels that spike).
    """
    _, steps, height, columns, words = bits.shape
    flat, stride = bits.reshape(-1), height * columns * words
    at, (patterns, some), nothing = (image * steps + step) * stride, room, np.uint16(0)
    for pattern in range(1, PATTERNS):
        ends[to + pattern] = first + (pattern - 1) * height * columns * channels
    for position in range(height * columns):
        for pattern in range(PATTERNS):
            ends[to + PATTERNS + pattern] = ends[to + pattern]
        to += PATTERNS
        found = 0
        for word in range(words):
            one = flat[at]
            two = flat[at + stride] if count > 1 else nothing
            three = flat[at + 2 * stride] if count > 2 else nothing
            four = flat[at + 3 * stride] if count > 3 else nothing
            at += 1
            spiking = np.uint32(keep_patterns(one, two, three, four, patterns, word * LANES))
            for half in range(0, LANES, 8):
                byte = (spiking >> np.uint32(half)) & np.uint32(255)
                keep_places(PLACES, np.int64(byte), np.int32(word * LANES + half), some, found)
                found += np.int64(bit_count(byte))
        base = np.int32(position % columns * channels)
        for k in range(found):
            place = to + np.int64(patterns[some[k]])
            rows[ends[place]] = base + some[k]
            ends[place] += 1


@inline
def _sum_patterns(weights, block, limit, spans, ranges, position, rows, ends, first, seen, sums):
    """Fill ``sums`` (16 x width) with the rows of weights that an output position sees, by pattern.

    ``ends[first + k::16]`` says where pattern k's neurons of each position start; at most ``limit`` rows are
    summed at once, and ``seen`` is room to work in. Returns the number of rows.
    """
    width, found = weights.shape[2], 0
    for pattern in range(1, PATTERNS):
        count = see(rows, ends, first + pattern, spans, position * 3 * ranges, ranges, seen, 0)
        piece = np.int64(0)
        while piece == 0 or piece < count:
            add_rows(weights, block, seen, piece, min(count, piece + limit), sums, pattern * width, piece > 0)
            piece += limit
        found += count
    return found


@inline
def _fire_patterns(
    membranes, at, constant, source, level, threshold, base, sums, width, count, bits, word, stride
):
    """``count`` steps of the ``width`` neurons of an output position; their spikes to ``bits[word:]``."""
    for j in range(0, width, LANES):
        spikes = fire_steps(
            membranes, at + j, constant, source + j, level, threshold, base + j, sums, j, width, count
        )
        for step in range(count):
            bits[word + j // LANES + step * stride] = np.uint16(spikes >> np.uint64(16 * step) & np.uint64(0xFFFF))


@compiled
def spiking_patterns(
    weights, sent, channels, spans, limits, gains, constant, level, threshold, initial, membranes, bits, listed
):
    """``kernels.spiking_layer`` for integers, ``STEPS`` steps at a time.

    ``sent`` is a tuple with the bits of each edge's sender, ``channels`` (edges,) how many it has, and ``listed``
    how many bytes of spikes may be listed at once.
    """
    images, steps, height, columns, words = bits.shape
    width, positions, padded = weights[0].shape[2], height * columns, membranes.shape[3]
    edges, groups = len(weights), (steps + STEPS - 1) // STEPS
    places, entries, largest, most = np.zeros(edges + 1, np.int64), np.zeros(edges + 1, np.int64), 0, 0
    for edge in range(edges):
        sources = sent[edge].shape[2] * sent[edge].shape[3]
        places[edge + 1] = places[edge] + PATTERNS * (sources + 1)
        entries[edge + 1] = entries[edge] + (PATTERNS - 1) * sources * channels[edge] + LANES
        largest, most = max(largest, weights[edge].shape[1]), max(most, LANES * sent[edge].shape[4])
    at_once = min(images * groups, max(1, listed // (4 * entries[edges])))
    ends, rows = np.empty(at_once * places[edges], np.int64), np.empty(at_once * entries[edges], np.int32)
    seen, room = np.empty(largest + 2 * LANES, np.int32), (np.empty(most, np.uint8), np.empty(most + 8, np.int32))
    sums, more = _aligned(PATTERNS * width), _aligned(PATTERNS * width)
    flat, fixed, out = membranes.reshape(-1), constant.reshape(-1), bits.reshape(-1)
    by_image, by_position = strides_of(constant)
    weights_0, spans_0, ranges_0 = weights[0], spans[0].reshape(-1), spans[0].shape[1]
    additions = 0
    for begin in range(0, images * groups, at_once):
        end = min(begin + at_once, images * groups)
        for moment in range(begin, end):
            image, step = moment // groups, moment % groups * STEPS
            for edge in range(edges):
                first = (moment - begin) * entries[edges] + entries[edge]
                to = (moment - begin) * places[edges] + places[edge]
                count = min(STEPS, steps - step)
                _list_patterns(sent[edge], image, step, count, channels[edge], rows, first, ends, to, room)
        for block in range(weights[0].shape[0]):
            base = block * width
            for moment in range(begin, end):
                image, step = moment // groups, moment % groups * STEPS
                first = (moment - begin) * places[edges]
                for position in range(positions):
                    additions += width * _sum_patterns(
                        weights_0, block, limits[0], spans_0, ranges_0, position, rows, ends, first, seen, sums
                    )
                    if edges > 1:
                        for j in range(width, PATTERNS * width):
                            sums[j] *= gains[0, base + j % width]
                    for edge in range(1, edges):
                        reads, ranges, to = spans[edge].reshape(-1), spans[edge].shape[1], first + places[edge]
                        additions += width * _sum_patterns(
                            weights[edge], block, limits[edge], reads, ranges, position, rows, ends, to, seen, more
                        )
                        for j in range(width, PATTERNS * width):
                            sums[j] += gains[edge, base + j % width] * more[j]
                    at = (image % len(membranes) * positions + position) * padded + base
                    if len(initial) and step == 0:
                        start_row(flat, at, initial, base, width)
                    source = image * by_image + position * by_position + base
                    word = ((image * steps + step) * positions + position) * words + base // LANES
                    count = min(STEPS, steps - step)
                    _fire_patterns(
                        *(flat, at, fixed, source, level, threshold, base, sums, width),
                        *(count, out, word, positions * words),
                    )
    return additions
