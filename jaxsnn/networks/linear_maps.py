"""The linear maps of a network and how they are lowered to XLA.

Every lowering computes the same function: exact in real arithmetic, so bit for bit where the sums are exact.
Which one is fastest depends on the shape. Measured on two Zen 4 cores, microseconds per image, forward:
3x3 convolution and pool at 32x32, 3 to 32 channels: 156 plain, 29 folded; at 2x2, 128 to 128 channels: 77 as a
convolution, 4 as a matrix product.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.networks.description import Arrays, AvgPool, Conv, Dense, MaxPool, Op, output_shape
from jaxsnn.networks.taps import Taps

LinearMap = Callable[[jax.Array], jax.Array]


DIMENSIONS = ("NHWC", "HWIO", "NHWC")


MATRIX_POSITIONS = 32
"""A convolution becomes one matrix product when input times output positions are at most this many.

At 64 (3x3 on 4x4 and a pool; 80 images, one Zen 4 core) as a matrix and as a convolution: 16 channels 0.05 ms
both, 64 0.60 and 0.30, 512 46 and 14.
"""


TRAINED_POSITIONS = 16
"""The same where kernels change at every step, so that the matrix and its gradient are made anew each time."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | None = None) -> jax.Array:
    """Convolution of (N, H, W, C) with a square (k, k, C, F); zero padding k // 2 unless given.

    Its gradient on a CPU is written as two plain convolutions: those that XLA derives itself are in a layout for
    which it has no fast code inside a loop (8x8, 48 to 64 channels, 32 images: 112 ms a step instead of 2). At a
    stride its input's is a product with sums of shifted windows: a convolution would mostly multiply the zeros
    between outputs (128 images on a core, 64 to 64 channels with 16x16 outputs: 37 ms instead of 90; 512 to 512
    with 2x2: 36 ms instead of 3 s).
    """
    return _undecorated_conv(x, kernel, stride, padding)


def _undecorated_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int | None) -> jax.Array:
    """``conv`` with the gradient that XLA derives."""
    pads = _pads(kernel, padding)
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=DIMENSIONS)


def _pads(kernel: jax.Array, padding: int | None) -> list[tuple[int, int]]:
    """Zeros before and after both sides of the image: ``padding``, or half of the kernel."""
    pad = kernel.shape[0] // 2 if padding is None else padding
    return [(pad, pad), (pad, pad)]


