"""SpikingJelly, snnTorch and plain PyTorch."""

import os
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contenders.base import PeerLayer, Scores, Unsupported
from jaxsnn.networks.description import AvgPool, Conv, Dense, output_shape


class TorchPeer(Scores):
    """A peer in PyTorch, on the GPU if there is one; ``build`` sets ``net``, its modules."""

    net: Any

    def build(self) -> None:
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.layout = torch.contiguous_format

    @abstractmethod
    def simulate(self, x: Any, steps: int) -> Any:
        """Summed scores (N, classes) of normalised images (N, C, H, W), tensors on the device."""

    def modules(self, layer: PeerLayer, library: Any = None, **options: str) -> list:
        """The ops of a layer as modules of ``library`` (default ``torch.nn``) on the device."""
        import torch

        library = library or torch.nn
        shape, amplitude = layer.shape, layer.amplitude
        made = []
        for op in layer.ops:
            if isinstance(op, AvgPool):
                made.append(library.AvgPool2d(op.window, **options))
                shape = output_shape(op, shape)
                continue
            if not isinstance(op, Conv | Dense):
                raise Unsupported(f"{type(op).__name__} has no module")
            kernel = torch.from_numpy(self.kernel(op, amplitude, shape))
            amplitude = 1.0
            if isinstance(op, Conv):
                size = (kernel.shape[1], op.features, op.kernel, op.stride, op.kernel // 2)
                module = library.Conv2d(*size, bias=op.bias, **options)
            else:
                if len(shape) == 3:
                    made.append(library.Flatten(**options))
                module = library.Linear(kernel.shape[1], op.features, bias=op.bias, **options)
            shape = output_shape(op, shape)
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

        made = []
        for edge in self.edges():
            made += self.modules(edge, layer, step_mode="m")
            if edge.threshold is not None:
                made.append(neuron.IFNode(v_threshold=edge.threshold, v_reset=None, step_mode="m"))
        self.net = torch.nn.Sequential(*made).eval()

    def simulate(self, x: Any, steps: int) -> Any:
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

        self.maps = [(torch.nn.Sequential(*self.modules(edge)), edge.threshold) for edge in self.edges()]
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

    def simulate(self, x: Any, steps: int) -> Any:
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
        for edge in self.edges():
            self.net.append(torch.nn.Sequential(*self.modules(edge)))
            if edge.threshold is not None:
                node = snntorch.Leaky(
                    beta=1.0, threshold=edge.threshold, reset_mechanism="subtract", surrogate_disable=True
                )
                self.nodes.append(node.to(self.device))

    def simulate(self, x: Any, steps: int) -> Any:
        membranes = [node.reset_mem() for node in self.nodes]
        scores = 0
        for _ in range(steps):
            spikes = x
            for index, node in enumerate(self.nodes):
                spikes, membranes[index] = node(self.net[index](spikes), membranes[index])
            scores = scores + self.net[-1](spikes)
        return scores
