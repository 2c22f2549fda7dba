"""The measurements of benchmarks.throughput: grid, comparison and sweep, each of contenders that take turns."""

from contextlib import ExitStack
from typing import TextIO

import numpy as np

from benchmarks.contenders import entries
from benchmarks.contenders.turns import Failed, Worker, spread, take_turns
from benchmarks.problem import Case, additions_per_synop, macs, neurons
from benchmarks.throughput_config import ThroughputConfig
from benchmarks.throughput_report import Report

IDLE_WARNING = 0.02
"""Share of a round's time that a waiting contender may spend on a CPU before a line says so."""


def row_of(case: Case, name: str, measured: dict, work: dict, images: int) -> dict:
    """One line of the tables.

    Args:
        work: population, timesteps and executed_steps of the run.
    """
    entry, network = entries.ENTRIES[name], case.network
    executed = work["population"] * images * work["executed_steps"]
    nominal = work["population"] * images * work["timesteps"]
    if name in entries.PEERS:
        nominal = executed
    seconds = spread(measured["seconds"])
    rate = {
        "median": executed / seconds["median"],
        "min": executed / seconds["max"],
        "max": executed / seconds["min"],
    }
    row = {"network": case.name, "contender": name, "precision": entry.precision} | work | {"images": images}
    row |= {
        "compile_seconds": max(0.0, measured["first"] - seconds["median"]),
        "seconds": seconds,
        "nominal_itc_per_second": nominal / seconds["median"],
        "executed_itc_per_second": rate,
        "peak_mb": measured["memory"]["process_mb"],
        "loaded_mb": measured["loaded"]["process_mb"],
        "device_peak_mb": measured["memory"].get("device_mb"),
        "dense_equivalent_gflops": 2e-9 * macs(network) * rate["median"],
        "executed_gflops": None,
        "gigaadditions": None,
        "waiting_cpu_seconds": measured["waiting_cpu_seconds"],
    }
    if entry.executed_macs is not None:
        row["executed_gflops"] = 2e-9 * entry.executed_macs(network) * rate["median"]
    if "spikes" in measured["result"]:
        spikes, synops = (np.array(measured["result"][key]) for key in ("spikes", "synops"))
        row |= {
            "density": (spikes / neurons(network) / executed).tolist(),
            "spikes_per_image_step": spikes.sum() / executed,
            "synops_per_image_step": synops.sum() / executed,
        }
        if entry.executed_macs is None:
            row["gigaadditions"] = 1e-9 * (synops * additions_per_synop(network)).sum() / seconds["median"]
    return row


def chosen(config: ThroughputConfig, offered: dict[str, entries.Entry], left_out: list[str]) -> list[str]:
    """Names of the contenders to run; what is not installed is said once."""
    names = []
    for name, entry in offered.items():
        if config.contenders and name not in config.contenders:
            continue
        absent = entries.missing(entry)
        if absent:
            left_out.append(f"{name}: {' and '.join(absent)} not installed")
        elif config.quick and entry.slow_start and name not in config.contenders:
            left_out.append(f"{name}: compiles for too long for a quick run")
        else:
            names.append(name)
    return names


def grid(config: ThroughputConfig, case: Case, names: list[str], log: TextIO, report: Report) -> list[dict]:
    """Every P and T, each contender in a fresh process, so that compile time and peak memory are this cell's."""
    rows: list[dict] = []
    cells = [(p, t) for t in config.timesteps for p in config.population]
    cells.sort(key=lambda cell: cell[0] * max(1, case.steps(cell[1], config.delay)))
    images = case.images(config.images)
    for population, timesteps in cells:
        steps = case.steps(timesteps, config.delay)
        where = f"{case.name}, P = {population}, T = {timesteps}"
        if steps < 1:
            report.left_out.append(f"{where}: all steps are delay ({case.network.delay} layers)")
            continue
        expected = expected_seconds(rows, population * images * steps)
        slow = {name: seconds for name, seconds in expected.items() if seconds > config.limit}
        report.left_out += [f"{n}, {where}: about {s:.0f} s a run, over --limit" for n, s in slow.items()]
        going = [name for name in names if name not in slow]
        report.say(f"{where}: {', '.join(going) or 'nothing'}")
        request = {"images": images, "timesteps": timesteps, "delay": config.delay, "candidates": population}
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(case.path, name, log)) for name in going]
            found = take_turns(workers, dict.fromkeys(going, request), config.rounds, report.left_out)
        work = {"population": population, "timesteps": timesteps, "executed_steps": steps}
        rows += [row_of(case, name, measured, work, images) for name, measured in found.items()]
    return rows


def expected_seconds(rows: list[dict], work: int) -> dict[str, float]:
    """What ``work`` image-timestep-candidates take each contender, by its last rate in ``rows``."""
    rates = {row["contender"]: row["executed_itc_per_second"]["median"] for row in rows}
    return {name: work / rate for name, rate in rates.items()}


