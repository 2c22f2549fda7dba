"""One layer over several timesteps as one kernel for a TPU: products, membranes and spikes.

XLA writes every sum, every membrane and several layouts of every spike to memory there. Here a program owns the
positions of a few images: it multiplies spikes with weights tap by tap, one step after the other, keeps sums and
membranes on the chip, and writes nothing but spikes, a byte each.

The positions of an image lie behind each other as rows of a matrix, with zeros between them, so that a tap of a
convolution is the same matrix some rows further on; that is how spikes and membranes stay between layers. Products
are exact: spikes are small counts, weights bfloat16 (int8 ones are exact in it) or float32 as the sum of three
bfloat16 terms; sums are float32, in int8 below 2^24.

Compiled for a v5e and interpreted on a CPU, never run on a TPU: none was at hand.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.networks.description import AvgPool, Conv, Network
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation import gpu
from jaxsnn.simulation.rows import PACKED, Grid, from_rows, to_rows
from jaxsnn.simulation.step import Neurons, State, Wiring, drive_of, fired_of, scores_of
from jaxsnn.simulation.tpu_layers import FEATURES, MEMORY, Layer, Taps, layer_of, layers_of

__all__ = ["HELD", "block", "fire", "layers_of", "probe", "start"]

HELD = jnp.int8
"""What spikes are kept as."""
LANES = 128
"""Channels of a tile; rows of more cannot begin anywhere."""
# A layer that the image drives has no taps and a kernel then no references for them, which types do not say.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false


def _kernel(*refs, taps: Taps | None, grid: Grid, steps: int, comparison: str, leaky: bool, before: int):
    pl, _ = _pallas()
    x_ref, w_ref = (None, None) if taps is None else refs[:2]
    f_ref, b_ref, g_ref, t_ref, l_ref, m_ref, v_ref, o_ref, vo_ref, *scratch = refs[0 if taps is None else 2 :]
    own = v_ref.shape[0]
    vo_ref[...] = v_ref[...]
    if taps is not None:
        *kept, sums = scratch
        for one in kept:
            one[...] = jnp.zeros(one.shape, one.dtype)

    def step(s, _):
        drive = f_ref[...] + b_ref[...]
        if taps is not None:
            kept[0][pl.ds(before, x_ref.shape[1]), :] = x_ref[s].astype(jnp.float32)
            if taps.pooled:
                _squares(kept, taps.source, grid, before)
            sums[...] = jnp.zeros(sums.shape, sums.dtype)

            def term(t, _):
                for tap, (offset, phase) in enumerate(zip(taps.offsets, taps.phases)):
                    if taps.pooled:
                        x = jnp.concatenate([one[pl.ds(offset, own), :] for one in _corner(kept, phase)], 1)
                    else:
                        x = kept[0][pl.ds(before + offset, own), :]
                    w = w_ref[t * len(taps.offsets) + tap]
                    sums[...] += jnp.dot(x.astype(jnp.bfloat16), w, preferred_element_type=jnp.float32)
                return 0

            # a loop, for float32's three terms unrolled take twice as long to compile
            lax.fori_loop(0, w_ref.shape[0] // len(taps.offsets), term, 0)
            drive = drive + g_ref[...] * sums[...].astype(v_ref.dtype)
        v = vo_ref[...]
        v = (v * l_ref[...] if leaky else v) + drive
        theta = t_ref[...]
        spikes = ((v >= theta) if comparison == ">=" else (v > theta)) & (m_ref[...] > 0)
        o_ref[s] = jnp.where(spikes, 1.0, 0.0).astype(o_ref.dtype)
        vo_ref[...] = v - jnp.where(spikes, theta, jnp.zeros_like(theta))
        return 0

    lax.fori_loop(0, steps, step, 0)


def _corner(kept: Sequence, corner: int) -> Sequence:
    """Where ``_squares`` puts those in one corner, in pieces of ``LANES`` channels."""
    pieces = (len(kept) - 1) // 5
    return kept[1 + pieces * (corner + 1) :][:pieces]


def _squares(kept: Sequence, source: Grid, grid: Grid, before: int) -> None:
    """The sums over squares of 2 x 2 of the spikes, by which corner of a square of squares they are.

    The square of a position ends there, so that the zeros between rows are also those before the next.
    """
    pl, _ = _pallas()
    pieces = (len(kept) - 1) // 5
    held, boxes = kept[0], kept[1 : 1 + pieces]
    pitch = source.sides[1]
    count = grid.together * source.rows
    for piece, box in enumerate(boxes):
        lanes = pl.ds(piece * LANES, box.shape[1])
        parts = [held[pl.ds(before - back, count), lanes] for back in (0, 1, pitch, pitch + 1)]
        box[pl.ds(before, count), :] = (parts[0] + parts[1]) + (parts[2] + parts[3])
    high, wide = grid.sides

    def image(m, _):
        first, target = m * source.rows, m * grid.rows
        for row in range(high):
            for corner in range(4):
                phases = _corner(kept, corner)
                start = before + first + (2 * row + corner // 2) * pitch + corner % 2
                for box, phase in zip(boxes, phases):
                    phase[pl.ds(target + row * wide, wide), :] = box[pl.ds(start, wide, stride=2), :]
        return 0

    lax.fori_loop(0, grid.together, image, 0)


def fire(
    x: jax.Array | None,
    layer: Layer,
    fixed: jax.Array,
    rows: Sequence[jax.Array],
    mask: jax.Array,
    v: jax.Array,
    steps: int,
    comparison: str,
    leaky: bool,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """``steps`` steps of one layer, everything as rows.

    Args:
        x: (steps, rows of the source, C) spikes, or None where ``fixed`` alone drives the layer.
        fixed: drive that does not change, (rows, F), or (rows of one program, F) for all of them.
        rows: bias, gain, theta, leak, each (1, F).
        mask: (rows of one program, 1), above 0 where there is a neuron.
        v: membranes (rows, F).

    Returns:
        membranes (rows, F) and spikes (steps, rows, F).
    """
    pl, pltpu = _pallas()
    grid, taps, features = layer.grid, layer.taps, v.shape[-1]
    own = grid.rows * grid.together
    width = features if features % FEATURES else FEATURES
    each = pl.BlockSpec((own, width), lambda b, f: (b, f))
    same = pl.BlockSpec((own, width), lambda b, f: (0, f))
    inputs = [fixed, *rows, mask, v]
    specs = [same if len(fixed) == own else each, *[pl.BlockSpec((1, width), lambda b, f: (0, f))] * len(rows)]
    specs += [pl.BlockSpec((own, 1), lambda b, f: (0, 0)), each]
    scratch, before = [], 0
    if taps is not None:
        terms, channels, _ = taps.weights.shape
        pitch, count = taps.source.sides[1], taps.source.rows * grid.together
        before = _to_eight(pitch + 1 if taps.pooled else -min(taps.offsets))
        after = _to_eight(2 * grid.sides[1] + 2 if taps.pooled else max(taps.offsets))
        inputs = [x, taps.weights, *inputs]
        specs = [
            pl.BlockSpec((steps, count, channels), lambda b, f: (0, b, 0)),
            pl.BlockSpec((terms, channels, width), lambda b, f: (0, 0, f)),
            *specs,
        ]
        scratch = [pltpu.VMEM((before + count + after, channels), jnp.float32)]
        if taps.pooled:
            pieces = [min(LANES, channels - first) for first in range(0, channels, LANES)]
            rest = own + _to_eight(max(taps.offsets))
            sides = [(before + count + after, piece) for piece in pieces] + 4 * [(rest, piece) for piece in pieces]
            scratch += [pltpu.VMEM(side, jnp.float32) for side in sides]
        scratch.append(pltpu.VMEM((own, width), jnp.float32))
    kernel = functools.partial(
        _kernel, taps=taps, grid=grid, steps=steps, comparison=comparison, leaky=leaky, before=before
    )
    fired, v = pl.pallas_call(
        kernel,
        out_shape=(jax.ShapeDtypeStruct((steps, *v.shape), HELD), jax.ShapeDtypeStruct(v.shape, v.dtype)),
        grid=(v.shape[0] // own, features // width),
        in_specs=specs,
        out_specs=(pl.BlockSpec((steps, own, width), lambda b, f: (0, b, f)), each),
        scratch_shapes=scratch,
        input_output_aliases={len(inputs) - 1: 1},
        name="fire",
        **(
            {"interpret": True}
            if interpret
            else {"compiler_params": pltpu.CompilerParams(vmem_limit_bytes=MEMORY)}
        ),
    )(*inputs)
    return v, fired


def _to_eight(rows: int) -> int:
    return math.ceil(max(0, rows) / 8) * 8


def _pallas():
    """Pallas and its part for TPUs, imported where they are used: a CPU does without."""
    from jax.experimental import pallas
    from jax.experimental.pallas import tpu

    return pallas, tpu


def probe(precision: str) -> bool:
    """Whether the device gets a small case right, with a pool after it and without."""
    spikes, kernel, kind = gpu.probe_inputs(precision)
    for pools in ((), (AvgPool(2),)):
        ops = (Conv("probe", kernel.shape[-1]), *pools)
        # those of floating-point sums divide by 4
        made = layer_of(ops, {"probe.kernel": kernel}, spikes.shape[2:], precision)
        if made is None:
            return False
        values = (0, 4 if pools and kind is np.float32 else 1, 9, None)
        found = jax.jit(functools.partial(_probed, made, kind, values))(spikes)
        expected = gpu.probe_outputs(spikes, kernel, kind, len(pools))
        if not all(np.array_equal(np.asarray(one), two) for one, two in zip(found, expected)):
            return False
    return True


def _probed(layer: Layer, kind: type, values: tuple, spikes: jax.Array) -> list[jax.Array]:
    v = jnp.zeros((spikes.shape[1], *layer.shape), kind)
    x = _Spikes(spikes, None, spikes.shape[1]).read_by(layer)
    found = _fire(x, layer, jnp.ones((), kind), values, to_rows(v, layer.grid), len(spikes), ">")
    return [from_rows(part, layer.grid, v.shape) for part in found]


def start(state: State, layers: Sequence[Layer | None]) -> State:
    """The state with the membranes of ``layers`` as rows."""
    membranes = [
        v if layer is None else to_rows(v.reshape(len(v), *layer.shape), layer.grid)
        for v, layer in zip(state.membranes, layers)
    ]
    return state._replace(membranes=membranes)


class _Spikes(NamedTuple):
    """Spikes of a layer: as rows where ``layer`` made them, else (steps, B, *shape)."""

    values: jax.Array
    layer: Layer | None
    images: int

    def natural(self) -> jax.Array:
        """(steps, B, *shape)."""
        if self.layer is None:
            return self.values
        found = from_rows(self.values, self.layer.grid, (self.images, *self.layer.shape))
        return found.reshape(*found.shape[:2], *self.layer.natural)

    def counted(self) -> jax.Array:
        """Summed over steps and channels, int32 (B, H, W) or (B, 1, 1)."""
        if self.layer is None or self.layer.natural != self.layer.shape:
            found = self.natural().astype(jnp.int32).sum((0, -1))
            return found.reshape(len(found), *(found.shape[1:] or (1, 1)))
        found = self.values.astype(jnp.int32).sum((0, -1))[:, None]
        return from_rows(found, self.layer.grid, (self.images, *self.layer.shape))[..., 0]

    def read_by(self, layer: Layer) -> jax.Array:
        """As rows that ``layer`` reads."""
        if layer.gather is None and self.layer is not None and self.layer.grid == layer.taps.source:
            return self.values
        found = self.natural().astype(HELD)
        found = found if layer.gather is None else layer.gather(found)
        return to_rows(found, layer.taps.source)


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
    """``jaxsnn.simulation.step.snn_block`` by ``fire``; membranes are as ``start`` gave them.

    Returns:
        the new state; the spikes of each spiking layer summed over steps and channels, int32 (B, H, W) or
        (B, 1, 1); and the scores (steps, B, classes).
    """
    membranes: list[jax.Array] = []
    spikes: list[_Spikes] = []
    for index, (fixed, maps) in enumerate(zip(wiring.constant, wiring.synapses)):
        with jax.named_scope(f"layer{index}"):
            bias = 0 if neurons.biases is None else neurons.biases[index]
            last = index == len(network.spiking)
            layer = None if last else layers[index]
            held = state.scores if last else state.membranes[index]
            if layer is None:
                natural = {source: spikes[source].natural() for source, _ in maps}
                drive = drive_of(fixed + bias, neurons.gains[index], maps, natural, held, steps)
            if last:
                break
            theta, leak = neurons.thresholds[index], None if neurons.leaks is None else neurons.leaks[index]
            if layer is None:
                v, fired = fired_of(drive, theta, leak, held, dynamics.comparison, HELD)
            else:
                seen, gain = None, 0
                if maps:
                    ((source, _),), (gain,) = maps, neurons.gains[index]
                    seen = spikes[source].read_by(layer)
                v, fired = _fire(seen, layer, fixed, (bias, gain, theta, leak), held, steps, dynamics.comparison)
            membranes.append(v)
            spikes.append(_Spikes(fired, layer, len(state.scores)))
    scores, curve = scores_of(state.scores, drive)
    return State(membranes, scores), [s.counted() for s in spikes], curve


def _fire(
    seen: jax.Array | None,
    layer: Layer,
    fixed: jax.Array,
    values: tuple,
    held: jax.Array,
    steps: int,
    comparison: str,
) -> tuple[jax.Array, jax.Array]:
    """``fire`` with drives, bias, gain, theta and leak as the simulator has them."""
    features, kind = held.shape[-1], held.dtype
    fixed = jnp.atleast_1d(jnp.asarray(fixed, kind))
    fixed = jnp.broadcast_to(fixed, (len(fixed), *layer.natural)).reshape(len(fixed), *layer.shape)
    fixed = _program(fixed, layer) if len(fixed) == 1 else to_rows(fixed, layer.grid)

    def row(x: jax.Array | float | None) -> jax.Array:
        each = jnp.ravel(jnp.asarray(0 if x is None else x, kind))
        return jnp.tile(each, features // len(each))[None]

    mask = _program(jnp.ones((1, *layer.shape[:2], 1), kind), layer)
    rows = [row(x) for x in values]
    return fire(seen, layer, fixed, rows, mask, held, steps, comparison, values[-1] is not None)


def _program(x: jax.Array, layer: Layer) -> jax.Array:
    """What is alike in all images, (1, H, W, C), as the rows of one program."""
    rows = to_rows(jnp.broadcast_to(x, (PACKED, *x.shape[1:])), layer.grid)
    return rows[: layer.grid.rows * layer.grid.together]
