"""The trainable ANN of a network description, as a Flax NNX module."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxsnn.networks import linear_maps
from jaxsnn.networks.activations import LEAST_CEILING, activations, quantised, rectified
from jaxsnn.networks.description import (
    EPSILON,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Edge,
    Network,
    Op,
    ScaleNorm,
    parameter_shapes,
    run,
    walk,
)
from jaxsnn.training import channel_sums

MOMENTUM = 0.9
"""Of the running statistics."""
_FAN_IN = jax.nn.initializers.he_normal()


class Norm(nnx.Module):
    """Per-channel normalisation of (N, ..., C): (x - mean) / sqrt(var + eps) * scale + bias.

    With ``centred=False`` mean and bias are absent and var is the mean square: folding leaves no bias.
    """

    def __init__(self, features: int, centred: bool, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features)) if centred else None
        self.mean = nnx.BatchStat(jnp.zeros(features)) if centred else None

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        mean = jnp.zeros(x.shape[-1])
        var = self.var[...]
        if train:
            square = channel_sums.mean_square(x)
            if self.mean is not None:
                mean = channel_sums.mean(x)
                self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * lax.stop_gradient(mean)
            var = square - mean * mean
            self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * lax.stop_gradient(var)
        elif self.mean is not None:
            mean = self.mean[...]
        scale = lax.rsqrt(var + self.epsilon) * self.scale[...]
        bias = 0.0 if self.bias is None else self.bias[...]
        return channel_sums.affine(x, scale, bias - mean * scale)


class Kernel(nnx.Module):
    """Kernel and optional bias of a convolution or dense map, drawn Kaiming-normal."""

    def __init__(self, op: Conv | Dense, shape: tuple[int, ...], rngs: nnx.Rngs, fan_out: bool):
        shapes = parameter_shapes(op, shape)
        draw = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal") if fan_out else _FAN_IN
        initial = draw(rngs.params(), shapes[f"{op.name}.kernel"])
        self.kernel = nnx.Param(initial)
        self.bias = nnx.Param(jnp.zeros(op.features)) if op.bias else None


class ANN(nnx.Module):
    """The network with its activations, trainable.

    ``ann(x)`` maps normalised images (N, H, W, C) to logits (N, classes). ``ann(x, key)`` does so in training:
    norms use and update their statistics of the batch, dropout draws its masks from ``key``. Kernels are drawn
    Kaiming-normal (He et al. 2015) from ``seed``, over the fan-in or, with ``fan_out``, the fan-out. With ``half``
    linear maps are computed in bfloat16; parameters, norms and sums of edges stay in float32.

    A map in front of a ``ScaleNorm`` is used with centred kernels (zero mean over each output's inputs): inputs
    after a ReLU are positive, so this removes most of the mean that ``ScaleNorm`` cannot, and it leaves no
    bias. The README compares it with ``BatchNorm`` and with no norm.
    """

    def __init__(self, network: Network, seed: int, fan_out: bool = False, half: bool = False):
        rngs = nnx.Rngs(seed)
        self.network = network
        self.half = half
        self.ops = nnx.Dict()
        biased = {op.name for _, _, op, _ in walk(network) if isinstance(op, Conv | Dense) and op.bias}
        for _, _, op, shape in walk(network):
            if isinstance(op, Conv | Dense):
                if op.name not in self.ops:  # edges may share one, of which only one need have the bias
                    self.ops[op.name] = Kernel(replace(op, bias=op.name in biased), shape, rngs, fan_out)
            elif isinstance(op, BatchNorm):
                self.ops[op.name] = Norm(shape[-1], centred=True, epsilon=op.epsilon)
            elif isinstance(op, ScaleNorm):
                self.ops[op.name] = Norm(shape[-1], centred=False)
        quantised = [layer.name for layer in network.spiking if layer.levels]
        self.ceilings = nnx.Dict({name: nnx.Param(jnp.ones(1)) for name in quantised})

    def params(self) -> dict[str, jax.Array]:
        """Parameters and running statistics by name, ``<op>.<parameter>``, as the network description has them."""
        params = {f"{name}.{part}": array for name, op in self.ops.items() for part, array in _arrays(op).items()}
        params |= {f"{name}.ceiling": ceiling[...] for name, ceiling in self.ceilings.items()}
        for layer in self.network.layers:
            for edge in layer.edges:
                if any(isinstance(op, ScaleNorm) for op in edge.ops):
                    for op in edge.ops:
                        if isinstance(op, Conv | Dense):
                            kernel = params[f"{op.name}.kernel"]
                            params[f"{op.name}.kernel"] = kernel - kernel.mean(tuple(range(kernel.ndim - 1)))
        return params

    def set_params(self, params: dict[str, jax.Array]) -> None:
        """Take parameters by name, as ``params`` gives them; those that ``params`` does not name stay."""
        for name, op in self.ops.items():
            for part in _arrays(op):
                if f"{name}.{part}" in params:
                    getattr(op, part)[...] = jnp.asarray(params[f"{name}.{part}"])
        for name, ceiling in self.ceilings.items():
            if f"{name}.ceiling" in params:
                ceiling[...] = jnp.asarray(params[f"{name}.ceiling"])

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        params = self.params()
        return self._sums(x, key, params, activations(self.network, params))[-1]

    def start_scales(self, x: jax.Array, key: jax.Array) -> None:
        """Scale kernels without a norm to unit variance of their outputs on normalised images (N, H, W, C).

        Layer by layer, each on the outputs of the scaled ones before it, with norms and dropout as in training
        (LSUV without its orthogonal start: D. Mishkin and J. Matas, All you need is a good init, ICLR 2016); the
        read-out keeps its own. A pool in front of the activation shrinks the signal, which a Kaiming start does
        not allow for.
        """
        readout = self.network.layers[-1].edges
        masks = (jax.random.fold_in(key, index) for index in itertools.count())

        def apply(edge: Edge, x: jax.Array) -> jax.Array:
            maps = [op for op in edge.ops if isinstance(op, Conv | Dense)]
            normed = any(isinstance(op, BatchNorm | ScaleNorm) for op in edge.ops)
            if maps and not normed and edge not in readout:
                kernel = self.ops[maps[0].name].kernel
                spread = jnp.std(self._apply(edge, x, self.params(), masks))
                kernel[...] = kernel[...] / jnp.where(spread > 0, spread, 1)
            return self._apply(edge, x, self.params(), masks)

        layers = iter(self.network.layers)
        run(self.network, x, apply, lambda z: rectified(z, next(layers)))

    def start_ceilings(self, x: jax.Array, key: jax.Array, percentile: float = 99.7) -> None:
        """Set each quantised layer's ceiling to a percentile of its activations on a batch of normalised images.

        Layer by layer, each on the outputs of the quantised ones before it, with the norms' statistics of this
        batch. One value for all layers would round away every activation that is small against it, as they are in
        a network without norms.
        """
        layers = iter(self.network.layers)

        def activation(z: jax.Array) -> jax.Array:
            layer = next(layers)
            active = rectified(z, layer)
            if layer.levels is None:
                return active
            ceiling = jnp.maximum(jnp.percentile(active, percentile, keepdims=True).reshape(1), LEAST_CEILING)
            self.ceilings[layer.name][...] = ceiling
            return quantised(z, ceiling, layer.levels)

        self._sums(x, key, self.params(), activation)

    def _sums(
        self,
        x: jax.Array,
        key: jax.Array | None,
        params: dict[str, jax.Array],
        activation: Callable[[jax.Array], jax.Array],
    ) -> list[jax.Array]:
        """Sums in front of every layer's activation; arguments as in a call."""
        masks = None if key is None else (jax.random.fold_in(key, index) for index in itertools.count())
        return run(self.network, x, lambda edge, x: self._apply(edge, x, params, masks), activation)

    def _apply(
        self, edge: Edge, x: jax.Array, params: dict[str, jax.Array], masks: Iterator[jax.Array] | None
    ) -> jax.Array:
        """One edge; in training, ``masks`` has a key for every dropout."""

        def other(op: Op, x: jax.Array) -> jax.Array:
            if isinstance(op, BatchNorm | ScaleNorm):
                return self.ops[op.name](x.astype(jnp.float32), train=masks is not None)
            if masks is None or not isinstance(op, Dropout):
                return x
            keep = jax.random.bernoulli(next(masks), 1 - op.rate, x.shape)
            return jnp.where(keep, x / (1 - op.rate), 0)

        if self.half:
            kernels = [f"{op.name}.kernel" for op in edge.ops if isinstance(op, Conv | Dense)]
            params = params | {name: params[name].astype(jnp.bfloat16) for name in kernels}
            x = x.astype(jnp.bfloat16)
        return linear_maps.linear_map(edge.ops, params, x.shape[1:], other, trained=True)(x).astype(jnp.float32)


_PARTS = ("kernel", "bias", "scale", "mean", "var")


def _arrays(module: Kernel | Norm) -> dict[str, jax.Array]:
    return {name: getattr(module, name)[...] for name in _PARTS if getattr(module, name, None) is not None}