def best_setting(config: ThroughputConfig, worker: Worker, images: int, steps: int) -> dict:
    """The batch size, and then the layout, with the most images a second; each is run twice, the second counts."""
    rates: dict[tuple[int, bool], float] = {}

    def measure(batch: int, channels_last: bool) -> None:
        options = {"images": batch, "steps": steps, "batch": batch, "channels_last": channels_last}
        seconds = [worker.ask("run", **options)["seconds"] for _ in range(2)]
        rates[batch, channels_last] = batch / seconds[1]

    for batch in config.batches:
        fits = batch <= images and (not rates or batch / max(rates.values()) < config.limit)
        if fits:
            measure(batch, False)
    if not rates:
        measure(images, False)
    if entries.ENTRIES[worker.name].channels_last:
        measure(max(rates, key=rates.__getitem__)[0], True)
    batch, channels_last = max(rates, key=rates.__getitem__)
    return {"batch": batch, "channels_last": channels_last}


def against_peers(
    config: ThroughputConfig, case: Case, names: list[str], log: TextIO, report: Report
) -> tuple[list[dict], list[dict]]:
    """Checks of every contender against the reference, then ours and theirs in turns at equal executed steps."""
    images, steps = case.images(config.peer_images), case.steps(config.peer_timesteps, config.delay)
    if steps < 1:
        report.left_out.append(f"{case.name}: peers, because all of T = {config.peer_timesteps} is delay")
        return [], []
    checks, workers, requests = [], [], {}
    with ExitStack() as stack:
        for name in names:
            report.say(f"{case.name}: {name}")
            worker = stack.enter_context(Worker(case.path, name, log))
            try:
                checks.append(check_of(case, worker))
                requests[name] = request_for(config, worker, images, steps)
                workers.append(worker)
            except Failed as error:
                report.left_out.append(f"{name}, {case.name}: {error}")
                worker.close()
        report.say(f"{case.name}: {config.rounds} rounds")
        found = take_turns(workers, requests, config.rounds, report.left_out)
    rows = [
        comparison_row(config, case, name, measured, requests[name], steps) for name, measured in found.items()
    ]
    for row in rows:
        row["ours_over_theirs"] = ratios_of(row, rows)
    total = sum(sum(measured["seconds"]) for measured in found.values())
    for row in rows:
        name, seconds = row["contender"], row["waiting_cpu_seconds"]
        if seconds > IDLE_WARNING * total:
            report.say(f"[yellow]{name} used {seconds:.1f} s of CPU while the others ran for {total:.0f} s[/]")
    return checks, rows


def check_of(case: Case, worker: Worker) -> dict:
    """How a contender's answer differs from the reference."""
    images = len(case.problem.check_scores)
    checked = worker.ask("check", images=images)["result"]
    return {"network": case.name, "contender": worker.name, "images": images} | checked


def request_for(config: ThroughputConfig, worker: Worker, images: int, steps: int) -> dict:
    """What a contender is asked in the comparison: ours with their delay, a peer with its best batch."""
    if worker.name not in entries.OURS:
        return {"images": images, "steps": steps} | best_setting(config, worker, images, steps)
    return {
        "images": images,
        "timesteps": config.peer_timesteps,
        "delay": config.delay,
        "candidates": config.peer_population,
        "scale": config.peer_scale,
    }


def comparison_row(
    config: ThroughputConfig, case: Case, name: str, measured: dict, request: dict, steps: int
) -> dict:
    """``row_of`` with a peer's setting and the rate of every round."""
    population = config.peer_population if name in entries.OURS else 1
    work = {"population": population, "timesteps": config.peer_timesteps, "executed_steps": steps}
    row = row_of(case, name, measured, work, request["images"])
    row |= {key: request[key] for key in ("batch", "channels_last") if key in request}
    done = population * request["images"] * steps
    return row | {"round_rates": [done / seconds for seconds in measured["seconds"]]}


def ratios_of(row: dict, rows: list[dict]) -> dict[str, dict[str, float]]:
    """How many times faster than a peer each of ours is, round by round; empty for one of ours."""
    if row["contender"] not in entries.PEERS:
        return {}
    return {
        ours["contender"]: spread([a / b for a, b in zip(ours["round_rates"], row["round_rates"])])
        for ours in rows
        if ours["contender"] in entries.OURS
    }


def threshold_sweep(
    config: ThroughputConfig, case: Case, names: list[str], log: TextIO, report: Report
) -> list[dict]:
    """Seconds and spikes with all thresholds scaled: one candidate, the comparison's images and steps."""
    images, timesteps = case.images(config.peer_images), config.peer_timesteps
    steps = case.steps(timesteps, config.delay)
    if steps < 1:
        return []
    rows = []
    work = {"population": 1, "timesteps": timesteps, "executed_steps": steps}
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(case.path, name, log)) for name in names]
        for scale in config.scales:
            report.say(f"{case.name}: thresholds x {scale:g}")
            request = {"images": images, "timesteps": timesteps, "delay": config.delay, "scale": scale}
            found = take_turns(workers, dict.fromkeys(names, request), config.rounds, report.left_out)
            rows += [
                row_of(case, name, measured, work, images) | {"scale": scale} for name, measured in found.items()
            ]
    return rows
