"""What the profiler says of one call: microseconds by kernel, and by layer where kernels carry its name."""

import gzip
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST = 60
"""Kernels that are named."""


def profiled(call: Callable[[], Any], folder: Path) -> dict:
    """Run ``call`` under the profiler.

    Returns:
        span_us and busy_us of the device; ``layers``, microseconds by scope ("layer0" and so on, "rest"); and
        ``kernels``: (name, calls, microseconds), longest first. The trace itself is kept in ``folder``.
    """
    import jax

    shutil.rmtree(folder, ignore_errors=True)
    with jax.profiler.trace(str(folder)):
        call()
    path = max(folder.rglob("*.trace.json.gz"))
    return summary(json.loads(gzip.open(path).read())["traceEvents"])


def summary(events: list[dict]) -> dict:
    """``profiled`` of a trace's events: those of streams of an accelerator, or on a CPU those with an HLO op."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}

    def on_device(event: dict) -> bool:
        where, line = processes.get(event["pid"], ""), threads.get((event["pid"], event["tid"]), "")
        if "/device:" in where and "CPU" not in where:
            return "Stream" in line or "XLA Ops" in line
        return "/device:" not in where and "hlo_op" in event.get("args", {})

    seen = sorted((e for e in events if e.get("ph") == "X" and on_device(e)), key=lambda e: e["ts"])
    if any("/device:" in processes.get(e["pid"], "") for e in seen):
        seen = [e for e in seen if "/device:" in processes.get(e["pid"], "")]
    kernels: dict[str, list] = defaultdict(lambda: [0, 0.0])
    layers: dict[str, float] = defaultdict(float)
    for event in seen:
        scope = re.search(r"\b(layer\d+)\b", json.dumps(event.get("args", {})))
        layers[scope[1] if scope else "rest"] += event["dur"]
        entry = kernels[event["name"][:80]]
        entry[0] += 1
        entry[1] += event["dur"]
    ordered = sorted(kernels.items(), key=lambda item: -item[1][1])
    return {
        "span_us": seen[-1]["ts"] + seen[-1]["dur"] - seen[0]["ts"] if seen else 0,
        "busy_us": sum(event["dur"] for event in seen),
        "layers": dict(sorted(layers.items(), key=lambda item: (len(item[0]), item[0]))),
        "kernels": [(name, *entry) for name, entry in ordered[:MOST]],
        "example": [event.get("args", {}) for event in seen[:: max(1, len(seen) // 5)][:5]],
    }
