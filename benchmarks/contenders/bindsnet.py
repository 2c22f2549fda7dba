"""BindsNET, with pools as strided convolutions."""

import importlib
import importlib.util
import os
import sys

import numpy as np

from benchmarks.contenders.base import Scores, Unsupported
from benchmarks.problem import macs
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Network, layer_shapes


def strided_kernel(kernel: np.ndarray, window: int) -> np.ndarray:
    """(k, k, C, F) of a convolution with a ``window`` x ``window`` average pool after it, as one strided kernel.

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

        torch.set_num_threads(os.cpu_count() or 1)
        self.torch = torch
        spec = importlib.util.find_spec("bindsnet")
        if "bindsnet" not in sys.modules and spec is not None:
            # its package without running the __init__, which imports what a simulation does not need
            sys.modules["bindsnet"] = importlib.util.module_from_spec(spec)
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

        weighted, after = ops[0], ops[1:]
        params = self.problem.params
        bias = {}
        if getattr(weighted, "bias", False):
            bias = {"b": self.torch.from_numpy(params[f"{weighted.name}.bias"].copy())}
        match weighted, after:
            case Dense(), ():
                kernel = np.ascontiguousarray(self.kernel(weighted, amplitude, shape).T)
                return Connection(source, target, w=self.torch.from_numpy(kernel), **bias)
            case Conv(), (() | (AvgPool(),)):
                window = after[0].window if after else 1
                if window > 1 and weighted.stride > 1:
                    raise Unsupported("BindsNET: a pool after a strided convolution")
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
