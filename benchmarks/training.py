"""Images a second of a training step: ours and PyTorch's, in turns in one process: python -m benchmarks.training

The same network with BatchNorm, batch, SGD with Nesterov momentum and label smoothing; ours in float32 with its
augmentation, PyTorch in bfloat16 (autocast) and float32, channels last, without augmentation. A ratio is the
median of the rounds' ratios.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's idle threads must not take the cores

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxsnn.ann import ANN
from jaxsnn.architectures import architecture
from jaxsnn.network import AvgPool, BatchNorm, Conv, Dense, Network, layer_shapes
from jaxsnn.train import TrainConfig, make_optimizer, resolve, train_step

SMOOTHING = 0.1


@dataclass(frozen=True)
class Config:
    """Compare training speed with PyTorch's."""

    networks: tuple[str, ...] = ("vgg11-slim", "vgg15-bn")
    """Sequential architectures; norms become BatchNorm."""
    batch: int = 128
    rounds: int = 5


def ours(network: Network, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """A step of ``jaxsnn.train``."""
    ann = ANN(network, 0)
    optimizer = make_optimizer(ann, resolve(TrainConfig(batch=len(labels))), 1000)
    inputs, targets = jax.numpy.asarray(images), jax.numpy.asarray(labels)
    keys = iter(jax.random.split(jax.random.key(0), 1000))
    return lambda: float(train_step(ann, optimizer, inputs, targets, next(keys), SMOOTHING))


def module(network: Network) -> Any:
    """The network in PyTorch, with weights of its own."""
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


def theirs(network: Network, images: np.ndarray, labels: np.ndarray, half: bool) -> Callable[[], float]:
    """A step in PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count())
    net = module(network)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels.astype(np.int64))
    net(x)  # gives the dense layers their shapes
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def main(config: Config) -> None:
    """Measure and print a table."""
    rng = np.random.default_rng(0)
    table = Table("network", "ours, images/s", "PyTorch bf16", "PyTorch f32", "of PyTorch bf16")
    for name in config.networks:
        network = architecture(name, norm=BatchNorm)
        images = rng.integers(0, 256, (config.batch, *network.input_shape), np.uint8)
        labels = rng.integers(0, network.classes, config.batch, np.int32)
        steps = [
            ours(network, images, labels),
            *(theirs(network, images, labels, half) for half in (True, False)),
        ]
        seconds: list[list[float]] = [[] for _ in steps]
        for turn in range(config.rounds + 1):  # the first compiles
            for step, times in zip(steps, seconds):
                started = time.perf_counter()
                if not np.isfinite(step()):
                    raise SystemExit(f"{name}: the loss is not finite")
                if turn:
                    times.append(time.perf_counter() - started)
        rates = [config.batch / median(times) for times in seconds]
        ratios = sorted(half / mine for mine, half in zip(seconds[0], seconds[1]))
        ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        table.add_row(name, *(f"{rate:,.0f}" for rate in rates), ratio)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.training", description=__doc__))
