"""The contenders of ``benchmarks.throughput``: our back-ends and other simulators, one process each.

    python -m benchmarks.peers PROBLEM NAME        # a worker: requests as JSON lines in, replies out

Every contender simulates the same converted network: the same weights and thresholds, soft reset, the image as a
constant current at every step, no gradients, uint8 images in and summed class scores out. What was done for the
peers, and how each is run:

- All get all cores. Spikes carry the threshold as amplitude: the threshold of the layer in front is multiplied
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
  convolution and the pool behind it become one strided 4x4 ``Conv2dConnection``, which is exact and takes 2.25
  times fewer operations than the two. Its package imports data sets and environments that a simulation does not
  need, so that only ``bindsnet.network`` and ``bindsnet.conversion`` are loaded.

Peers do chains of layers; a network with residual edges is refused.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.problem import CHECK_STEPS, Problem, load_problem, macs
from jaxsnn.network import IMAGE, AvgPool, Conv, Dense, Network, layer_shapes


class Unsupported(Exception):
    """A contender cannot simulate this problem; the message says why."""


class Contender(Protocol):
    """One simulator, ready to simulate one problem."""

    def run(self, **request) -> dict:
        """One measurement; everything that it returns is on the host."""

    def check(self, images: int) -> dict:
        """{"differing": predictions that differ from the reference, "error": what else differs, relatively}."""


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
    from jaxsnn.linear import MATRIX_POSITIONS

    return macs(network, fold=True, first=False, matrix_positions=MATRIX_POSITIONS)


def ours(**plan) -> Callable[[Problem], Contender]:
    """Our simulator with ``jaxsnn.simulate.Plan(**plan)``."""
    return lambda problem: Ours(problem, plan)


def peer(kind: str, **options) -> Callable[[Problem], Contender]:
    """A peer class of this module, by name, because its packages are imported in its worker only."""
    return lambda problem: globals()[kind](problem, **options)


OURS: dict[str, Entry] = {
    "jaxsnn events": Entry(ours(backend="events"), executed_macs=None, requires=("numba",)),
    "jaxsnn events int8": Entry(
        ours(backend="events", precision="int8"), "int8", executed_macs=None, requires=("numba",)
    ),
    "jaxsnn XLA": Entry(ours(backend="xla"), executed_macs=our_macs),
    "jaxsnn XLA bf16": Entry(ours(backend="xla", precision="bfloat16"), "bfloat16", executed_macs=our_macs),
}
"""Our back-ends and precisions: ``ours`` takes the fields of ``Plan``."""

PEERS: dict[str, Entry] = {
    "SpikingJelly": Entry(peer("SpikingJelly"), requires=("torch", "spikingjelly"), channels_last=True),
    "SpikingJelly bf16": Entry(
        peer("SpikingJelly", bfloat16=True), "bfloat16", requires=("torch", "spikingjelly"), channels_last=True
    ),
    "PyTorch": Entry(peer("PlainTorch"), requires=("torch",), channels_last=True),
    "PyTorch bf16": Entry(peer("PlainTorch", bfloat16=True), "bfloat16", requires=("torch",), channels_last=True),
    "PyTorch compiled": Entry(
        peer("PlainTorch", compiled=True), requires=("torch",), channels_last=True, slow_start=True
    ),
    "PyTorch compiled bf16": Entry(
        peer("PlainTorch", compiled=True, bfloat16=True),
        "bfloat16",
        requires=("torch",),
        channels_last=True,
        slow_start=True,
    ),
    "snnTorch": Entry(peer("SnnTorch"), requires=("torch", "snntorch"), channels_last=True),
    "Spyx": Entry(peer("Spyx"), requires=("spyx",), slow_start=True),
    "BindsNET": Entry(peer("BindsNet"), executed_macs=lambda n: strided_macs(n), requires=("torch", "bindsnet")),
}
"""Other simulators."""

ENTRIES = OURS | PEERS


def missing(entry: Entry) -> list[str]:
    """Required packages that are not installed."""
    return [name for name in entry.requires if importlib.util.find_spec(name) is None]


class Ours:
    """``jaxsnn.simulate.observe`` with one plan."""

    def __init__(self, problem: Problem, plan: dict):
        from jaxsnn.plan import Plan
        from jaxsnn.snn import SNN
        from jaxsnn.weights import to_device

        self.problem, self.plan = problem, Plan(**plan)
        self.snn = SNN(problem.network, to_device(problem.params))

    def run(self, images: int, timesteps: int, delay: str, candidates: int = 1, scale: float = 1.0) -> dict:
        """Simulate the first candidates on the first images; per layer spikes and synops of all of them."""
        observed = self._observe(images, timesteps, delay, candidates, scale, np.zeros(images, np.int64))
        return {"spikes": observed.spikes.sum(0).tolist(), "synops": observed.synops.sum(0).tolist()}

    def check(self, images: int) -> dict:
        """Predictions by asking how many images get the reference's class; the error is that of all spikes."""
        predicted = self.problem.check_scores[:images].argmax(-1)
        observed = self._observe(images, CHECK_STEPS, "none", 1, 1.0, predicted)
        expected = self.problem.check_spikes
        error = np.abs(observed.spikes[0] - expected).max() / expected.max()
        return {"differing": int(images - observed.correct[0, -1]), "error": float(error), "of": "spikes"}

    def _observe(self, images, timesteps, delay, candidates, scale, labels):
        from jaxsnn.simulate import observe
        from jaxsnn.snn import Dynamics, Genes

        genes = Genes(self.problem.thresholds[:candidates] * np.float32(scale))
        dynamics = Dynamics(delay=delay)
        return observe(self.snn, genes, self.problem.images[:images], labels, timesteps, dynamics, self.plan)