def _conv_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(
    stride: int, padding: int | None, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def derived(x, kernel, cotangent):
        return jax.vjp(lambda x, kernel: _undecorated_conv(x, kernel, stride, padding), x, kernel)[1](cotangent)

    def plain(x, kernel, cotangent):
        size, pad = kernel.shape[0], kernel.shape[0] // 2 if padding is None else padding
        # rows and columns at the end that no output reads, where the stride does not divide
        rest = [(n + 2 * pad - size) % stride for n in x.shape[1:3]]
        d_kernel = lax.conv_general_dilated(  # channels are the batch, images what is summed over
            x.transpose(3, 1, 2, 0),
            cotangent.transpose(1, 2, 0, 3),
            (1, 1),
            [(pad, pad - r) for r in rest],
            rhs_dilation=(stride, stride),
            dimension_numbers=DIMENSIONS,
        )
        if stride > 1:
            return _input_gradient(kernel, cotangent, x.shape, stride, pad), d_kernel.transpose(1, 2, 0, 3)
        d_x = lax.conv_general_dilated(
            cotangent,
            kernel[::-1, ::-1].transpose(0, 1, 3, 2),
            (1, 1),
            [(size - 1 - pad, size - 1 - pad)] * 2,
            dimension_numbers=DIMENSIONS,
        )
        return d_x, d_kernel.transpose(1, 2, 0, 3)

    return lax.platform_dependent(*saved, cotangent, cpu=plain, default=derived)


conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(
    kernel: jax.Array, cotangent: jax.Array, shape: tuple[int, ...], stride: int, pad: int
) -> jax.Array:
    """Gradient in an input of ``shape`` (N, H, W, C): a product per output and tap, added where the tap read."""
    size, _, channels, features = kernel.shape
    exact = jnp.promote_types(kernel.dtype, jnp.float32)
    taps = jnp.matmul(cotangent, kernel.reshape(-1, features).T, preferred_element_type=exact)
    taps = taps.reshape(*cotangent.shape[:3], size, size, channels)
    spans = [stride * (n - 1) + 1 for n in cotangent.shape[1:3]]
    padded = [n + 2 * pad for n in shape[1:3]]

    def placed(i: int, j: int) -> jax.Array:
        (low_h, high_h), (low_w, high_w) = ((k, n - k - s) for k, n, s in zip((i, j), padded, spans))
        config = ((0, 0, 0), (low_h, high_h, stride - 1), (low_w, high_w, stride - 1), (0, 0, 0))
        return lax.pad(taps[:, :, :, i, j], jnp.zeros((), taps.dtype), config)

    total = functools.reduce(lax.add, (placed(i, j) for i in range(size) for j in range(size)))
    return total[:, pad : pad + shape[1], pad : pad + shape[2]].astype(kernel.dtype)


def convolve(x: jax.Array, kernel: jax.Array, op: Conv, sums: jax.typing.DTypeLike | None = None) -> jax.Array:
    """A convolution of (N, H, W, C) in the type of the kernel; with ``sums`` its sums are of that type, and
    exact, so without TF32, for float32.

    A depthwise one is a sum of shifted images, for which a CPU is 5 to 30 times as fast as with XLA's code for
    groups (3x3 on 14x14x96, 16 images: 1.1 ms instead of 19).
    """
    taps = op.taps
    if op.groups == x.shape[-1]:
        exact = jnp.promote_types(kernel.dtype, jnp.float32) if sums is None else sums
        return _depthwise(x.astype(kernel.dtype).astype(exact), kernel.astype(exact), op).astype(
            sums or kernel.dtype
        )
    if kernel.dtype == jnp.int8:  # XLA on a CPU has no fast code for such a convolution
        columns = jnp.concatenate(_shifted(x.astype(kernel.dtype), taps), -1)
        return _product(columns, kernel.reshape(-1, op.features), sums)
    square = isinstance(op.kernel, int) and isinstance(op.stride, int) and not isinstance(op.padding, tuple)
    if sums is None and square and op.dilation == op.groups == 1:
        return conv(x, kernel, op.stride, op.padding)
    return lax.conv_general_dilated(
        x.astype(kernel.dtype),
        kernel,
        taps.strides,
        taps.pads,
        rhs_dilation=taps.dilation,
        dimension_numbers=DIMENSIONS,
        feature_group_count=op.groups,
        precision=None if sums is None else lax.Precision.HIGHEST,
        preferred_element_type=sums,
    )


def _shifted(x: jax.Array, taps: Taps) -> list[jax.Array]:
    """What each tap of a convolution reads of (N, H, W, C): (N, H', W', C), in the order of its kernel."""
    count, *target = len(x), *taps.target((x.shape[1], x.shape[2]))
    x = jnp.pad(x, ((0, 0), *taps.pads, (0, 0)))

    def seen(i: int, j: int) -> jax.Array:
        starts = [k * apart for k, apart in zip((i, j), taps.dilation)]
        ends = [start + step * (n - 1) + 1 for start, step, n in zip(starts, taps.strides, target)]
        return lax.slice(x, (0, *starts, 0), (count, *ends, x.shape[-1]), (1, *taps.strides, 1))

    return [seen(i, j) for i in range(taps.sides[0]) for j in range(taps.sides[1])]


def _depthwise(x: jax.Array, kernel: jax.Array, op: Conv) -> jax.Array:
    """A convolution with one input channel a group."""
    if op.features > op.groups:
        x = jnp.repeat(x, op.features // op.groups, -1)
    parts = zip(_shifted(x, op.taps), kernel.reshape(-1, op.features))
    return functools.reduce(lax.add, (part * weights for part, weights in parts))


def avg_pool(x: jax.Array, op: AvgPool, whole: bool = False) -> jax.Array:
    """An average pool of (N, H, W, C); with ``whole``, times ``pool_unit``, by whole numbers alone."""
    n, h, w, c = x.shape
    taps = op.taps
    high, wide = taps.sides
    if taps.strides == taps.sides and op.padding == 0:
        rows, columns = h // high, w // wide
        squares = x[:, : rows * high, : columns * wide].reshape(n, rows, high, columns, wide, c)
        return squares.sum((2, 4)) if whole else squares.mean((2, 4))
    pads = ((0, 0), *taps.pads, (0, 0))
    sums = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, *taps.sides, 1), (1, *taps.strides, 1), pads)
    counts = pool_counts(op, (h, w))[..., None]
    return (
        sums * (np.lcm.reduce(counts.ravel()) // counts).astype(x.dtype)
        if whole
        else sums / counts.astype(x.dtype)
    )


def max_pool(x: jax.Array, op: MaxPool) -> jax.Array:
    """The largest value of each window of (N, H, W, C)."""
    n, h, w, c = x.shape
    taps = op.taps
    if taps.strides == taps.sides and op.padding == 0:
        (high, wide), rows, columns = taps.sides, h // taps.sides[0], w // taps.sides[1]
        return x[:, : rows * high, : columns * wide].reshape(n, rows, high, columns, wide, c).max((2, 4))
    pads = ((0, 0), *taps.pads, (0, 0))
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype), lax.max, (1, *taps.sides, 1), (1, *taps.strides, 1), pads
    )


