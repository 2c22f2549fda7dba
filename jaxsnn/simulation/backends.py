"""Which back-end a plan takes for a network, and why."""

import os
from dataclasses import replace

import jax

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.senders import has_gates
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation import kernels
from jaxsnn.simulation.events.lowering import available, obstacle
from jaxsnn.simulation.plan import Plan


def decided(plan: Plan, network: Network) -> Plan:
    """The plan with "auto" and the number of threads decided.

    The event-driven back-end pays off below a density of spikes of about a half, as every converted network has;
    it cannot compute in bfloat16.

    Raises:
        UserError: the event-driven back-end was asked for and cannot be.
    """
    obstacle = _obstacle(plan, network)
    if plan.backend == "events" and obstacle:
        raise UserError(f"the event-driven back-end {obstacle}: use --backend xla or auto")
    on_cpu = jax.default_backend() == "cpu"
    chosen = (
        "events" if plan.backend == "events" or (plan.backend == "auto" and on_cpu and not obstacle) else "xla"
    )
    return replace(plan, backend=chosen, threads=plan.threads or len(os.sched_getaffinity(0)))


def describe(plan: Plan, network: Network, dynamics: Dynamics = Dynamics()) -> str:
    """The path that is taken, for people to read."""
    if dynamics.most > 1:
        return f"XLA in {plan.precision}, up to {dynamics.most} spikes a neuron and step"
    chosen = decided(plan, network)
    if chosen.backend == "events":
        return f"event-driven in {chosen.precision}"
    device, remark = jax.default_backend(), ""
    if device == "cpu" and plan.backend == "auto" and not available():
        remark = " (event-driven is faster: install the extra cpu)"
    elif device in kernels.OURS and has_gates(network):
        remark = " (our kernels have no max pools: slower)"
    elif device in kernels.OURS and kernels.usable(chosen.precision) is None:
        remark = " (this device refuses our kernels, or gets them wrong: slower)"
    return f"XLA in {chosen.precision}{remark}"


def _obstacle(plan: Plan, network: Network) -> str | None:
    if plan.mesh is not None:
        return "runs on one device"
    if not available():
        return "needs Numba (install the extra cpu)"
    if plan.precision == "bfloat16":
        return "computes in float32 or int8, not in bfloat16"
    return obstacle(network)
