"""The contenders of ``benchmarks.throughput``: our back-ends and other simulators, one process each.

    python -m benchmarks.contenders.worker PROBLEM NAME        # a worker: requests as JSON lines in, replies out

Every contender simulates the same converted network: the same weights and thresholds, soft reset, the image as a
constant current at every step, no gradients, uint8 images in and summed class scores out. What was done for the
peers, and how each is run:

- All get all cores. Spikes carry the threshold as amplitude: the threshold of the layer before is multiplied
  into the weights once, outside the timing, as a user who converts a network does. They simulate one candidate at
  a time, in batches of images; the sweep in ``benchmarks.throughput`` finds their best batch, and for PyTorch's
  family whether channels-last arrays are faster.
- The first convolution of a constant image is computed at every step: none of them has a way to know that it need
  not be.
- SpikingJelly: layers in multi-step mode (``step_mode="m"``), layer by layer over time, so that a convolution sees
  steps x images at once; bfloat16 by autocast. Pools stand where the network has them.
- snnTorch: ``Leaky`` with beta 1 and ``reset_mechanism="subtract"``, step by step, without the surrogate gradient.
- PyTorch: ``conv2d``, ``avg_pool2d`` and four lines for the neuron, step by step; eager, in bfloat16 by autocast,
  and one step compiled with ``torch.compile``.
- Spyx: ``spyx.nn.IF`` in ``spyx.nn.Sequential``, ``spyx.nn.run`` jitted. Its neuron fires from the membrane of the
  step before (eq. 1), so that each layer adds a step of delay; the check takes that into account, except that a
  layer with a bias starts too early. It runs under the XLA flag that ``jaxsnn`` sets, which makes it faster.
- BindsNET, which the paper used: ``SubtractiveResetIFNodes`` from its own converter, ``Conv2dConnection`` and
  ``Connection``, ``one_step=True`` (no layer delay; the work per step is the same). It has no average pool: a
  convolution and the pool after it become one strided 4x4 ``Conv2dConnection``, which is exact and takes 2.25
  times fewer operations than the two. Its package imports data sets and environments that a simulation does not
  need, so that only ``bindsnet.network`` and ``bindsnet.conversion`` are loaded.

Peers do chains of layers; a network with residual edges is refused.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

from benchmarks.contenders.entries import ENTRIES
from benchmarks.problem import load_problem


def peak_memory() -> dict[str, float]:
    """Peak of this process (and of its accelerator, where it has one) in MB.

    Linux: VmHWM, because ``getrusage`` also remembers the parent's memory from before the exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak = {"process_mb": int(line.split()[1]) / 1024}
    else:
        scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
        peak = {"process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale}
    if "jax" in sys.modules:
        stats = sys.modules["jax"].devices()[0].memory_stats()
        if stats:
            peak["device_mb"] = stats["peak_bytes_in_use"] / (1 << 20)
    elif "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        peak["device_mb"] = sys.modules["torch"].cuda.max_memory_allocated() / (1 << 20)
    return peak


def serve(problem: Path, name: str) -> None:
    """Answer requests until the input ends.

    A request is {"do": "run" or "check", "with": keyword arguments}; a reply is {"seconds", "idle_cpu_seconds",
    "memory", "result"} or {"error"}. Idle is the CPU time since the last reply: what waiting costs the others. The
    first line says that the contender is ready.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the replies

    def reply(value: dict) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    try:
        began = time.perf_counter()
        contender = ENTRIES[name].make(load_problem(problem))
        reply({"seconds": time.perf_counter() - began, "memory": peak_memory()})
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        return
    busy = time.process_time()
    for line in sys.stdin:
        request = json.loads(line)
        idle = time.process_time() - busy
        try:
            began = time.perf_counter()
            result = getattr(contender, request["do"])(**request["with"])
            seconds = time.perf_counter() - began
            reply({"seconds": seconds, "idle_cpu_seconds": idle, "memory": peak_memory(), "result": result})
        except Exception as error:
            reply({"error": f"{type(error).__name__}: {error}"})
        busy = time.process_time()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
