"""Vector instructions that Numba's own loops do not reach, written as LLVM: the innermost loops of ``kernels``."""

# Numba gives an intrinsic its first parameter (the typing context) itself, which pyright takes for missing:
# pyright: reportCallIssue=false

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numba.np.numpy_support import as_dtype

from jaxsnn.simulation.events.lowering import paired

LANES = 16
"""Channels of one vector; widths of blocks are multiples of it, up to 128 (32 for int8)."""

INDEX = ir.IntType(64)


def pointer_to(context, builder, kind, array, offset, element=None):
    """Pointer to ``array[offset]`` in C order, or to a vector that starts there."""
    pointer = builder.gep(make_array(kind)(context, builder, array).data, [offset])
    return pointer if element is None else builder.bitcast(pointer, element.as_pointer())


def vector_of(dtype: types.Type, lanes: int) -> ir.VectorType:
    scalar = ir.FloatType() if dtype == types.float32 else ir.IntType(8 * as_dtype(dtype).itemsize)
    return ir.VectorType(scalar, lanes)


def plus(builder, one, two):
    return builder.fadd(one, two) if isinstance(one.type.element, ir.FloatType) else builder.add(one, two)


def loop(builder, first, last, carried):
    """Open a loop with an index from ``first`` to below ``last`` and carried values; returns what closes it."""
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INDEX)
    index.add_incoming(first, before)
    values = [builder.phi(value.type) for value in carried]
    for phi, value in zip(values, carried):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, last), body, after)
    builder.position_at_end(body)

    def close(results):
        end = builder.block
        index.add_incoming(builder.add(index, INDEX(1)), end)
        for phi, value in zip(values, results):
            phi.add_incoming(value, end)
        # copies of the body would need a second loop for the turns that are left over, and a guess where it ends
        once = builder.module.add_metadata(["llvm.loop.unroll.disable"])
        itself = builder.module.add_metadata([once, str(id(index))])
        itself.operands = (itself, once)
        builder.branch(head).set_metadata("llvm.loop", itself)
        builder.position_at_end(after)
        return values

    return index, values, close


