"""A plan for people to read: what --explain-plan prints."""

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, MaxPool, layer_shapes, output_shape
from jaxsnn.networks.linear_maps import lowering, take_pool
from jaxsnn.networks.spiking import SNN, Dynamics, check_single
from jaxsnn.simulation import dense
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.events import run
from jaxsnn.simulation.events.lowering import LoweredLayer, lower_float, lower_integers
from jaxsnn.simulation.integers import quantize
from jaxsnn.simulation.plan import Plan


def print_plan(
    console: Console, snn: SNN, plan: Plan, dynamics: Dynamics, timesteps: int, candidates: int, images: int
) -> None:
    """How ``candidates`` on ``images`` would be simulated for ``timesteps``, layer by layer."""
    check_single(dynamics, "--explain-plan is")
    network, plan = snn.network, decided(plan, snn.network)
    steps = max(0, timesteps - dynamics.silent_steps(network))
    console.print(
        f"{network.name}: {candidates} candidates x {images} images x {timesteps} timesteps, of which "
        f"{steps} are simulated (layer delay {timesteps - steps})"
    )
    lowered: list[LoweredLayer] = []
    if plan.backend == "events":
        lowered = lower_integers(quantize(snn)) if plan.precision == "int8" else lower_float(snn)
        at_once = min(images, run.images_at_once(network, plan))
        share, block = run.task_shape(run.held_shapes(lowered), plan, candidates, at_once, steps)
        text = (
            f"event-driven, {plan.precision}, {plan.threads} threads; tasks of one candidate x {share} images, "
            f"spikes of up to {min(block, steps)} steps listed at once"
        )
    else:
        mesh, across, along = dense.make_mesh(plan.mesh)
        rows = dense.rows_at_once(snn, dynamics, timesteps, False, plan, candidates) * across * along
        group, size = dense.chunk_shape(candidates, images, rows, plan.group, across, along)
        devices = f"{across} x {along} devices" if mesh else "one device"
        block = dense.block_steps(plan, network, steps, group * size)
        order = "step by step over layers" if block == 1 else f"layer by layer over {block} steps"
        fixed, each = dense.memory(snn, dynamics, timesteps, False, plan.precision, block, min(candidates, 4))
        text = (
            f"XLA, {plan.precision}, {order}, {devices}; chunks of {group} candidates x {size} "
            f"images, about {(fixed + each * group * size / (across * along)) / 1e6:,.0f} MB on a device"
        )
    console.print(text)
    table = Table("layer", "neurons", "dense MMAC / step", "computed as")
    shapes = layer_shapes(network)
    for index, layer in enumerate(network.layers):
        sources = [network.input_shape if e.source == IMAGE else shapes[e.source] for e in layer.edges]
        work = sum(edge_macs(edge, shape) for edge, shape in zip(layer.edges, sources))
        how = [
            "once for all steps and candidates"
            if edge.source == IMAGE
            else (_rows(lowered[index], number) if plan.backend == "events" else _dense(edge, shape))
            for number, (edge, shape) in enumerate(zip(layer.edges, sources))
        ]
        neurons = " x ".join(map(str, shapes[index])) if index < len(network.spiking) else "read-out"
        table.add_row(Text(layer.name), neurons, f"{work / 1e6:.2f}", "; ".join(how))
    console.print(table)


def edge_macs(edge: Edge, shape: tuple[int, ...]) -> int:
    """Multiplications of an edge as written, pools not merged."""
    total = 0
    for op in edge.ops:
        target = output_shape(op, shape)
        if isinstance(op, Conv):
            total += math.prod(target) * math.prod(op.taps.sides) * shape[-1] // op.groups
        elif isinstance(op, Dense):
            total += math.prod(shape) * op.features
        shape = target
    return total


def _dense(edge: Edge, shape: tuple[int, ...]) -> str:
    steps = []
    ops = list(edge.ops)
    while ops:
        op = ops.pop(0)
        before, shape = shape, output_shape(op, shape)
        if isinstance(op, Conv):
            pool = take_pool(ops)
            shape = shape if pool is None else output_shape(pool, shape)
            steps.append(lowering(op, pool, before))
        else:
            kinds = {Dense: "matrix product", MaxPool: "spiking max pool"}
            steps.append(kinds.get(type(op), "average pool"))
    return ", ".join(steps) or "identity"


def _rows(layer: LoweredLayer, number: int) -> str:
    blocks, rows, width = layer.weights[number].shape
    kind, size = layer.weights[number].dtype, layer.weights[number].nbytes
    return f"{rows} rows of {kind} in {blocks} x {width} channels, {size / 1e3:,.0f} kB"