@dataclass
class Scores:
    """What peers share: batches of images in, summed scores out; a subclass gives ``scores``."""

    problem: Problem
    bfloat16: bool = False
    extra_steps: int = field(default=0, init=False)
    """Steps that the peer's neurons come later than ours without layer delay."""

    def __post_init__(self):
        self.build()

    def run(self, images: int, steps: int, batch: int, channels_last: bool = False) -> dict:
        """Simulate the first candidate on the first images."""
        self.set_layout(channels_last)
        self.predict(images, steps, batch)
        return {}

    def set_layout(self, channels_last: bool) -> None:
        """Keep kernels and activations channels-last from now on, where a peer can."""

    def check(self, images: int) -> dict:
        """Predictions and the largest difference of a score, relative to the largest score."""
        scores = self.predict(images, CHECK_STEPS + self.extra_steps, images)
        expected = self.problem.check_scores[:images]
        differing = (scores.argmax(-1) != expected.argmax(-1)).sum()
        error = np.abs(scores - expected).max() / np.abs(expected).max()
        return {"differing": int(differing), "error": float(error), "of": "scores"}

    def predict(self, images: int, steps: int, batch: int) -> np.ndarray:
        """Summed scores (images, classes)."""
        parts = [
            self.scores(self.problem.images[start : min(start + batch, images)], steps)
            for start in range(0, images, batch)
        ]
        return np.concatenate(parts)

    def edges(self) -> Iterator[tuple[tuple, tuple[int, ...], float, float | None]]:
        """Of each layer: ops, input shape (H, W, C) or (N,), amplitude of incoming spikes, threshold or None."""
        network, thresholds = self.problem.network, self.problem.thresholds[0]
        shapes = layer_shapes(network)
        for index, layer in enumerate(network.layers):
            if len(layer.edges) != 1 or layer.edges[0].source != index - 1:
                raise Unsupported(f"layer {layer.name} does not read the layer in front of it alone")
            ops, first = layer.edges[0].ops, index == 0
            if not any(isinstance(op, Conv | Dense) for op in ops):
                raise Unsupported(f"layer {layer.name} has no weights")
            amplitude = 1.0 if first else float(thresholds[index - 1])
            threshold = float(thresholds[index]) if index < len(thresholds) else None
            yield ops, network.input_shape if first else shapes[index - 1], amplitude, threshold

    def kernel(self, op: Conv | Dense, amplitude: float, shape: tuple[int, ...]) -> np.ndarray:
        """OIHW or (outputs, inputs) kernel for channels-first arrays, the amplitude multiplied in."""
        kernel = self.problem.params[f"{op.name}.kernel"] * np.float32(amplitude)
        if isinstance(op, Conv):
            return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        if len(shape) == 3:
            kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        return np.ascontiguousarray(kernel.T)

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C) as float32, normalised."""
        network = self.problem.network
        mean, std = (np.asarray(part, np.float32) for part in (network.mean, network.std))
        return (images.astype(np.float32) / 255 - mean) / std


class TorchPeer(Scores):
    """A peer in PyTorch, on the GPU if there is one; a subclass gives ``net`` (its modules) and ``simulate``."""

    def build(self) -> None:
        import torch

        torch.set_num_threads(os.cpu_count())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.layout = torch.contiguous_format

    def modules(self, ops, shape, amplitude, step_mode: dict | None = None, library=None) -> list:
        """The ops of an edge as modules of ``library`` (default ``torch.nn``) on the device."""
        import torch

        library = library or torch.nn
        options = step_mode or {}
        made = []
        for op in ops:
            if isinstance(op, AvgPool):
                made.append(library.AvgPool2d(op.window, **options))
                shape = (shape[0] // op.window, shape[1] // op.window, shape[2])
                continue
            kernel = torch.from_numpy(self.kernel(op, amplitude, shape))
            amplitude = 1.0
            if isinstance(op, Conv):
                size = (kernel.shape[1], op.features, op.kernel, op.stride, op.kernel // 2)
                module = library.Conv2d(*size, bias=op.bias, **options)
                sides = ((side + 2 * (op.kernel // 2) - op.kernel) // op.stride + 1 for side in shape[:2])
                shape = (*sides, op.features)
            else:
                if len(shape) == 3:
                    made.append(library.Flatten(**options))
                module = library.Linear(kernel.shape[1], op.features, bias=op.bias, **options)
                shape = (op.features,)
            with torch.no_grad():
                module.weight.copy_(kernel)
                if op.bias:
                    module.bias.copy_(torch.from_numpy(self.problem.params[f"{op.name}.bias"]))
            made.append(module)
        return [module.to(self.device) for module in made]

    def set_layout(self, channels_last: bool) -> None:
        import torch

        layout = torch.channels_last if channels_last else torch.contiguous_format
        if layout != self.layout:
            self.layout = layout
            self.net.to(memory_format=layout)

    def scores(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Summed scores (N, classes) after ``steps``."""
        import torch

        x = torch.from_numpy(self.normalised(images)).permute(0, 3, 1, 2).to(self.device)
        x = x.contiguous(memory_format=self.layout)
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            return self.simulate(x, steps).float().cpu().numpy()


