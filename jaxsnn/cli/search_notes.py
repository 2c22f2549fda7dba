"""What jaxsnn.optimize says of a search while it runs."""

import math

from rich.console import Console

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.records.run_config import RunConfig
from jaxsnn.search.evolve import Generation


def timesteps_in_words(config: RunConfig, network: Network) -> str:
    """The search's timesteps in both conventions: "8 timesteps without layer delay (15 with it)"."""
    delayed = config.delay == "layer"
    other = config.timesteps + (-network.delay if delayed else network.delay)
    here, there = ("with", "without") if delayed else ("without", "with")
    return f"{config.timesteps} timesteps {here} layer delay ({max(0, other)} {there} it)"


def check_costs(generation: Generation, config: RunConfig, console: Console) -> None:
    """Say so where the objective cannot tell candidates apart; ``UserError`` where no cost is finite."""
    if not math.isfinite(generation.best.cost):
        raise UserError(
            f"no candidate of generation {generation.number} has a finite cost: lower the weights of the cost's "
            "parts"
        )
    if not math.isfinite(generation.mean):
        console.print(
            f"generation {generation.number}: some candidates have no finite cost and count as the worst"
        )
    elif generation.spread == 0:
        console.print(
            f"generation {generation.number}: all candidates cost the same, {generation.mean:g}, so the search is "
            f"stuck; if that is too early, give it more --images (now {config.images}) or --timesteps"
        )


def note_of(generation: Generation, config: RunConfig, rows: list[dict]) -> str:
    """Progress line after a generation; latency and accuracy are of the best on its training images."""
    before = rows[-2]["image_evaluations"] if len(rows) > 1 else 0
    simulated = (generation.image_evaluations - before) * config.timesteps
    rate = simulated / generation.seconds if generation.seconds else 0
    reached = rows[-1]["latency"]
    of_all = "" if config.engine == "lshade" else f"/{config.generations}"  # L-SHADE's generations shrink
    latency = f", latency {reached}" if reached else ""
    return (
        f"generation {generation.number}{of_all}, cost {generation.best.cost:.2f}, "
        f"accuracy {100 * generation.best.accuracy[-1]:.1f} %{latency}, {rate:,.0f} itc/s"
    )
