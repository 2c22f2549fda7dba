"""What the readers of NIR insist on, and what each computes differently from the network that is exported.

Checked with nir 1.0.8, nirtorch 2.6, snnTorch 1.0.0, SpikingJelly 2.0.0, Norse 1.1.0 and sinabs 2.0.3; python -m
benchmarks.round_trips does it again. Lava could not be installed. Its sentence follows the sources of the reader
among NIR's examples (docs/source/examples/lava/nir_to_lava.py) and of the neuron that it makes (Lava-DL's
slayer.neuron.cuba); Lava-DL's own reader (netx.nir_lava) takes CubaLIF nodes alone.
"""

import io
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.nir_graph import Dialect, nir_graph, require_nir
from jaxsnn.networks.description import Conv

GRAPH = "network.nir"


@dataclass(frozen=True)
class Reader:
    """A reader of NIR.

    Attributes:
        differs: what it computes differently, as it imports the file.
        program: the program beside the file that sets what NIR cannot say, or None.
        at_threshold: it fires at the threshold, too (>=).
        chains: it stops at branches and at convolutions with biases.
    """

    title: str
    dialect: Dialect
    differs: str
    program: str | None = None
    at_threshold: bool = False
    chains: bool = False


READERS = {
    "snntorch": Reader(
        "snnTorch",
        Dialect(sum_pools=False),
        "leaks by a factor 0.9 a step, hands on tuples, starts at 0, and does not fire while a membrane is still "
        "above the threshold after a reset",
        "run_snntorch.py",
    ),
    "spikingjelly": Reader(
        "SpikingJelly",
        Dialect(r=1e4, sum_pools=False),
        "resets to 0 instead of subtracting the threshold, starts at 0, and fires at the threshold, too (>=)",
        "run_spikingjelly.py",
        at_threshold=True,
    ),
    "norse": Reader(
        "Norse",
        Dialect(),
        "resets to 0 instead of subtracting the threshold, starts at 0, and runs graphs with branches in a wrong "
        "order",
        "run_norse.py",
    ),
    "sinabs": Reader(
        "sinabs",
        Dialect(),
        "fires several times in a step, cuts membranes at minus the threshold, starts at 0, fires at the "
        "threshold, too (>=), and runs graphs with branches in a wrong order",
        "run_sinabs.py",
        at_threshold=True,
    ),
    "lava": Reader(
        "Lava",
        Dialect(),
        "resets to 0 instead of subtracting the threshold, rounds membranes, and starts at 0 (by its sources: it "
        "was not run)",
        chains=True,
    ),
}
"""By the name that a user gives them."""


def nir_files(converted: Converted, target: str = "snntorch", v0: str = "metadata") -> dict[str, bytes]:
    """Contents by file name: network.nir, and the program that runs it in the ``target``, where there is one.

    Args:
        target: a key of ``READERS``.
        v0: as in ``nir_graph``.

    Raises:
        UserError: an unknown target, or what ``nir_graph`` raises.
    """
    if target not in READERS:
        raise UserError(f"target is {target!r}, expected one of {', '.join(READERS)}")
    reader = READERS[target]
    graph = nir_graph(converted, reader.dialect, v0)
    graph.metadata["written_for"] = target
    files = {GRAPH: to_bytes(graph)}
    if reader.program is not None:
        program = resources.files("jaxsnn.exports.readers") / reader.program
        files[reader.program] = program.read_bytes()
    return files


def to_bytes(graph: Any) -> bytes:
    """The contents of a .nir file."""
    content = io.BytesIO()
    require_nir().write(content, graph)
    return content.getvalue()


def says(converted: Converted, target: str, v0: str = "metadata") -> str:
    """In a sentence, what the reader will compute differently."""
    reader = READERS[target]
    sentence = f"as it imports the file, {reader.title} {reader.differs}"
    if reader.chains and (found := _beyond_chains(converted)):
        sentence += f"; it stops at {' and '.join(found)}, which this network has"
    if v0 == "bias":
        sentence += "; initial membranes are in the biases, which gives the same sums after the last step alone"
    if reader.program is None:
        return f"{sentence}."
    left = ""
    if reader.at_threshold and converted.dynamics.comparison == ">":
        left = ", but for membranes exactly at the threshold, where it fires"
    if not reader.at_threshold and converted.dynamics.comparison == ">=":
        left = ", but for membranes exactly at the threshold, where it does not fire"
    return f"{sentence}; {reader.program} changes that, and computes the same up to rounding{left}."


def _beyond_chains(converted: Converted) -> list[str]:
    """What the network has beside a row of layers without biases in convolutions."""
    layers = converted.network.layers
    branched = any(tuple(e.source for e in layer.edges) != (i - 1,) for i, layer in enumerate(layers))
    ops = [op for layer in layers for edge in layer.edges for op in edge.ops]
    biased = any(isinstance(op, Conv) and op.bias for op in ops)
    return ["branches"] * branched + ["convolutions with biases"] * biased