class SpikingJelly(TorchPeer):
    """SpikingJelly, multi-step."""

    def build(self) -> None:
        super().build()
        import torch
        from spikingjelly.activation_based import layer, neuron

        multi = {"step_mode": "m"}
        made = []
        for ops, shape, amplitude, threshold in self.edges():
            made += self.modules(ops, shape, amplitude, multi, layer)
            if threshold is not None:
                made.append(neuron.IFNode(v_threshold=threshold, v_reset=None, **multi))
        self.net = torch.nn.Sequential(*made).eval()

    def simulate(self, x, steps):
        from spikingjelly.activation_based import functional

        scores = self.net(x.expand(steps, *x.shape)).float().sum(0)
        functional.reset_net(self.net)
        return scores


@dataclass
class PlainTorch(TorchPeer):
    """PyTorch alone, step by step over the layers."""

    compiled: bool = False

    def build(self) -> None:
        super().build()
        import torch

        self.maps = [(torch.nn.Sequential(*self.modules(*edge)), threshold) for *edge, threshold in self.edges()]
        self.net = torch.nn.ModuleList(linear for linear, _ in self.maps)
        self.step = torch.compile(self._step, dynamic=False) if self.compiled else self._step

    def _step(self, x, membranes):
        """One step of all layers: the read-out's input and the membranes after it."""
        after = []
        for index, (linear, threshold) in enumerate(self.maps):
            drive = linear(x)
            if threshold is None:
                return drive.float(), after
            v = drive.float() if membranes is None else membranes[index] + drive
            spikes = (v > threshold).to(drive.dtype)
            after.append(v - threshold * spikes)
            x = spikes
        raise AssertionError("a network ends in a read-out")

    def simulate(self, x, steps):
        scores, membranes = self._step(x, None)
        for _ in range(steps - 1):
            drive, membranes = self.step(x, membranes)
            scores = scores + drive
        return scores


