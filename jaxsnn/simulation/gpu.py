"""One layer over several timesteps as one kernel for an NVIDIA GPU: products, membranes and spikes.

XLA has no convolution there that multiplies in bfloat16 and adds in float32, and it writes every sum and every
membrane to memory at each step. Here a program owns a tile of neurons: it multiplies spikes with weights on the
tensor cores, one step after the other, keeps the membranes in registers, and writes nothing but spikes.

Products are exact: a spike is 0 or 1 (a small count after a pool), weights are int8, bfloat16, or float32 as the
sum of three bfloat16 terms. Sums are int32 or float32. Measured on an H100 with VGG15 (``benchmarks.gpu``).
"""

# A kernel's references are None together, where a layer has no window, or not at all, which types do not say.
# pyright: reportOptionalMemberAccess=false

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.networks.description import IMAGE, Arrays, AvgPool, Conv, Dense, Network, layer_shapes, output_shape
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation.step import Neurons, State, Wiring, drive_of, fired_of, scores_of

Value = jax.Array | np.ndarray | np.generic | float
"""An array or a number."""
HELD = {"int8": jnp.int8, "bfloat16": jnp.bfloat16, "float32": jnp.bfloat16}
"""What spikes are kept as: what they are multiplied as."""
STEPS = 8
"""Timesteps that a layer does before the next begins."""
TERMS = 3
"""A float32 is the sum of so many bfloat16."""
DEEPEST = {"int8": (32, 128), "bfloat16": (16, 64), "float32": (16, 64)}
"""Least and most channels that are multiplied at once."""
MOST_POOLED = 11
"""A pool over more than so many squared could sum to more than int8 holds."""
BOX_ROWS, BOX_CHANNELS = 128, 64
"""Positions and channels of a program of ``_box_sums``."""


class Window(NamedTuple):
    """A convolution over spikes (B, *source): kernel side, stride and zero padding; outputs (B, *target)."""

    size: int
    stride: int
    pad: int
    source: tuple[int, ...]
    target: tuple[int, ...]


class Tile(NamedTuple):
    """Of a program: neurons (positions x channels), products at once, warps, and loads in flight."""

    rows: int = 128
    columns: int = 128
    depth: int = 64
    warps: int = 8
    stages: int = 3


class Layer(NamedTuple):
    """How ``fire`` drives one layer.

    Attributes:
        matrix, window: see ``fire``; None for a layer that the image alone drives.
        gather: what is done to the spikes (steps, B, H, W, C) before.
    """

    matrix: jax.Array | None = None
    window: Window | None = None
    gather: Callable = lambda x: x


def matrix_of(kernel: np.ndarray | jax.Array, precision: str) -> jax.Array:
    """A kernel (k, k, C, F) or (C, F) as the matrix that ``fire`` takes.

    int8: (F, k k C) int8; bfloat16: (k k C, F) bfloat16; float32: three such on top of each other.
    """
    flat = jnp.asarray(kernel).reshape(-1, kernel.shape[-1])
    if precision == "int8":
        return flat.T.astype(jnp.int8)
    if precision == "bfloat16":
        return flat.astype(jnp.bfloat16)
    return jnp.concatenate(terms_of(flat))


def terms_of(values: jax.Array) -> list[jax.Array]:
    """The bfloat16 arrays whose sum float32 ``values`` are."""
    terms, rest = [], values
    for _ in range(TERMS):
        # the barrier keeps XLA from taking the rounding away
        terms.append(lax.optimization_barrier(rest.astype(jnp.bfloat16)))
        rest = rest - terms[-1].astype(jnp.float32)
    return terms


def depth_of(window: Window, precision: str) -> int:
    """Channels that are multiplied at once."""
    channels = window.source[-1]
    return min(DEEPEST[precision][1], channels & -channels)


def tile_for(window: Window | None, precision: str, features: int) -> Tile:
    """A tile that fits a layer."""
    columns = min(128, max(16, 1 << (features - 1).bit_length()))
    return Tile(columns=columns) if window is None else Tile(columns=columns, depth=depth_of(window, precision))


