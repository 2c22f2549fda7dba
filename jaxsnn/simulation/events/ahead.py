"""The event-driven loops, compiled by a thread while the program computes something else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.events.run import run
from jaxsnn.simulation.plan import Plan


@contextmanager
def compiling(snn: SNN, plan: Plan, dynamics: Dynamics = Dynamics()) -> Iterator[None]:
    """A context in which a thread compiles the loops that ``observe`` will run for the network.

    Seven seconds of a first run on two cores, which pass while the calibration leaves a core idle. Other back-ends
    compile for the shapes at hand, so for them nothing happens. What goes wrong here is left to ``observe``, where
    it will go wrong again.
    """
    chosen = decided(plan, snn.network)
    if chosen.backend != "events" or dynamics.most > 1:
        yield
        return
    genes = Genes(np.ones((1, len(snn.network.spiking))))
    image = np.zeros((1, *snn.network.input_shape), np.uint8)

    def few_steps() -> None:
        with suppress(Exception):  # one step has loops of its own
            run(snn, genes, image, 2, dynamics, chosen, lambda count: None)

    thread = threading.Thread(target=few_steps, name="compiling", daemon=True)
    thread.start()
    yield
    thread.join()
