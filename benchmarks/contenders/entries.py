"""The contenders by name: what each needs, and how it is made."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders.base import Contender
from benchmarks.contenders.bindsnet import strided_macs
from benchmarks.contenders.ours import Ours
from benchmarks.problem import Problem, macs
from jaxsnn.networks.description import Network


@dataclass(frozen=True)
class Entry:
    """One line of the tables.

    Attributes:
        make: problem -> contender.
        precision: of the products, and of the dot product that it is compared with.
        executed_macs: network -> multiply-accumulates really executed per image and step; None where spikes
            decide that.
        requires: packages that must be installed.
        channels_last: it can keep images and kernels channels-last; the sweep tries that too.
        slow_start: seconds of compilation for every batch size; left out of quick runs.
    """

    make: Callable[[Problem], Contender]
    precision: str = "float32"
    executed_macs: Callable[[Network], int] | None = macs
    requires: tuple[str, ...] = ()
    channels_last: bool = False
    slow_start: bool = False


def our_macs(network: Network) -> int:
    """What the dense XLA path executes: pools folded, first layer outside the steps, small layers as matrices."""
    from jaxsnn.networks.linear_maps import MATRIX_POSITIONS

    return macs(network, fold=True, first=False, matrix_positions=MATRIX_POSITIONS)


def ours(**plan) -> Callable[[Problem], Contender]:
    """Our simulator with ``jaxsnn.simulation.observe.Plan(**plan)``."""
    return lambda problem: Ours(problem, plan)


def peer(module: str, kind: str, **options) -> Callable[[Problem], Contender]:
    """A class of ``benchmarks.contenders.<module>``, which its worker alone imports."""

    def make(problem: Problem) -> Contender:
        return getattr(importlib.import_module(f"benchmarks.contenders.{module}"), kind)(problem, **options)

    return make


OURS: dict[str, Entry] = {
    "jaxsnn events": Entry(ours(backend="events"), executed_macs=None, requires=("numba",)),
    "jaxsnn events int8": Entry(
        ours(backend="events", precision="int8"), "int8", executed_macs=None, requires=("numba",)
    ),
    "jaxsnn XLA": Entry(ours(backend="xla"), executed_macs=our_macs),
    "jaxsnn XLA bf16": Entry(ours(backend="xla", precision="bfloat16"), "bfloat16", executed_macs=our_macs),
    "jaxsnn XLA int8": Entry(ours(backend="xla", precision="int8"), "int8", executed_macs=our_macs),
}
"""Our back-ends and precisions: ``ours`` takes the fields of ``Plan``."""


PEERS: dict[str, Entry] = {
    "SpikingJelly": Entry(peer("pytorch", "SpikingJelly"), requires=("torch", "spikingjelly"), channels_last=True),
    "SpikingJelly bf16": Entry(
        peer("pytorch", "SpikingJelly", bfloat16=True),
        "bfloat16",
        requires=("torch", "spikingjelly"),
        channels_last=True,
    ),
    "PyTorch": Entry(peer("pytorch", "PlainTorch"), requires=("torch",), channels_last=True),
    "PyTorch bf16": Entry(
        peer("pytorch", "PlainTorch", bfloat16=True), "bfloat16", requires=("torch",), channels_last=True
    ),
    "PyTorch compiled": Entry(
        peer("pytorch", "PlainTorch", compiled=True), requires=("torch",), channels_last=True, slow_start=True
    ),
    "PyTorch compiled bf16": Entry(
        peer("pytorch", "PlainTorch", compiled=True, bfloat16=True),
        "bfloat16",
        requires=("torch",),
        channels_last=True,
        slow_start=True,
    ),
    "snnTorch": Entry(peer("pytorch", "SnnTorch"), requires=("torch", "snntorch"), channels_last=True),
    "Spyx": Entry(peer("spyx", "Spyx"), requires=("spyx",), slow_start=True),
    "BindsNET": Entry(
        peer("bindsnet", "BindsNet"), executed_macs=lambda n: strided_macs(n), requires=("torch", "bindsnet")
    ),
}
"""Other simulators."""


ENTRIES = OURS | PEERS


def missing(entry: Entry) -> list[str]:
    """Required packages that are not installed."""
    return [name for name in entry.requires if importlib.util.find_spec(name) is None]
