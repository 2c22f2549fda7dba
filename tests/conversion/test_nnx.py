"""Flax NNX modules as users write them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsnn.conversion.model_import import import_model
from jaxsnn.errors import UserError


class Residual(nnx.Module):
    """Norms, a strided shortcut, a depthwise convolution, ReLU6, padded pools, dropout."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.conv1 = nnx.Conv(6, 8, (3, 3), strides=2, padding="SAME", use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(8, rngs=rngs)
        self.conv2 = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
        self.norm2 = nnx.BatchNorm(8, rngs=rngs)
        self.down = nnx.Conv(6, 8, (1, 1), strides=2, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.fc = nnx.Linear(128, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        y = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu6(self.norm2(self.conv2(y)) + self.down(x))
        x = nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME")
        return self.fc(self.drop(x.reshape(x.shape[0], -1)))


def test_a_residual_module_has_its_own_logits_and_stays_as_it_was():
    module = Residual(nnx.Rngs(0))
    module.norm1.mean.set_value(jnp.linspace(-0.3, 0.3, 8))
    module.norm1.var.set_value(jnp.linspace(0.5, 2, 8))
    imported = import_model(module, (8, 8, 3))
    assert imported.difference < 1e-5 < imported.largest
    assert imported.compared_with == "the module in Flax"
    assert [layer.name for layer in imported.network.layers] == ["stem", "conv1", "conv2", "fc"]
    assert imported.network.layers[2].cap == 6
    for name, own in (("stem.kernel", module.stem.kernel), ("fc.kernel", module.fc.kernel)):
        np.testing.assert_array_equal(imported.params[name], np.asarray(own.get_value()))
    assert not module.drop.deterministic


def test_one_dimension_and_a_mean_over_time():
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(
        nnx.Conv(3, 4, (5,), rngs=rngs), nnx.relu, lambda x: x.mean(1), nnx.Linear(4, 2, rngs=rngs)
    )
    imported = import_model(module, (18, 3))
    assert imported.difference < 1e-6
    assert imported.network.input_shape == (1, 18, 3)


@pytest.mark.parametrize(
    ("activation", "sentence"),
    [(nnx.gelu, "which is not converted"), (nnx.leaky_relu, "not converted"), (nnx.softmax, "not converted")],
)
def test_another_activation_is_refused(activation, sentence):
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), activation, nnx.Linear(4, 2, rngs=rngs))
    with pytest.raises(UserError, match=sentence) as refused:
        import_model(module, (4,))
    assert "\n" not in str(refused.value)


def test_a_shape_that_the_module_does_not_take_is_a_sentence():
    with pytest.raises(UserError, match=r"JAX cannot trace Linear for an input of shape \(2, 5\)"):
        import_model(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), (5,))
