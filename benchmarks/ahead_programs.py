"""The programs that benchmarks.ahead compiles, each for one chip or a mesh of them, as shapes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Lowered

from benchmarks.bptt_memory import OPTIMIZER, bptt_inputs, shapes
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import BatchNorm, Network, shapes_of
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation import clipped_ann, dense, gpu, kernels, tpu
from jaxsnn.simulation.integers import integer_neurons, quantize
from jaxsnn.training.ann import ANN
from jaxsnn.training.bptt import Unrolling, make_step
from jaxsnn.training.loop import make_optimizer, train_step
from jaxsnn.training.recipes import recipe_of

CONFIG = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA must know of an H100."""


class Chip(NamedTuple):
    """Figures of the maker's data sheet, dense; ``topology`` and ``several`` name one board and many."""

    platform: str
    topology: str
    several: str
    sides: tuple[int, int]
    float32: float
    bfloat16: float
    int8: float
    bandwidth: float


# XLA multiplies float32 on a TPU in six products of bfloat16
CHIPS = {
    "h100": Chip("gpu", "1x1x1", "1x1x8", (4, 2), 67e12, 989e12, 1979e12, 3.35e12),
    "v5e": Chip("tpu", "v5e:2x2", "v5e:4x4", (4, 4), 197e12 / 6, 197e12, 393e12, 819e9),
    "v5p": Chip("tpu", "v5p:2x2x1", "v5p:2x2x2", (4, 2), 459e12 / 6, 459e12, 918e12, 2765e9),
    "v6e": Chip("tpu", "v6e:2x2", "v6e:4x4", (4, 4), 918e12 / 6, 918e12, 1836e12, 1640e9),
}
OURS = {"gpu": gpu, "tpu": tpu}


def devices(chip: Chip, several: bool) -> Any:
    """The devices of one board or of many; raises ImportError without the compiler."""
    from jax.experimental import topologies

    name = chip.several if several else chip.topology
    if chip.platform == "tpu":
        import libtpu  # noqa: F401

        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    import jax_plugins.xla_cuda13

    try:
        jax_plugins.xla_cuda13.initialize()
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
    return topologies.get_topology_desc("h100", platform="cuda", topology=name, target_config=CONFIG).devices


@contextmanager
def pretended(chip: Chip, order: str) -> Iterator[None]:
    """As if this process had the chip, with our kernels where ``order`` is "kernels"."""
    ours = OURS[chip.platform] if order == "kernels" else None
    with (
        mock.patch.object(kernels, "usable", lambda precision: ours),
        mock.patch.object(jax, "default_backend", lambda: chip.platform),
    ):
        if chip.platform == "gpu":
            _know_the_h100()
        dense.simulate.clear_cache()
        yield
    dense.simulate.clear_cache()


def _know_the_h100() -> None:
    """Triton's part of Pallas asks for the GPU of this machine; there is none."""
    from jax._src.pallas.triton import pallas_call_registration as registration

    info = getattr(registration, "gpu_info_lib", None)
    if info is not None:
        known = info.get_gpu_info_from_version(info.GpuVersion.H100)
        info.get_gpu_info = lambda *given, **named: known


def random_snn(name: str) -> SNN:
    """An architecture with random weights."""
    from jaxsnn.conversion.folding import fold

    network, rng = architecture(name), np.random.default_rng(0)
    drawn = {
        k: (rng.standard_normal(s) * 0.05 if k.endswith(".kernel") else np.ones(s)).astype(np.float32)
        for k, s in shapes_of(network).items()
    }
    return SNN(*fold(network, drawn))


def _placed(tree: Any, mesh: Mesh, spec: P) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def simulator(
    snn: SNN, grid: np.ndarray, precision: str, block: int, population: int, images: int, timesteps: int
) -> Lowered:
    """``dense.simulate`` of P candidates on B images, on one device or on all of ``grid``."""
    network, params, kind = snn.network, snn.params, np.uint8
    each: Any = Genes(np.ones((population, len(network.spiking)), np.float32))
    if precision == "int8":
        integers = quantize(snn)
        network, params, kind = integers.network, integers.kernels, np.float32
        each = integer_neurons(integers, each, timesteps)
    several = grid.size > 1
    mesh = Mesh(grid if several else grid.reshape(1, 1), ("population", "data"))
    rows = (np.zeros((images, *network.input_shape), kind), np.zeros(images, np.int32), np.zeros(images, bool))
    population_spec, rows_spec = (P("population"), P("data")) if several else (P(), P())
    return dense.simulate.lower(
        network,
        Dynamics(delay="none"),
        timesteps,
        False,
        precision,
        mesh if several else None,
        block,
        _placed(params, mesh, P()),
        _placed(each, mesh, population_spec),
        *_placed(rows, mesh, rows_spec),
    )


def clipped(snn: SNN, device: Any, population: int, images: int) -> Lowered:
    """A pass of the clipped ANN."""
    mesh = Mesh(np.array([device]), ("one",))
    theta = np.ones((population, len(snn.network.spiking)), np.float32)
    inputs = (snn.params, theta, np.zeros((images, *snn.network.input_shape), np.uint8))
    return clipped_ann._clipped.lower(snn.network, *_placed(inputs, mesh, P()))


def generation(device: Any, population: int, dimension: int) -> Lowered:
    """What the jitted differential evolution does with the costs of a generation."""
    import evo
    from evo.engines import device as engine

    made: Any = evo.make_engine("jax", np.zeros(dimension), np.ones(dimension), population)
    state = made.init(0)
    candidates, state = made.ask(state)
    mesh = Mesh(np.array([device]), ("one",))
    inputs = jax.eval_shape(lambda: (made.setting, state, candidates, jnp.zeros(population)))
    return engine._tell.lower(*_placed(inputs, mesh, P()), made.strategy)


def training(name: str, device: Any, batch: int) -> Lowered:
    """A step of ``jaxsnn.train`` in bfloat16."""
    network: Network = architecture(name, norm=BatchNorm)
    ann = ANN(network, 0, half=True)
    optimizer = make_optimizer(ann, recipe_of("fast", batch=batch), 1000)
    graph, state = nnx.split((ann, optimizer))
    mesh = Mesh(np.array([device]), ("one",))

    def step(state, images, labels, key):
        ann, optimizer = nnx.merge(graph, state)
        loss = train_step(ann, optimizer, images, labels, jax.random.wrap_key_data(key), 0.1)
        return nnx.state((ann, optimizer)), loss

    key = jax.random.key_data(jax.random.key(0))
    inputs = (state, np.zeros((batch, *network.input_shape), np.uint8), np.zeros(batch, np.int32), key)
    return jax.jit(step).lower(*_placed(inputs, mesh, P()))


def bptt(snn: SNN, device: Any, batch: int, timesteps: int) -> Lowered:
    """A step of backpropagation through time in bfloat16."""
    mesh = Mesh(np.array([device]), ("one",))
    step = make_step(snn.network, Unrolling(timesteps, loss="final", precision="bfloat16"), OPTIMIZER)
    return step.lower(*_placed(shapes(bptt_inputs, snn.network, batch), mesh, P()))
