"""Shared by the tests: strict types, small networks and an independent reference simulator."""

import jax
import pytest

from helpers.runs import random_params
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.weights import save_weights

jax.config.update("jax_numpy_dtype_promotion", "standard")


# commands keep what they compile in the user's folder; a test must not depend on what is there
jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Weights of a tiny untrained network for 32 x 32 images."""
    network = vgg([[4], [6]], name="tiny")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, random_params(network))
    return path
