"""jaxsnn.evaluate --encoding: the image as a constant current, as evenly spaced spikes, or as random ones."""

from dataclasses import dataclass, replace
from typing import Literal

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.senders import has_gates
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_single
from jaxsnn.networks.spiking_input import has_spiking_input, with_input_spikes
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.cells.relay import poisson_cells
from jaxsnn.simulation.plan import Plan

Pair = tuple[SNN, Genes]


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How the image comes in."""

    encoding: Literal["constant", "rate", "poisson"] | None = None
    """How the image comes in: as a constant current; or as spikes of a layer in front, with a neuron for each sign
    of each channel of each pixel, evenly spaced (rate) or random (poisson), so that spikes are all that drives
    weights; default: as in the run, which knows the first two."""


@dataclass(frozen=True)
class Encoded:
    """Networks with their genes, and how to simulate them.

    Attributes:
        cells: where they are not the package's own neurons.
    """

    pairs: tuple[Pair, ...]
    dynamics: Dynamics
    plan: Plan
    cells: tuple[Cell, ...] | None = None


def encoded(options: EncodingOptions, dynamics: Dynamics, plan: Plan, *pairs: Pair) -> Encoded:
    """The networks with the image coming in as the options say.

    Raises:
        UserError: a network that has a layer for another encoding in front already, or what random spikes lack.
    """
    network, wish = pairs[0][0].network, options.encoding
    if has_spiking_input(network):
        if wish not in (None, "rate"):
            raise UserError(f"the run was made with --encoding rate, not {wish}: leave --encoding out")
        return Encoded(pairs, dynamics, plan)
    if wish in (None, "constant"):
        return Encoded(pairs, dynamics, plan)
    check_single(dynamics, f"--encoding {wish} is")
    if wish == "poisson":
        _check_random(network, plan)
    snns = {snn: with_input_spikes(snn, genes)[0] for snn, genes in pairs}
    coded = tuple((snns[snn], with_input_spikes(snn, genes)[1]) for snn, genes in pairs)
    if wish == "rate":
        return Encoded(coded, dynamics, plan)
    # which say themselves when they fire
    cells = poisson_cells(coded[0][0].network, dynamics.comparison)
    return Encoded(coded, replace(dynamics, comparison=">"), replace(plan, backend="xla"), cells)


def _check_random(network: Network, plan: Plan) -> None:
    """Raise ``UserError`` where random spikes cannot be simulated."""
    if plan.backend == "events" or plan.precision != "float32" or plan.mesh is not None:
        raise UserError(
            "random spikes are drawn by XLA, in float32, on one device: leave --backend, --precision and --mesh "
            "out, or take --encoding rate"
        )
    if has_gates(network):
        raise UserError("max pools choose among spikes, and not among random ones: take --encoding rate")