def _make_accumulate(width: int):
    """``accumulate(weights, block, rows, first, last, total, inside, kept)`` for blocks of ``width`` channels.

    total[inside:+width] = sum of weights[block, rows[i]] over first <= i < last, plus what was there if ``kept``.
    int8 and int16 are summed in int16, so the caller must not pass more rows than can be added without overflow.

    Of a pair of channels, low + 128 + 256 * high, the pairs are summed, and what is left of each without its low
    byte: three instructions for 64 channels instead of four. What overflows 16 bits on the way cancels out.
    """

    @intrinsic
    def accumulate(typing, weights, block, rows, first, last, total, inside, kept):
        whole = types.int64
        signature = types.void(weights, whole, rows, whole, whole, total, whole, types.boolean)

        def codegen(context, builder, signature, args):
            kinds = signature.args
            integer, pairs = kinds[0].dtype != types.float32, paired(as_dtype(kinds[0].dtype), width)
            lanes = 2 * LANES if integer and width % (2 * LANES) == 0 else LANES
            narrow = integer and kinds[0].dtype != types.int32
            summed = vector_of(types.int16 if narrow else kinds[0].dtype, lanes)
            stored = summed if pairs else vector_of(kinds[0].dtype, lanes)
            reads = width // lanes // (2 if pairs else 1)
            byte = ir.Constant(summed, [8] * lanes) if pairs else None
            per_block = builder.extract_value(make_array(kinds[0])(context, builder, args[0]).shape, 1)
            origin = builder.mul(args[1], per_block)
            zeros = [ir.Constant(summed, None)] * (width // lanes)
            spike, sums, close = loop(builder, args[3], args[4], zeros)
            row = builder.sext(builder.load(pointer_to(context, builder, kinds[2], args[2], spike)), INDEX)
            row = builder.mul(builder.add(origin, row), INDEX(width))
            terms = []
            for k in range(reads):
                place = builder.add(row, INDEX(k * width // reads))
                read = builder.load(pointer_to(context, builder, kinds[0], args[0], place, stored), align=1)
                if pairs:
                    terms += [read, builder.ashr(read, byte)]
                else:
                    terms.append(read if stored == summed else builder.sext(read, summed))
            sums = close([plus(builder, value, term) for value, term in zip(sums, terms)])
            if pairs:
                count = builder.trunc(builder.sub(args[4], args[3]), summed.element)
                raised = spread(builder, builder.mul(count, summed.element(128)), lanes)
                for k in range(0, len(sums), 2):
                    sums[k] = builder.sub(builder.sub(sums[k], builder.shl(sums[k + 1], byte)), raised)
            wide = vector_of(kinds[5].dtype, lanes)
            for k, value in enumerate(sums):
                place = builder.add(args[6], INDEX(k * lanes))
                place = pointer_to(context, builder, kinds[5], args[5], place, wide)
                value = value if summed == wide else builder.sext(value, wide)
                before = builder.select(args[7], builder.load(place, align=4), ir.Constant(wide, None))
                builder.store(plus(builder, before, value), place, align=4)
            return context.get_dummy_value()

        return signature, codegen

    return accumulate


accumulate_16, accumulate_32, accumulate_48, accumulate_64 = map(_make_accumulate, (16, 32, 48, 64))
accumulate_80, accumulate_96, accumulate_112, accumulate_128 = map(_make_accumulate, (80, 96, 112, 128))
accumulate_256 = _make_accumulate(256)


@intrinsic
def copy(typing, source, at, target, to):
    """target[to:+16] = source[at:+16]."""
    signature = types.void(source, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = vector_of(kinds[0].dtype, LANES)
        values = builder.load(pointer_to(context, builder, kinds[0], args[0], args[1], vector), align=4)
        builder.store(values, pointer_to(context, builder, kinds[2], args[2], args[3], vector), align=4)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def add(typing, one, at, two, start, target, to):
    """target[to:+16] = one[at:+16] + two[start:+16]."""
    signature = types.void(one, types.int64, two, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = vector_of(kinds[0].dtype, LANES)
        places = [pointer_to(context, builder, kinds[k], args[k], args[k + 1], vector) for k in (0, 2, 4)]
        first, second = (builder.load(place, align=4) for place in places[:2])
        builder.store(plus(builder, first, second), places[2], align=4)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_moved(typing, source, at, offset, target, to):
    """target[to:+16] = source[at:+16] + offset."""
    signature = types.void(source, types.int64, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = vector_of(kinds[0].dtype, LANES)
        values = builder.load(pointer_to(context, builder, kinds[0], args[0], args[1], vector), align=4)
        offset = spread(builder, builder.trunc(args[2], vector.element))
        place = pointer_to(context, builder, kinds[3], args[3], args[4], vector)
        builder.store(builder.add(values, offset), place, align=4)
        return context.get_dummy_value()

    return signature, codegen


def spread(builder, scalar, lanes=LANES):
    """A vector of as many times the scalar as there are lanes."""
    vector = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    for k in range(lanes):
        vector = builder.insert_element(vector, scalar, ir.IntType(32)(k))
    return vector


@intrinsic
def scaled(typing, constant, start, gain, channel, total, inside):
    """total[inside:+16] = constant[start:+16] + gain[channel:+16] * total[inside:+16]."""
    signature = types.void(constant, types.int64, gain, types.int64, total, types.int64)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        vector = vector_of(kinds[0].dtype, LANES)
        fixed, factor, place = (
            pointer_to(context, builder, kinds[k], args[k], args[k + 1], vector) for k in (0, 2, 4)
        )
        fixed, factor, value = (builder.load(p, align=4) for p in (fixed, factor, place))
        multiply = builder.fmul if kinds[0].dtype == types.float32 else builder.mul
        builder.store(plus(builder, fixed, multiply(factor, value)), place, align=4)
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
            vector = vector_of(kinds[0].dtype, LANES)
            floating = kinds[0].dtype == types.float32
            places = [
                pointer_to(context, builder, kinds[k], args[k], args[at], vector)
                for k, at in ((0, 1), (2, 3), (4, 6), (5, 6))
            ]
            v, step, above, theta = (builder.load(place, align=4) for place in places)
            if leaky and floating:
                v = builder.fmul(v, spread(builder, args[7]))
            v = plus(builder, v, step)
            fired = builder.fcmp_ordered(">", v, above) if floating else builder.icmp_signed(">", v, above)
            reset = builder.fsub(v, theta) if floating else builder.sub(v, theta)
            builder.store(builder.select(fired, reset, v), places[0], align=4)
            return builder.bitcast(fired, ir.IntType(16))

        return signature, codegen

    return fire


fire, fire_leaky = _make_fire(False), _make_fire(True)


@intrinsic
def lowest_bit(typing, word):
    """Number of the lowest bit that is set (32 where none is)."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.uint32(types.uint32), codegen


@intrinsic
def bit_count(typing, word):
    """How many bits are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint32(types.uint32), codegen
