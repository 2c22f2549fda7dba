"""How much goes through a device at once: each size by hand, and what --explain-plan prints of it."""

import io
import os

import jax
import numpy as np
import pytest
from rich.console import Console

from helpers.networks import dyadic_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import AvgPool, Conv, Dense, Edge, MaxPool, shapes_of
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation import backends, dense, gpu, kernels, tpu
from jaxsnn.simulation.backends import decided, describe
from jaxsnn.simulation.events import run
from jaxsnn.simulation.events.lowering import WEIGHTS_IN_CACHE, _block_width, _gate, aligned, groups_of
from jaxsnn.simulation.plan import Plan, PlanSettings
from jaxsnn.simulation.plan_table import edge_macs, print_plan

RESIDUAL = dyadic_snn("residual")


@pytest.fixture
def on_gpu(monkeypatch):
    """The decisions of a machine with a GPU whose 1,000 bytes hold 14 rows: 100 bytes and 50 for each row."""
    asked = []

    def memory(*arguments):
        asked.append(arguments[4:])
        return 100.0, 50.0

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(dense, "device_memory", lambda: 1000)
    monkeypatch.setattr(dense, "memory", memory)
    return asked


def rows(candidates=6, **plan):
    return dense.rows_at_once(RESIDUAL, Dynamics(), 12, False, Plan(**plan), candidates)


@pytest.mark.parametrize("name", ["rows", "group", "block", "threads", "memory_limit"])
def test_a_plan_takes_one_of_anything_and_not_none(name):
    assert getattr(Plan(**{name: 1}), name) == 1
    with pytest.raises(UserError, match=f"{name.replace('_', ' ')} is 0, expected at least 1"):
        Plan(**{name: 0})


def test_settings_become_the_plan_that_they_name():
    settings = PlanSettings(
        backend="xla", precision="int8", rows=5, block=2, memory_limit=1.5, mesh=(1, 1), threads=3
    )
    assert settings.plan(4) == Plan(
        backend="xla", precision="int8", rows=5, group=4, block=2, threads=3, memory_limit=1_500_000, mesh=(1, 1)
    )
    assert PlanSettings().plan() == Plan()
    for mesh in ((1, 0), (0, 1)):
        with pytest.raises(UserError, match="expected at least 1 x 1"):
            Plan(mesh=mesh)


@pytest.mark.parametrize(
    "arguments, chunk",
    [
        ((6, 20, 40, None, 1, 1), (6, 5)),  # four equal chunks, not 6, 6, 6 and 2
        ((6, 20, 40, 4, 1, 1), (4, 10)),
        ((25, 100, 10, None, 1, 1), (10, 1)),
        ((5, 10, 16, None, 4, 2), (8, 2)),
        ((5, 3, 1, None, 2, 4), (2, 4)),
        ((1, 7, 100, None, 1, 1), (1, 7)),
    ],
)
def test_chunks_are_equal_and_fill_the_mesh(arguments, chunk):
    assert dense.chunk_shape(*arguments) == chunk


def test_a_device_takes_what_its_memory_holds(on_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "usable", lambda precision: None)
    assert rows() == 14 and on_gpu == [("float32", 1, 4)]
    assert rows(3, block=2) == 14 and on_gpu[1] == ("float32", 2, 3)
    assert rows(rows=9) == 9 and len(on_gpu) == 2
    assert rows(rows=9, memory_limit=400) == 6 and rows(memory_limit=150) == 1
    with pytest.raises(UserError, match=r"limit of 0.0 MB is too small: one candidate on one image needs 0.0 MB"):
        rows(memory_limit=149)
    monkeypatch.setattr(dense, "MOST_ROWS", 5)
    assert rows() == 5


def test_kernels_take_as_many_rows_as_they_can_count(on_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "usable", lambda precision: gpu)
    assert rows() == dense.MOST_ROWS and on_gpu == []
    assert rows(memory_limit=400) == 6 and on_gpu == [("float32", gpu.STEPS, 4)]
    monkeypatch.setattr(gpu, "most_rows", lambda network, block: 10 * block)
    assert rows() == 10 * gpu.STEPS and rows(block=2) == 20 and rows(rows=7) == 7
    network = RESIDUAL.network
    assert dense.block_steps(Plan(block=9), network, 9, 4) == 9
    with monkeypatch.context() as on_tpu:
        on_tpu.setattr(kernels, "usable", lambda precision: tpu)
        assert dense.block_steps(Plan(block=9), network, 9, 4) == gpu.STEPS == 8
    assert dense.block_steps(Plan(), network, 9, 4) == 5 and dense.block_steps(Plan(block=4), network, 9, 4) == 4
    monkeypatch.setattr(kernels, "usable", lambda precision: None)
    assert dense.block_steps(Plan(), network, 9, 1) == 1  # only a CPU makes up for few rows