class SnnTorch(TorchPeer):
    """snnTorch, step by step."""

    def build(self) -> None:
        super().build()
        import snntorch
        import torch

        self.net, self.nodes = torch.nn.ModuleList(), []
        for *edge, threshold in self.edges():
            self.net.append(torch.nn.Sequential(*self.modules(*edge)))
            if threshold is not None:
                node = snntorch.Leaky(
                    beta=1.0, threshold=threshold, reset_mechanism="subtract", surrogate_disable=True
                )
                self.nodes.append(node.to(self.device))

    def simulate(self, x, steps):
        membranes = [node.reset_mem() for node in self.nodes]
        scores = 0
        for _ in range(steps):
            spikes = x
            for index, node in enumerate(self.nodes):
                spikes, membranes[index] = node(self.net[index](spikes), membranes[index])
            scores = scores + self.net[-1](spikes)
        return scores


class Spyx(Scores):
    """Spyx, jitted."""

    def build(self) -> None:
        import jax
        from flax import nnx
        from spyx import nn

        layers, rngs = [], nnx.Rngs(0)
        shapes = layer_shapes(self.problem.network)
        for index, (ops, _, amplitude, threshold) in enumerate(self.edges()):
            for op in ops:
                layers.append(self._module(op, amplitude, rngs))
                amplitude = 1.0 if isinstance(op, Conv | Dense) else amplitude
            if threshold is not None:
                layers.append(nn.IF(shapes[index], threshold))
        self.extra_steps = len(self.problem.network.spiking)
        graph, state = nnx.split(nn.Sequential(*layers))

        def simulate(state, x, steps):
            model = nnx.merge(graph, state)
            drive, _ = nn.run(model, jax.numpy.broadcast_to(x, (steps, *x.shape)))
            return drive.sum(0)

        self.state, self.simulate = state, jax.jit(simulate, static_argnums=2)

    def _module(self, op, amplitude, rngs):
        from functools import partial

        from flax import nnx
        from jax.numpy import asarray

        if isinstance(op, AvgPool):
            return partial(nnx.avg_pool, window_shape=(op.window,) * 2, strides=(op.window,) * 2)
        params = self.problem.params
        kernel = params[f"{op.name}.kernel"]
        options = {
            "use_bias": op.bias,
            "rngs": rngs,
            "kernel_init": lambda *_: asarray(kernel * np.float32(amplitude)),
        }
        if op.bias:
            options["bias_init"] = lambda *_: asarray(params[f"{op.name}.bias"])
        if isinstance(op, Conv):
            pad = (op.kernel // 2,) * 2
            options |= {"kernel_size": (op.kernel,) * 2, "strides": op.stride, "padding": (pad, pad)}
            return nnx.Conv(kernel.shape[2], op.features, **options)
        module = nnx.Linear(*kernel.shape, **options)
        return nnx.Sequential(lambda x: x.reshape(len(x), -1), module)

    def scores(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Summed scores (N, classes) after ``steps``."""
        return np.asarray(self.simulate(self.state, self.normalised(images), steps))

    def check(self, images: int) -> dict:
        """As for the others; says so where biases make the comparison pointless."""
        found = super().check(images)
        biased = any(name.endswith(".bias") for name in self.problem.params)
        return found | ({"of": "scores, its biases start early"} if biased else {})


def strided_kernel(kernel: np.ndarray, window: int) -> np.ndarray:
    """(k, k, C, F) of a convolution with a ``window`` x ``window`` average pool behind it, as one strided kernel.

    Its stride is ``window``, its padding that of the convolution.
    """
    size = kernel.shape[0] + window - 1
    wide = np.zeros((size, size, *kernel.shape[2:]), np.float32)
    for i in range(window):
        for j in range(window):
            wide[i : i + kernel.shape[0], j : j + kernel.shape[1]] += kernel
    return wide / window**2


def strided_macs(network: Network) -> int:
    """Multiply-accumulates per image and step with ``strided_kernel``, the first layer included."""
    total = macs(network)
    shapes = layer_shapes(network)
    for index, layer in enumerate(network.layers):
        ops, source = layer.edges[0].ops, layer.edges[0].source
        if len(ops) == 2 and isinstance(ops[0], Conv) and isinstance(ops[1], AvgPool):
            conv, window = ops[0], ops[1].window
            channels = network.input_shape[2] if source == IMAGE else shapes[source][2]
            pooled = shapes[index][0] * shapes[index][1]
            pairs = (conv.kernel + window - 1) ** 2 - (conv.kernel * window) ** 2
            total += pairs * pooled * channels * conv.features
    return total


class BindsNet(Scores):
    """BindsNET, step by step."""

    def build(self) -> None:
        import torch

        torch.set_num_threads(os.cpu_count())
        self.torch = torch
        if "bindsnet" not in sys.modules:
            # its package without running the __init__
            sys.modules["bindsnet"] = importlib.util.module_from_spec(importlib.util.find_spec("bindsnet"))
        from bindsnet.conversion.nodes import SubtractiveResetIFNodes
        from bindsnet.network import Network as Net
        from bindsnet.network.nodes import Input

        self.net = Net(learning=False)
        shapes = layer_shapes(self.problem.network)
        height, width, channels = self.problem.network.input_shape
        source = Input(shape=(channels, height, width))
        self.net.add_layer(source, "0")
        for index, (ops, shape, amplitude, threshold) in enumerate(self.edges()):
            target = shapes[index]
            options = {"shape": (target[2], *target[:2])} if len(target) == 3 else {"n": target[0]}
            # the read-out sums its input and must not fire
            node = SubtractiveResetIFNodes(
                **options, thresh=threshold or 1e30, reset=0.0, refrac=0, sum_input=threshold is None
            )
            self.net.add_layer(node, str(index + 1))
            connection = self._connection(ops, shape, amplitude, source, node)
            self.net.add_connection(connection, str(index), str(index + 1))
            source = node
        self.net.train(False)

    def _connection(self, ops, shape, amplitude, source, target):
        from bindsnet.network.topology import Connection, Conv2dConnection

        weighted, behind = ops[0], ops[1:]
        params = self.problem.params
        bias = {}
        if getattr(weighted, "bias", False):
            bias = {"b": self.torch.from_numpy(params[f"{weighted.name}.bias"].copy())}
        match weighted, behind:
            case Dense(), ():
                kernel = np.ascontiguousarray(self.kernel(weighted, amplitude, shape).T)
                return Connection(source, target, w=self.torch.from_numpy(kernel), **bias)
            case Conv(), (() | (AvgPool(),)):
                window = behind[0].window if behind else 1
                if window > 1 and weighted.stride > 1:
                    raise Unsupported("BindsNET: a pool behind a strided convolution")
                kernel = strided_kernel(params[f"{weighted.name}.kernel"] * np.float32(amplitude), window)
                kernel = self.torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
                stride, pad = weighted.stride * window, weighted.kernel // 2
                return Conv2dConnection(source, target, kernel.shape[2:], stride, pad, w=kernel, **bias)
        raise Unsupported("BindsNET has no connection for an average pool in front of weights")

    def scores(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Summed scores (N, classes) after ``steps``."""
        x = self.torch.from_numpy(self.normalised(images).transpose(0, 3, 1, 2).copy())
        with self.torch.inference_mode():
            self.net.run({"0": x.expand(steps, *x.shape)}, time=steps, one_step=True)
            summed = list(self.net.layers.values())[-1].summed.clone()
            self.net.reset_state_variables()
        return summed.numpy()


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
