"""The linear maps of a network and how they are lowered to XLA.

Every lowering computes the same function: exact in real arithmetic, so bit for bit where the sums are exact.
Which one is fastest depends on the shape. Measured on two Zen 4 cores, microseconds per image, forward:
3x3 convolution and pool at 32x32, 3 to 32 channels: 156 plain, 29 folded; at 2x2, 128 to 128 channels: 77 as a
convolution, 4 as a matrix product.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.networks.description import Arrays, AvgPool, Conv, Dense, Op, output_shape

LinearMap = Callable[[jax.Array], jax.Array]


DIMENSIONS = ("NHWC", "HWIO", "NHWC")


MATRIX_POSITIONS = 64
"""A convolution becomes one matrix product when input times output positions are at most this many."""


TRAINED_POSITIONS = 16
"""The same where kernels change at every step, so that the matrix and its gradient are made anew each time."""


PRODUCT_OUTPUTS = 16
"""A convolution's gradient in its input is a matrix product at a stride and at most this many output positions."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | None = None) -> jax.Array:
    """Convolution of (N, H, W, C) with (k, k, C, F); zero padding k // 2 unless given.

    Its gradient on a CPU is written as two plain convolutions: those that XLA derives itself are in a layout for
    which it has no fast code inside a loop (8x8, 48 to 64 channels, 32 images: 112 ms a step instead of 2). At a
    stride and few positions its input's is a product with sums of shifted windows, for XLA has no fast code there
    either (4x4 followed by a pool, 512 to 512 channels, 128 images: 1.7 s a step instead of 0.04).
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
        if stride > 1 and cotangent.shape[1] * cotangent.shape[2] <= PRODUCT_OUTPUTS:
            return _input_gradient(kernel, cotangent, x.shape, stride, pad), d_kernel.transpose(1, 2, 0, 3)
        d_x = lax.conv_general_dilated(
            cotangent,
            kernel[::-1, ::-1].transpose(0, 1, 3, 2),
            (1, 1),
            [(size - 1 - pad, size - 1 - pad + r) for r in rest],
            lhs_dilation=(stride, stride),
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


def avg_pool(x: jax.Array, window: int) -> jax.Array:
    """Mean over disjoint window x window squares of (N, H, W, C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // window, window, w // window, window, c).mean((2, 4))


def conv_into(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int | None = None,
    sums: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
    """``conv`` in the type of the kernel, with sums of type ``sums``; exact, so without TF32, for float32."""
    return lax.conv_general_dilated(
        x.astype(kernel.dtype),
        kernel,
        (stride, stride),
        _pads(kernel, padding),
        dimension_numbers=DIMENSIONS,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=sums,
    )


def conv_pool(x: jax.Array, kernel: jax.Array, conv: Callable = conv) -> jax.Array:
    """``avg_pool(conv(x, kernel), 2)`` without computing the outputs that the pool would average.

    avgpool2(W * x) = 1/4 (stride-2 convolution, with W, of the 2x2 box sums of x).
    """
    pads = [(0, 0), *_pads(kernel, None), (0, 0)]
    box = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), pads)
    return conv(box, kernel / 4, stride=2, padding=0)