def _kernel(*refs, window, steps, tile, integer, comparison, leaky, positions):
    pl, plt = _pallas()
    x_ref, w_ref = (None, None) if window is None else refs[:2]
    f_ref, b_ref, g_ref, t_ref, l_ref, v_ref, o_ref, vo_ref, c_ref = refs[-9:]
    kind = jnp.int32 if integer else jnp.float32
    total, features = v_ref.shape
    m = pl.program_id(0) * tile.rows + jnp.arange(tile.rows)
    n = pl.program_id(1) * tile.columns + jnp.arange(tile.columns)
    inside_m, inside_n = m < total, n < features
    inside = inside_m[:, None] & inside_n[None, :]

    def row(ref) -> jax.Array:
        return plt.load(ref.at[n], mask=inside_n, other=0)[None, :]

    gain, theta, bias = row(g_ref), row(t_ref), row(b_ref)
    leak = row(l_ref) if leaky else None
    fixed_m = m if f_ref.shape[0] == total else lax.rem(m, f_ref.shape[0])
    v = plt.load(v_ref.at[m[:, None], n[None, :]], mask=inside, other=0)
    if window is not None:
        height, width, channels = window.source
        place = lax.rem(m, positions)
        up = lax.div(place, window.target[1]) * window.stride - window.pad
        left = lax.rem(place, window.target[1]) * window.stride - window.pad
        base = ((lax.div(m, positions) * height + up) * width + left) * channels
        blocks = channels // tile.depth
        rounds = window.size * window.size * blocks
        terms = 1 if integer else w_ref.shape[0] // (rounds * tile.depth)
        deep = jnp.arange(tile.depth)

    def multiply(s, k, sums):
        tap = lax.div(k, blocks)
        i, j = lax.div(tap, window.size), lax.rem(tap, window.size)
        good = inside_m
        if window.pad:
            h, w = up + i, left + j
            good = good & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        start = base + (i * width + j) * channels + lax.rem(k, blocks) * tile.depth
        x = plt.load(x_ref.at[s, start[:, None] + deep[None, :]], mask=good[:, None], other=0)
        if integer:
            column = (k * tile.depth + deep)[None, :]
            weights = plt.load(w_ref.at[n[:, None], column], mask=inside_n[:, None], other=0)
            return sums + lax.dot_general(x, weights, (((1,), (1,)), ((), ())), preferred_element_type=kind)
        for term in range(terms):
            deeper = ((term * rounds + k) * tile.depth + deep)[:, None]
            weights = plt.load(w_ref.at[deeper, n[None, :]], mask=inside_n[None, :], other=0)
            sums = sums + jnp.dot(x.astype(weights.dtype), weights, preferred_element_type=kind)
        return sums

    def step(s, carry):
        v, counted = carry
        if window is not None:
            nothing = jnp.zeros((tile.rows, tile.columns), kind)
            sums = lax.fori_loop(0, rounds, functools.partial(multiply, s), nothing)
        # after the products, which need the registers
        drive = plt.load(f_ref.at[fixed_m[:, None], n[None, :]], mask=inside, other=0) + bias
        if window is not None:
            drive = drive + gain * sums
        v = (v * leak if leaky else v) + drive
        spikes = (v >= theta if comparison == ">=" else v > theta) & inside
        plt.store(o_ref.at[s, m[:, None], n[None, :]], spikes.astype(o_ref.dtype), mask=inside)
        v = v - jnp.where(spikes, theta, jnp.zeros((), kind))
        return v, counted + jnp.sum(spikes.astype(jnp.int32), 1)

    v, counted = lax.fori_loop(0, steps, step, (v, jnp.zeros(tile.rows, jnp.int32)))
    plt.store(c_ref.at[pl.program_id(1), m], counted, mask=inside_m)
    plt.store(vo_ref.at[m[:, None], n[None, :]], v, mask=inside)


