"""Images a second of a training step: ours and PyTorch's, in turns in one process: python -m benchmarks.training

The same network with BatchNorm, batch, SGD with Nesterov momentum and label smoothing; ours in the precision of
`jaxsnn.train` with its augmentation, PyTorch (if installed) in bfloat16 (autocast) and float32, channels last,
without augmentation. A ratio is the median of the rounds' ratios. GFLOP/s are nominal: three times the forward
pass's, pools not folded; their share, which folding can lift above 100 %, is of this machine's best dot product in
the same precision.
On a GPU: --networks vgg15-bn --batch 1024 --steps 20
"""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.machine import best_dots
from benchmarks.problem import macs, require_plain
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import AvgPool, BatchNorm, Conv, Dense, Network, layer_shapes
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.training.ann import ANN
from jaxsnn.training.loop import in_bfloat16, make_optimizer, train_step
from jaxsnn.training.recipes import recipe_of

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's idle threads must not take the cores


SMOOTHING = 0.1


@dataclass(frozen=True)
class Config(DebugOptions):
    """Compare training speed with PyTorch's."""

    networks: tuple[str, ...] = ("vgg11-slim", "vgg15-bn")
    """Sequential architectures; norms become BatchNorm."""
    batch: int = 128
    rounds: int = 5
    steps: int = 1
    """Steps in a round; the loss is waited for after the last of them."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """As in jaxsnn.train."""


def ours(network: Network, images: np.ndarray, labels: np.ndarray, half: bool) -> Callable[[], Any]:
    """A step of ``jaxsnn.train``."""
    ann = ANN(network, 0, half=half)
    optimizer = make_optimizer(ann, recipe_of("fast", batch=len(labels)), 1000)
    inputs, targets = jax.numpy.asarray(images), jax.numpy.asarray(labels)
    key = jax.random.key(0)
    step = nnx.cached_partial(train_step, ann, optimizer)  # as AnnDescent calls it
    return lambda: step(inputs, targets, key, SMOOTHING)


def module(network: Network) -> Any:
    """The network in PyTorch, with weights of its own."""
    require_plain(network)
    import torch

    made: list[torch.nn.Module] = []
    shapes = [network.input_shape, *layer_shapes(network)]
    for index, layer in enumerate(network.layers):
        (edge,) = layer.edges
        channels = shapes[index][-1]
        for op in edge.ops:
            if isinstance(op, Conv):
                made.append(
                    torch.nn.Conv2d(channels, op.features, op.kernel, op.stride, op.kernel // 2, bias=op.bias)
                )
                channels = op.features
            elif isinstance(op, AvgPool):
                made.append(torch.nn.AvgPool2d(op.window))
            elif isinstance(op, Dense):
                made += [torch.nn.Flatten(), torch.nn.LazyLinear(op.features, bias=op.bias)]
                channels = op.features
            elif isinstance(op, BatchNorm):
                flat = isinstance(made[-1], torch.nn.LazyLinear)
                made.append((torch.nn.BatchNorm1d if flat else torch.nn.BatchNorm2d)(channels))
        if index < len(network.spiking):
            made.append(torch.nn.ReLU())
    return torch.nn.Sequential(*made)


def theirs(network: Network, images: np.ndarray, labels: np.ndarray, half: bool) -> Callable[[], Any]:
    """A step in PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = module(network)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels.astype(np.int64))
    net(x)  # gives the dense layers their shapes
    net.to(device, memory_format=torch.channels_last)
    x, y = x.to(device), y.to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def best_dot(half: bool) -> float:
    """GFLOP/s of the fastest dot product in ours or PyTorch."""
    return max(best_dots()["bfloat16" if half else "float32"].values())


def take_turns(config: Config, name: str, steps: list[Callable[[], Any]]) -> list[list[float]]:
    """Seconds of a training step of each contender, in every round but the first, which compiles."""
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(config.rounds + 1):
        for step, times in zip(steps, seconds):
            started = time.perf_counter()
            losses = [step() for _ in range(config.steps)]
            if not np.isfinite(float(losses[-1])):
                raise UserError(f"{name}: the loss is not finite")
            if turn:
                times.append((time.perf_counter() - started) / config.steps)
    return seconds


def row_of(config: Config, name: str, network: Network, seconds: list[list[float]], best: float) -> list[str]:
    """One line of the table: ours, and PyTorch's where it took part; ``best`` dot product in GFLOP/s."""
    rates = [config.batch / median(times) for times in seconds]
    work = 6e-9 * macs(network) * rates[0]
    cells = [name, f"{rates[0]:,.0f}", f"{work:,.0f}", f"{100 * work / best:.0f} %"]
    cells += [f"{rate:,.0f}" for rate in rates[1:]]
    if len(seconds) > 1:
        ratios = sorted(their / our for our, their in zip(seconds[0], seconds[1]))
        cells.append(f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return cells


def main(config: Config) -> None:
    """Measure and print a table."""
    at_least(config, batch=1, rounds=1, steps=1)
    networks = {name: architecture(name, norm=BatchNorm) for name in config.networks}
    half = in_bfloat16(config.precision)
    peers = importlib.util.find_spec("torch") is not None
    best = best_dot(half)
    rng = np.random.default_rng(0)
    columns = ("PyTorch bf16", "PyTorch f32", "of PyTorch bf16") if peers else ()
    table = Table("network", "ours, images/s", "GFLOP/s", "of the best dot", *columns)
    for name, network in networks.items():
        images = rng.integers(0, 256, (config.batch, *network.input_shape), np.uint8)
        labels = rng.integers(0, network.classes, config.batch, np.int32)
        steps = [ours(network, images, labels, half)]
        if peers:
            steps += [theirs(network, images, labels, in_half) for in_half in (True, False)]
        seconds = take_turns(config, name, steps)
        best = max(best, best_dot(half))  # of before and after: the machine's other work is not this table's
        table.add_row(*row_of(config, name, network, seconds, best))
    console = Console()
    console.print(
        f"{describe_device()}, ours in {'bfloat16' if half else 'float32'}, best dot {best:,.0f} GFLOP/s"
    )
    console.print(table)


if __name__ == "__main__":
    command.run(Config, main, "training", __doc__)