def conv_matrix(kernel: jax.Array, shape: tuple[int, ...], stride: int = 1, pool: int = 1) -> jax.Array:
    """The convolution and the pool after it on inputs of ``shape`` (H, W, C), as one (H*W*C, outputs) matrix."""
    size, _, channels, features = kernel.shape
    height, width, _ = output_shape(Conv("", features, size, stride), shape)
    # the tap that joins an input and an output position; `size` is a row of zeros for those that do not meet
    taps = [np.arange(i)[:, None] - stride * np.arange(o) + size // 2 for i, o in zip(shape, (height, width))]
    rows, columns = (np.where((t >= 0) & (t < size), t, size) for t in taps)
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    matrix = padded[rows[:, None, :, None], columns[None, :, None, :]]  # H, W, H', W', C, F
    matrix = matrix.reshape(*shape[:2], height // pool, pool, width // pool, pool, channels, features).mean((3, 5))
    return matrix.transpose(0, 1, 4, 2, 3, 5).reshape(math.prod(shape), -1)


def linear_map(
    ops: Sequence[Op],
    params: Arrays,
    shape: tuple[int, ...],
    other: Callable[[Op, jax.Array], jax.Array] | None = None,
    sums: jax.typing.DTypeLike | None = None,
    trained: bool = False,
) -> LinearMap:
    """The ops of one edge as a function of a batch (N, *shape), with what does not depend on it precomputed.

    Args:
        params: arrays by name, ``<op>.kernel`` and ``<op>.bias``.
        other: ``other(op, x)`` is the value of an op that is not linear (norms, dropout); without it they are
            left out, as is right once norms are folded.
        sums: type of the sums where the kernels are of another type, into which the input is then turned: exact
            for spikes.
        trained: whether the kernels change from call to call, which makes precomputing more expensive.
    """
    convolve = conv if sums is None else functools.partial(conv_into, sums=sums)
    steps: list[LinearMap] = []
    rest = list(ops)
    while rest:
        op = rest.pop(0)
        target = output_shape(op, shape)
        if isinstance(op, Conv | Dense):
            kernel = params[f"{op.name}.kernel"]
            bias = params.get(f"{op.name}.bias")
            if isinstance(op, Dense):
                steps.append(lambda x, kernel=kernel: _product(x.reshape(len(x), -1), kernel, sums))
            else:
                pool = take_pool(rest)
                if pool > 1:
                    target = output_shape(AvgPool(pool), target)
                chosen = lowering(op, pool, shape, trained)
                steps.append(_conv_step(chosen, op, kernel, pool, shape, target, convolve, sums))
            if bias is not None:
                steps.append(lambda x, bias=bias: x + bias)
        elif isinstance(op, AvgPool):
            steps.append(lambda x, window=op.window: avg_pool(x, window))
        elif other is not None:
            steps.append(lambda x, op=op: other(op, x))
        shape = target

    def apply(x: jax.Array) -> jax.Array:
        for step in steps:
            x = step(x)
        return x

    return apply


def take_pool(rest: list[Op]) -> int:
    """Take an average pool off the front of ``rest``; returns its window, 1 where there is no pool."""
    if rest and isinstance(rest[0], AvgPool):
        window = rest[0].window
        del rest[0]
        return window
    return 1


def _product(x: jax.Array, matrix: np.ndarray | jax.Array, sums: jax.typing.DTypeLike | None) -> jax.Array:
    if sums is None:
        return x @ matrix
    return jnp.matmul(x.astype(matrix.dtype), matrix, precision=lax.Precision.HIGHEST, preferred_element_type=sums)


def lowering(op: Conv, pool: int, shape: tuple[int, ...], trained: bool = False) -> str:
    """How a convolution on inputs of ``shape``, with the pool after it (1: none), is computed.

    ``trained`` as in ``linear_map``.
    """
    target = output_shape(op, shape)
    positions = shape[0] * shape[1] * (target[0] // pool) * (target[1] // pool)
    if positions <= (TRAINED_POSITIONS if trained else MATRIX_POSITIONS):
        return "matrix product"
    if pool == 2 and op.stride == 1 and op.kernel % 2:
        return "box sums, convolution with stride 2"
    return "convolution, pool" if pool > 1 else "convolution"


def _conv_step(
    chosen: str, op: Conv, kernel, pool: int, shape: tuple, target: tuple, conv: Callable, sums
) -> LinearMap:
    match chosen:
        case "matrix product":
            matrix = conv_matrix(kernel, shape, op.stride, pool)
            return lambda x: _product(x.reshape(len(x), -1), matrix, sums).reshape(len(x), *target)
        case "box sums, convolution with stride 2":
            return lambda x: conv_pool(x, kernel, conv)
        case "convolution, pool":
            return lambda x: avg_pool(conv(x, kernel, op.stride), pool)
    return lambda x: conv(x, kernel, op.stride)
