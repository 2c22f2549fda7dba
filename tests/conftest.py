"""Shared by the tests: strict types, small networks and an independent reference simulator."""

import importlib
import shutil
import tempfile

import jax
import pytest

from helpers.runs import random_params
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.weights import save_weights
from jaxsnn.runtime.compile_cache import loads_what_it_kept

jax.config.update("jax_numpy_dtype_promotion", "standard")


COMPILED = pytest.StashKey[str]()


AS_USERS_HAVE_IT = {"simulation", "networks", "exports", "examples"}
"""Folders of tests of what the compiled simulator computes: they leave out none of the compiler's passes."""
INTERPRETED = {"test_gpu.py", "test_tpu.py"}
"""Of these, the ones whose kernels no user compiles for a CPU."""


def pytest_configure(config):
    """The same program is compiled once for all tests of a process: JAX keeps it in a folder that starts empty.

    Never in the user's, where commands keep it: a test must not depend on what is there. And one folder for each
    process: JAX writes a program in place, and another process could read half of it.
    """
    if loads_what_it_kept():
        folder = config.stash[COMPILED] = tempfile.mkdtemp(prefix="jaxsnn-tests-")
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    else:
        jax.config.update("jax_enable_compilation_cache", False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process takes a row of files, so that it makes their fixtures and programs once, and the first that is
    done takes from the others."""
    if config.getoption("dist") == "load":  # what -n alone means
        return importlib.import_module("xdist.scheduler").WorkStealingScheduling(config, log)
    return None


def pytest_unconfigure(config):
    if COMPILED in config.stash:
        shutil.rmtree(config.stash[COMPILED], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def compiler(request):
    """Everywhere else LLVM's passes are left out, a sixth of the tests' time or less; XLA's own remain.

    What was compiled the other way is forgotten, so that the programs that a test compares are compiled alike.
    """
    fast = request.path.parent.name not in AS_USERS_HAVE_IT or request.path.name in INTERPRETED
    if jax.config.read("jax_disable_most_optimizations") != fast:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", fast)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Weights of a tiny untrained network for 32 x 32 images."""
    network = vgg([[4], [6]], name="tiny")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, random_params(network))
    return path