def test_all_chunks_of_a_run_have_one_shape(monkeypatch):
    """The last one is padded: a second shape would be compiled for it."""
    seen, layers = [], len(RESIDUAL.network.spiking)

    def simulate(
        network, dynamics, timesteps, per_image, precision, mesh, block, params, each, images, labels, real
    ):
        seen.append((len(images), int(real.sum())))
        return np.zeros((1, timesteps), np.int32), [np.zeros((1, 1, 1), np.int32)] * layers, None

    monkeypatch.setattr(dense, "simulate", simulate)
    images = np.zeros((191, *RESIDUAL.network.input_shape), np.uint8)
    genes, plan = Genes(np.ones((1, layers), np.float32)), Plan(backend="xla", rows=100)
    found = list(
        dense.chunks(RESIDUAL, genes, images, np.zeros(191), 12, Dynamics(), plan, lambda count: None, False)
    )
    assert seen == [(96, 96), (96, 95)] and [part[3] for part in found] == [96, 95]


def test_a_mesh_of_one_device_is_none():
    assert dense.make_mesh(None) == dense.make_mesh((1, 1)) == (None, 1, 1)


def test_a_task_of_events_fits_into_its_share_of_memory(monkeypatch):
    """19 neurons: 4 bytes each for the membrane and 13 for each step, a half of what two threads share."""
    shapes = [(2, 2, 4), (3,)]
    assert run.task_memory(shapes, 3, 5) == 3 * 19 * (4 + 5 * 13)

    def shape(count, limit, candidates=1, timesteps=5):
        return run.task_shape(shapes, Plan(threads=2, memory_limit=limit), candidates, count, timesteps)

    assert shape(100, 4 * 8 * 19 * 17) == (8, 1) and shape(100, 4 * 8 * 19 * 17 - 4) == (4, 2)
    assert shape(100, 4) == (1, 1) and shape(5, 10**6)[0] == 2 and shape(1, 10**6)[0] == 1
    whole = (run.SPIKES_IN_MEMORY - 8 * 19 * 4) // (8 * 19 * 13)
    assert shape(1000, None) == (8, whole // 4 * 4)
    # few steps: twice as many images, if all steps of them fit and no thread waits for the other's last task
    assert shape(64, None, timesteps=4)[0] == 16 and shape(16, None, candidates=5, timesteps=4)[0] == 8
    assert shape(64, 4 * 16 * 19 * 56, timesteps=4) == (16, 4)
    assert shape(64, 4 * 16 * 19 * 56 - 4, timesteps=4)[0] == 8


def test_constant_drives_are_held_for_as_many_images_as_fit(monkeypatch):
    """256 neurons that the image drives, 867 in all."""

    def images(**plan):
        return run.images_at_once(RESIDUAL.network, Plan(**{"threads": 1} | plan))

    assert images() == run.IMAGES_AT_ONCE and images(rows=7) == 7
    needed = 1024 + 867 * 17
    assert images(memory_limit=needed) == needed // 4 // 1024 == 3
    assert images(memory_limit=needed + 867 * 17, threads=2) == 7
    for threads in (1, 2):
        with pytest.raises(UserError, match=f"one image on {threads} threads needs 0.0 MB"):
            images(memory_limit=1023 + threads * 867 * 17, threads=threads)
    monkeypatch.setattr(run, "CONSTANTS_IN_MEMORY", 5000)
    assert images() == 4
    monkeypatch.setattr(run, "CONSTANTS_IN_MEMORY", 500)
    assert images() == 1
    with pytest.raises(ValueError, match="number of threads open"):
        images(threads=None)


@pytest.mark.parametrize(
    "features, share, width",
    [
        (10, 0, 16),
        (128, 1, 128),
        (130, 1, 128),
        (130, 128, 128),
        (130, 127, 64),
        (80, 79, 64),
        (80, 80, 80),
        (130, 63, 32),
        (48, 47, 32),
        (64, 63, 32),
        (16, 15, 16),
        (300, 64, 64),
    ],
)
def test_a_block_of_channels_stays_in_the_cache(features, share, width):
    """``share``: how many channels' weights fit into it; at 1 and 0 all do."""
    assert _block_width(features, WEIGHTS_IN_CACHE // share if share > 1 else share) == width


def test_arrays_start_on_a_cache_line():
    for shape, dtype in (((3, 5), np.int8), ((7,), np.float32), ((2, 16), np.int32)):
        arrays = [aligned(shape, dtype) for _ in range(8)]
        assert all(a.ctypes.data % 64 == 0 and a.shape == shape and a.dtype == dtype for a in arrays)
        for number, array in enumerate(arrays):
            array[:] = number
        assert all((array == number).all() for number, array in enumerate(arrays))


def test_groups_of_an_edge_are_those_of_its_only_map():
    narrow, pool = Conv("c", 8, groups=4), AvgPool(2)
    assert [groups_of(ops, 8) for ops in ((), (pool,), (narrow,), (pool, narrow), (narrow, pool))] == [
        8,
        8,
        4,
        4,
        4,
    ]
    assert groups_of((narrow, Dense("d", 3)), 8) == groups_of((Dense("d", 3),), 8) == 1


def test_each_position_of_a_rectangle_is_in_one_window_of_a_max_pool():
    gate = _gate(MaxPool(2), (4, 6, 3))
    assert gate.shape == (2, 3, 3)
    assert gate.windows.tolist() == [[y // 2 * 3 + x // 2] for y in range(4) for x in range(6)]


def test_macs_are_those_of_the_maps_as_written():
    edge = Edge(0, (Conv("c", 8, (3, 5), stride=2, groups=2), AvgPool(2), Dense("d", 5)))
    assert edge_macs(edge, (8, 8, 4)) == 4 * 4 * 8 * 3 * 5 * 4 // 2 + 2 * 2 * 8 * 5


def test_the_path_that_is_taken_is_said(monkeypatch):
    pytest.importorskip("numba", reason="Numba is not installed")
    network = RESIDUAL.network
    assert describe(Plan(precision="int8"), network) == "event-driven in int8"
    assert describe(Plan(precision="bfloat16"), network) == "XLA in bfloat16"
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2} if process == 0 else {0})
    assert decided(Plan(threads=3), network).threads == 3 and decided(Plan(), network).threads == 2
    with pytest.raises(UserError, match="runs on one device"):
        decided(Plan(backend="events", mesh=(1, 1)), network)
    monkeypatch.setattr(backends, "available", lambda: False)
    faster = " (event-driven is faster: install the extra cpu)"
    assert describe(Plan(), network) == f"XLA in float32{faster}"
    assert describe(Plan(backend="xla"), network) == "XLA in float32"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(kernels, "usable", lambda precision: gpu)
    assert describe(Plan(), network) == "XLA in float32"
    refuses = "this device refuses our kernels, or gets them wrong: slower"
    monkeypatch.setattr(kernels, "usable", lambda precision: gpu if precision == "int8" else None)
    assert describe(Plan(precision="int8"), network) == "XLA in int8"
    assert describe(Plan(), network) == f"XLA in float32 ({refuses})"
    monkeypatch.undo()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert (
        decided(Plan(), network).backend == "xla" and decided(Plan(backend="events"), network).backend == "events"
    )


def test_the_plan_is_printed_layer_by_layer(monkeypatch):
    """Sizes are those of the functions above; what a layer is computed as follows from its edges."""
    pytest.importorskip("numba", reason="Numba is not installed")
    network = vgg([[8], [16]], [20], name="two", pool="before")
    snn = SNN(network, {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()})

    def memory(snn, dynamics, timesteps, per_image, precision, block, candidates):
        assert (timesteps, per_image, precision, candidates) == (12, False, "float32", 3)
        return 1e6, 1e5 * block

    monkeypatch.setattr(dense, "memory", memory)
    rows_at_once = dense.rows_at_once
    monkeypatch.setattr(dense, "rows_at_once", lambda *given: given[3] is False and rows_at_once(*given))

    def printed(**plan):
        console = Console(file=io.StringIO(), width=250)
        print_plan(console, snn, Plan(threads=2, **plan), Dynamics(), 12, 3, 10)
        lines = [" ".join(line.replace("│", " ").split()) for line in console.file.getvalue().splitlines()]
        return lines[0], lines[1], lines[5:-1]

    first = "two: 3 candidates x 10 images x 12 timesteps, of which 9 are simulated (layer delay 3)"
    tasks = "2 threads; tasks of one candidate x 8 images, spikes of up to 9 steps listed at once"
    assert printed() == (
        first,
        f"event-driven, float32, {tasks}",
        [
            "conv1 16 x 16 x 8 0.22 once for all steps and candidates",
            "conv2 8 x 8 x 16 0.29 128 rows of float32 in 1 x 16 channels, 8 kB",
            "dense1 20 0.02 1024 rows of float32 in 1 x 32 channels, 131 kB",
            "dense2 read-out 0.00 20 rows of float32 in 1 x 16 channels, 1 kB",
        ],
    )
    _, how, (_, conv2, *_) = printed(precision="int8", rows=3)
    assert how == f"event-driven, int8, {tasks}".replace("8 images", "3 images")  # of 9 candidates x images
    assert conv2 == "conv2 8 x 8 x 16 0.29 128 rows of int16 in 1 x 16 channels, 4 kB"
    _, how, layers = printed(backend="xla")
    size = "chunks of 3 candidates x 10 images, about 19 MB on a device"
    assert how == f"XLA, float32, layer by layer over 6 steps, one device; {size}"
    assert layers[1:3] == [
        "conv2 8 x 8 x 16 0.29 box sums, convolution with stride 2",
        "dense1 20 0.02 matrix product",
    ]
    size = "chunks of 3 candidates x 2 images, about 2 MB on a device"
    assert (
        printed(backend="xla", block=1, rows=7)[1] == f"XLA, float32, step by step over layers, one device; {size}"
    )