def pool_counts(op: AvgPool, sides: tuple[int, int]) -> np.ndarray:
    """How many positions each output of a pool on an input of ``sides`` averages, int64 (H', W')."""
    taps = op.taps
    if op.count_padding:
        return np.full(taps.target(sides), math.prod(taps.sides))
    return np.outer(*(tap_table(taps, axis, side).sum((0, 2)) for axis, side in enumerate(sides)))


def pool_unit(ops: Sequence[Op], shape: tuple[int, ...]) -> int:
    """What the result of a chain of ops on ``shape`` is multiplied with so that its pools divide nothing."""
    unit = 1
    for op in ops:
        if isinstance(op, AvgPool):
            unit *= math.lcm(*map(int, pool_counts(op, (shape[0], shape[1])).ravel()))
        shape = output_shape(op, shape)
    return unit


def tap_table(taps: Taps, axis: int, side: int) -> np.ndarray:
    """Which tap joins an input and an output position along one axis: bool (side, outputs, taps)."""
    outputs = taps.target((side, side))[axis]
    first = np.arange(outputs) * taps.strides[axis] - taps.pads[axis][0]
    read = first[:, None] + np.arange(taps.sides[axis]) * taps.dilation[axis]
    return np.arange(side)[:, None, None] == read


def conv_pool(
    x: jax.Array, kernel: jax.Array, op: Conv, sums: jax.typing.DTypeLike | None, whole: bool
) -> jax.Array:
    """A convolution and the 2x2 pool after it without computing the outputs that the pool would average.

    avgpool2(W * x) = 1/4 (stride-2 convolution, with W, of the 2x2 box sums of x).
    """
    pads = [(0, 0), *op.taps.pads, (0, 0)]
    box = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), pads)
    return convolve(box, kernel if whole else kernel / 4, replace(op, stride=2, padding=0), sums)


def conv_matrix(
    kernel: jax.Array, op: Conv, shape: tuple[int, ...], pool: AvgPool | None = None, whole: bool = False
) -> jax.Array:
    """The convolution and the pool after it on inputs of ``shape`` (H, W, C), as one (H*W*C, outputs) matrix.

    Without groups. ``whole`` as in ``avg_pool``.
    """
    height, width, features = target = output_shape(op, shape)
    # the tap that joins an input and an output position; the last is a row of zeros for those that do not meet
    rows, columns = (
        np.where(table.any(2), table.argmax(2), table.shape[2])
        for table in (tap_table(op.taps, axis, shape[axis]) for axis in (0, 1))
    )
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    matrix = padded[rows[:, None, :, None], columns[None, :, None, :]]  # H, W, H', W', C, F
    matrix = matrix.transpose(0, 1, 4, 2, 3, 5)
    if pool is not None:
        matrix = avg_pool(matrix.reshape(-1, height, width, features), pool, whole)
        target = output_shape(pool, target)
    return matrix.reshape(math.prod(shape), math.prod(target))