def fire(
    spikes: jax.Array | None,
    layer: Layer,
    fixed: Value,
    bias: Value,
    gain: Value,
    theta: Value,
    leak: Value | None,
    v: jax.Array,
    steps: int,
    precision: str,
    comparison: str = ">",
    tile: Tile | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``steps`` steps of one layer.

    Args:
        spikes: (steps, B, *source) of the type that ``HELD`` names; None where ``fixed`` alone drives the layer.
        fixed: drive that does not change: (1 or B, *target) or a scalar.
        bias, gain, theta, leak: (F,) or scalars.
        v: membranes (B, *target), float32 or int32.
        interpret: run the kernel on a CPU, slowly, for tests.

    Returns:
        membranes; spikes (steps, B, *target); and how many there are over steps and channels, int32 (B, ...).
    """
    pl, _ = _pallas()
    shape, features, kind = v.shape, v.shape[-1], v.dtype
    flat = v.reshape(-1, features)
    fixed = jnp.asarray(fixed)
    fixed = jnp.broadcast_to(fixed, (len(fixed) if fixed.ndim else 1, *shape[1:])).astype(kind)
    rows = (bias, gain, theta, 0 if leak is None else leak)
    rows = [jnp.broadcast_to(jnp.asarray(x, kind), (features,)) for x in rows]
    tile = tile or tile_for(layer.window, precision, features)
    inputs = [fixed.reshape(-1, features), *rows, flat]
    if layer.window is not None:
        inputs = [spikes.reshape(steps, -1), layer.matrix, *inputs]
    grid = (pl.cdiv(flat.shape[0], tile.rows), pl.cdiv(features, tile.columns))
    kernel = functools.partial(
        _kernel,
        window=layer.window,
        steps=steps,
        tile=tile,
        integer=kind == jnp.int32,
        comparison=comparison,
        leaky=leak is not None,
        positions=flat.shape[0] // shape[0],
    )
    fired, v, counted = pl.pallas_call(
        kernel,
        out_shape=(
            jax.ShapeDtypeStruct((steps, *flat.shape), HELD[precision]),
            jax.ShapeDtypeStruct(flat.shape, kind),
            jax.ShapeDtypeStruct((grid[1], flat.shape[0]), jnp.int32),
        ),
        grid=grid,
        input_output_aliases={len(inputs) - 1: 1},
        name="fire",
        **_options(tile, interpret),
    )(*inputs)
    return v.reshape(shape), fired.reshape(steps, *shape), counted.sum(0).reshape(shape[:-1])


def layers_of(network: Network, params: Arrays, precision: str) -> list[Layer | None]:
    """How each spiking layer is computed; None where ``fire`` cannot: several edges, narrow channels."""
    shapes = layer_shapes(network)
    made: list[Layer | None] = []
    for layer in network.spiking:
        edge = layer.edges[0]
        if all(edge.source == IMAGE for edge in layer.edges):
            made.append(Layer())
        else:
            alone = len(layer.edges) == 1
            made.append(_layer(edge.ops, params, shapes[edge.source], precision) if alone else None)
    return made


def _layer(ops: Sequence, params: Arrays, shape: tuple[int, ...], precision: str) -> Layer | None:
    """One edge: a convolution or dense map, a pool before or after it; None for anything else."""
    gather, pooled, target = Layer().gather, 1, None
    match ops if all(op.plain for op in ops if isinstance(op, Conv | AvgPool)) else []:
        case [Conv() | Dense() as op]:
            pass
        case [AvgPool() as pool, Conv() | Dense() as op] if (side := pool.taps.sides[0]) <= MOST_POOLED:
            shape, pooled = output_shape(pool, shape), side**2
            gather = functools.partial(_sum_pool, window=side)
        case [Conv() as op, AvgPool(window=2)] if op.stride == 1 and op.taps.sides[0] % 2:
            # the pool after it: a convolution with stride 2 of the sums over 2 x 2 squares
            pooled, target = 4, output_shape(AvgPool(2), output_shape(op, shape))
            gather = functools.partial(_box_sums, pad=op.taps.pads[0][0])
        case _:
            return None
    if isinstance(op, Dense):
        window = Window(1, 1, 0, (1, 1, math.prod(shape)), (1, 1, op.features))
    else:
        size, stride, pad = op.taps.sides[0], op.taps.strides[0], op.taps.pads[0][0]
        window = Window(size, stride, pad, shape, output_shape(op, shape))
        if target:
            window = Window(size, 2, 0, (*(n + 2 * pad - 1 for n in shape[:2]), shape[2]), target)
    if depth_of(window, precision) < DEEPEST[precision][0]:
        return None
    kernel = params[f"{op.name}.kernel"]
    if precision != "int8":  # whose unit is that of the sums
        kernel = kernel.astype(jnp.bfloat16 if precision == "bfloat16" else jnp.float32) / pooled
    return Layer(matrix_of(kernel, precision), window, gather)


def _box_kernel(x_ref, o_ref, *, pad, height, width, total):
    pl, plt = _pallas()
    m = pl.program_id(0) * BOX_ROWS + jnp.arange(BOX_ROWS)
    c = pl.program_id(1) * BOX_CHANNELS + jnp.arange(BOX_CHANNELS)
    high, wide = height + 2 * pad - 1, width + 2 * pad - 1
    y = lax.rem(lax.div(m, wide), high) - pad
    x = lax.rem(m, wide) - pad
    image = lax.div(m, high * wide) * height
    inside_m, inside_c = m < total, (c < x_ref.shape[1])[None, :]

    def at(i: int, j: int) -> jax.Array:
        good = inside_m & (y + i >= 0) & (y + i < height) & (x + j >= 0) & (x + j < width)
        places = (image + y + i) * width + x + j
        return plt.load(x_ref.at[places[:, None], c[None, :]], mask=good[:, None] & inside_c, other=0)

    sums = (at(0, 0) + at(0, 1)) + (at(1, 0) + at(1, 1))
    plt.store(o_ref.at[m[:, None], c[None, :]], sums, mask=inside_m[:, None] & inside_c)


def _box_sums(x: jax.Array, pad: int, interpret: bool = False) -> jax.Array:
    """Sums over all 2 x 2 squares of (steps, B, H, W, C), zeros around it."""
    pl, _ = _pallas()
    steps, n, height, width, channels = x.shape
    high, wide = height + 2 * pad - 1, width + 2 * pad - 1
    total = steps * n * high * wide
    found = pl.pallas_call(
        functools.partial(_box_kernel, pad=pad, height=height, width=width, total=total),
        out_shape=jax.ShapeDtypeStruct((total, channels), x.dtype),
        grid=(pl.cdiv(total, BOX_ROWS), pl.cdiv(channels, BOX_CHANNELS)),
        name="box_sums",
        **_options(Tile(warps=4, stages=1), interpret),
    )(x.reshape(-1, channels))
    return found.reshape(steps, n, high, wide, channels)


def _sum_pool(x: jax.Array, window: int) -> jax.Array:
    steps, n, h, w, c = x.shape[0], x.shape[1], x.shape[2] // window, x.shape[3] // window, x.shape[4]
    x = x[:, :, : h * window, : w * window].reshape(steps, n, h, window, w, window, c)
    return x.sum((3, 5), dtype=x.dtype)


def _pallas():
    """Pallas and its Triton part, imported where they are used: a CPU does without."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    return pallas, triton


def _options(tile: Tile, interpret: bool) -> dict:
    if interpret:
        return {"interpret": True}
    return {"compiler_params": _pallas()[1].CompilerParams(num_warps=tile.warps, num_stages=tile.stages)}


def block(
    network: Network,
    dynamics: Dynamics,
    wiring: Wiring,
    layers: list[Layer | None],
    neurons: Neurons,
    state: State,
    steps: int,
    precision: str,
) -> tuple[State, list[jax.Array], jax.Array]:
    """``jaxsnn.simulation.step.snn_block`` by ``fire``, and without it for the layers that it cannot do.

    Returns:
        the new state; the spikes of each spiking layer summed over steps and channels, int32 (B, H, W) or
        (B, 1, 1); and the scores (steps, B, classes).
    """
    membranes, spikes, counts = [], [], []
    for index, (fixed, maps) in enumerate(zip(wiring.constant, wiring.synapses)):
        with jax.named_scope(f"layer{index}"):
            bias = 0 if neurons.biases is None else neurons.biases[index]
            if index == len(network.spiking):
                driven = drive_of(fixed + bias, neurons.gains[index], maps, spikes, state.scores, steps)
                break
            held, theta, layer = state.membranes[index], neurons.thresholds[index], layers[index]
            leak = None if neurons.leaks is None else neurons.leaks[index]
            if layer is None:
                driven = drive_of(fixed + bias, neurons.gains[index], maps, spikes, held, steps)
                v, made = fired_of(driven, theta, leak, held, dynamics.comparison, HELD[precision])
                counted = made.astype(jnp.int32).sum((0, -1))
            else:
                seen, gain = None, 0
                if maps:
                    ((source, _),), (gain,) = maps, neurons.gains[index]
                    seen = layer.gather(spikes[source])
                v, made, counted = fire(
                    seen, layer, fixed, bias, gain, theta, leak, held, steps, precision, dynamics.comparison
                )
            membranes.append(v)
            spikes.append(made)
            counts.append(counted.reshape(len(counted), *(counted.shape[1:] or (1, 1))))

    scores, curve = scores_of(state.scores, driven)
    return State(membranes, scores), counts, curve


def block_of(steps: int) -> int:
    """Steps that a layer does at once: equal parts of at most ``STEPS``, but for the last."""
    return math.ceil(steps / math.ceil(steps / STEPS)) if steps else 1


def most_rows(network: Network, block: int) -> int:
    """Candidates x images whose spikes of ``block`` steps a kernel can count in 32 bits."""
    shapes = layer_shapes(network)[:-1]
    largest = max(math.prod(n + 1 for n in shape[:-1]) * shape[-1] for shape in shapes)
    return max(1, (2**31 - 1) // (block * largest))


def start(state: State, layers: list[Layer | None]) -> State:
    """The state as ``block`` takes it: as it is."""
    return state


def probe_inputs(precision: str) -> tuple[np.ndarray, np.ndarray, type]:
    """A small case: spikes (2, 3, 4, 4, 64) int8, a kernel of whole numbers, and the type of membranes."""
    rng = np.random.default_rng(0)
    spikes = rng.integers(0, 2, (2, 3, 4, 4, 64), np.int8)
    kernel = rng.integers(-3, 4, (3, 3, 64, 32)).astype(np.float32)
    return spikes, kernel, np.int32 if precision == "int8" else np.float32


def probe_outputs(spikes: np.ndarray, kernel: np.ndarray, kind: type, pools: int) -> tuple[np.ndarray, np.ndarray]:
    """Membranes and spikes (2, ...) of that case at a bias of 1 and thresholds of 9, pools being sums."""
    v, fired = np.zeros((), kind), []
    for step in np.pad(spikes, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64):
        parts = [np.tensordot(step[:, i : i + 4, j : j + 4], kernel[i, j], 1) for i in range(3) for j in range(3)]
        sums = np.sum(parts, 0)
        if pools:
            sums = sums.reshape(len(sums), 2, 2, 2, 2, -1).sum((2, 4))
        v = v + sums + 1
        fired.append(v > 9)
        v = v - 9 * fired[-1]
    return v, np.array(fired)


def probe(precision: str) -> bool:
    """Whether the device gets a small case right."""
    spikes, kernel, kind = probe_inputs(precision)
    v, fired = probe_outputs(spikes, kernel, kind, 0)
    window = Window(3, 1, 1, (4, 4, 64), (4, 4, 32))

    def run(spikes, kernel, v):
        layer = Layer(matrix_of(kernel, precision), window)
        return fire(
            spikes.astype(HELD[precision]), layer, kind(1), kind(0), kind(1), kind(9), None, v, 2, precision
        )

    found = jax.jit(run)(spikes, kernel, np.zeros(v.shape, kind))
    return all(np.array_equal(np.asarray(one), two) for one, two in zip(found, (v, fired, fired.sum((0, -1)))))
