"""Spyx."""

import numpy as np

from benchmarks.contenders.base import Scores
from jaxsnn.networks.description import AvgPool, Conv, Dense, layer_shapes


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