def linear_map(
    ops: Sequence[Op],
    params: Arrays,
    shape: tuple[int, ...],
    other: Callable[[Op, jax.Array], jax.Array] | None = None,
    sums: jax.typing.DTypeLike | None = None,
    trained: bool = False,
    whole: bool = False,
) -> LinearMap:
    """The ops of one edge as a function of a batch (N, *shape), with what does not depend on it precomputed.

    A max pool is the ANN's; for spikes see ``jaxsnn.networks.senders``.

    Args:
        params: arrays by name, ``<op>.kernel`` and ``<op>.bias``; biases that are not there are left out.
        other: ``other(op, x)`` is the value of an op that is not linear (norms, dropout); without it they are
            left out, as is right once norms are folded.
        sums: type of the sums where the kernels are of another type, into which the input is then turned: exact
            for spikes.
        trained: whether the kernels change from call to call, which makes precomputing more expensive.
        whole: pools divide nothing, so that whole numbers stay whole: the result is ``pool_unit`` times the value.
    """
    steps: list[LinearMap] = []
    rest = list(ops)
    while rest:
        op = rest.pop(0)
        target = output_shape(op, shape)
        if isinstance(op, Conv | Dense):
            kernel = params[f"{op.name}.kernel"]
            bias = params.get(f"{op.name}.bias") if op.bias else None
            if isinstance(op, Dense):
                steps.append(lambda x, kernel=kernel: _product(x.reshape(len(x), -1), kernel, sums))
            else:
                pool = take_pool(rest) if bias is None or keeps_constants(rest[:1]) else None
                chosen = lowering(op, pool, shape, trained)
                steps.append(_conv_step(chosen, op, kernel, pool, shape, sums, whole))
                target = target if pool is None else output_shape(pool, target)
            if bias is not None:
                steps.append(lambda x, bias=bias: x + bias)
        elif isinstance(op, AvgPool):
            steps.append(lambda x, op=op: avg_pool(x, op, whole))
        elif isinstance(op, MaxPool):
            steps.append(lambda x, op=op: max_pool(x, op))
        elif other is not None:
            steps.append(lambda x, op=op: other(op, x))
        shape = target

    def apply(x: jax.Array) -> jax.Array:
        for step in steps:
            x = step(x)
        return x

    return apply


def take_pool(rest: list[Op]) -> AvgPool | None:
    """Take an average pool off the front of ``rest``, if there is one."""
    if not rest or not isinstance(rest[0], AvgPool):
        return None
    pool = rest[0]
    del rest[0]
    return pool


def keeps_constants(ops: Sequence[Op]) -> bool:
    """Whether the pools among ``ops`` leave a constant as it is; zeros that count lessen it at the border."""
    return not any(isinstance(op, AvgPool) and op.padding != 0 and op.count_padding for op in ops)


def _product(x: jax.Array, matrix: np.ndarray | jax.Array, sums: jax.typing.DTypeLike | None) -> jax.Array:
    if sums is None:
        return x @ matrix
    return jnp.matmul(x.astype(matrix.dtype), matrix, precision=lax.Precision.HIGHEST, preferred_element_type=sums)


def lowering(op: Conv, pool: AvgPool | None, shape: tuple[int, ...], trained: bool = False) -> str:
    """How a convolution on inputs of ``shape``, with the pool after it if there is one, is computed.

    ``trained`` as in ``linear_map``.
    """
    target = output_shape(op, shape)
    height, width, _ = target if pool is None else output_shape(pool, target)
    positions = shape[0] * shape[1] * height * width
    if op.groups == 1 and positions <= (TRAINED_POSITIONS if trained else MATRIX_POSITIONS):
        return "matrix product"
    if pool == AvgPool(2) and op.plain and op.stride == 1 and op.taps.sides[0] % 2:
        return "box sums, convolution with stride 2"
    return "convolution, pool" if pool else "convolution"


def _conv_step(
    chosen: str, op: Conv, kernel, pool: AvgPool | None, shape: tuple[int, ...], sums, whole: bool
) -> LinearMap:
    if chosen == "matrix product":
        if pool is not None and kernel.dtype == jnp.int8:  # the pool adds weights to more than int8 holds
            kernel, sums = kernel.astype(jnp.float32), jnp.float32
        matrix = conv_matrix(kernel, op, shape, pool, whole)
        target = output_shape(op, shape) if pool is None else output_shape(pool, output_shape(op, shape))
        return lambda x: _product(x.reshape(len(x), -1), matrix, sums).reshape(len(x), *target)
    if pool is None:
        return lambda x: convolve(x, kernel, op, sums)
    if chosen == "box sums, convolution with stride 2":
        return lambda x: conv_pool(x, kernel, op, sums, whole)
    return lambda x: avg_pool(convolve(x, kernel, op, sums), pool, whole)
