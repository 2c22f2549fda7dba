"""The dense back-end keeps its memory, survives its end, and spreads over devices without changing a count."""

import os
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation import dense
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan


@pytest.fixture(scope="module")
def case():
    snn = dyadic_snn("residual")
    return snn, Genes(dyadic_thresholds(4, 6)), dyadic_images(20), np.arange(20) % 3


def test_the_memory_limit_sets_the_chunk_and_is_kept(case):
    """The chunk that is planned from two compiled programs stays within the limit when it is compiled itself."""
    snn, genes, images, labels = case
    fixed, each = dense.memory(snn, Dynamics(), 12, False, "float32", 1, 4)
    limit = int(fixed + 40 * each)
    plan = Plan(backend="xla", memory_limit=limit)
    rows = dense.rows_at_once(snn, Dynamics(), 12, False, plan, 6)
    assert 30 <= rows <= 40
    group, size = dense.chunk_shape(6, 20, rows, None, 1, 1)
    shapes = [
        jax.ShapeDtypeStruct((size, *part), kind)
        for part, kind in (((8, 8, 2), np.uint8), ((), np.int32), ((), bool))
    ]
    few = Genes(genes.threshold[:group].astype(np.float32))
    lowered = dense.simulate.lower(
        snn.network, Dynamics(), 12, False, "float32", None, 1, snn.params, few, *shapes
    )
    used = lowered.compile().memory_analysis()
    assert used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes <= limit
    found = observe(snn, genes, images, labels, timesteps=12, plan=plan)
    np.testing.assert_array_equal(found.correct, observe(snn, genes, images, labels, timesteps=12).correct)


@pytest.mark.parametrize("backend", ["xla", "events"])
def test_a_limit_below_one_image_is_refused_with_the_numbers(case, backend):
    if backend == "events":
        pytest.importorskip("numba", reason="Numba is not installed")
    snn, genes, images, labels = case
    with pytest.raises(UserError, match=r"memory limit of 0.0 MB is too small: .*needs [\d.,]+ MB"):
        observe(snn, genes, images, labels, timesteps=12, plan=Plan(backend=backend, memory_limit=1000))


def test_a_cpu_takes_fewer_large_images_at_once_and_fills_up_with_steps():
    small, large = vgg([[4]], name="small"), vgg([[4]], name="large", input_shape=(224, 224, 3))
    assert (dense.cpu_rows(small), dense.cpu_rows(large)) == (192, 3)
    assert [dense.block_steps(Plan(), small, 30, rows) for rows in (1, 16, 48, 49, 192)] == [30, 12, 4, 1, 1]
    assert dense.block_steps(Plan(), large, 30, 1) == 1
    for held in ({"memory_limit": 10**9}, {"mesh": (2, 1)}):
        assert dense.block_steps(Plan(**held), small, 30, 1) == 1
    assert dense.block_steps(Plan(block=5), large, 4, 1) == 4


def test_out_of_memory_halves_the_chunk_warns_and_goes_on(case, monkeypatch):
    snn, genes, images, labels = case
    whole = observe(snn, genes, images, labels, timesteps=12, plan=Plan(backend="xla"))
    real, done, calls = dense.simulate, [], {True: 0, False: 0}

    def small(*arguments, **options):
        fits = len(arguments[-1]) * len(arguments[-4].threshold) <= 40
        calls[fits] += 1
        if not fits:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(dense, "simulate", small)
    monkeypatch.setattr(dense, "_held", weakref.WeakKeyDictionary())
    with pytest.warns(UserWarning, match="out of memory: continuing with fewer"):
        parts = observe(snn, genes, images, labels, timesteps=12, plan=Plan(backend="xla"), progress=done.append)
    np.testing.assert_array_equal(parts.correct, whole.correct)
    np.testing.assert_array_equal(parts.spikes, whole.spikes)
    assert sum(done) == 6 * 20
    failures = calls[False]
    observe(snn, genes, images, labels, timesteps=12, plan=Plan(backend="xla"))
    assert failures > 0 and calls[False] == failures  # the next call knows

    def none(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(dense, "simulate", none)
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(UserError, match="too little memory for one image"),
    ):
        observe(snn, genes, images, labels, timesteps=12, plan=Plan(backend="xla"))


def test_progress_is_told_for_each_group_and_taken_back_where_it_was_lost(case, monkeypatch):
    """Six candidates in groups of four and two, on five images each; the second group fails once."""
    snn, genes, images, labels = case
    plan, done, calls, error = Plan(backend="xla", rows=20, group=4), [], [], "RESOURCE_EXHAUSTED: out of memory"

    def all_right(*arguments):
        *_, mine, _, _, real = arguments
        calls.append(len(real))
        if len(calls) == 6:
            raise jax.errors.JaxRuntimeError(error)
        maps = [np.full((len(mine.threshold), 1, 1), 3)] * 4
        return np.full((len(mine.threshold), 12), real.sum()), maps, None

    monkeypatch.setattr(dense, "simulate", all_right)
    monkeypatch.setattr(dense, "_held", weakref.WeakKeyDictionary())
    with pytest.warns(UserWarning, match="out of memory"):
        found = observe(snn, genes, images, labels, timesteps=12, plan=plan, progress=done.append)
    assert done == [20, 10, 20, 10, 20, -20, *[8, 4] * 5] and sum(done) == 6 * 20
    assert calls == [5] * 6 + [2] * 10  # half of 20 rows, for 4 candidates
    assert (found.correct == 20).all() and (found.spikes == 3 * (2 + 5)).all()
    calls, error = [0] * 5, "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        observe(snn, genes, images, labels, timesteps=12, plan=plan)


def test_the_least_that_can_be_halved_is_one_image_a_device():
    with pytest.warns(UserWarning, match="out of memory"):
        assert dense._halved(9, 4) == 4 and dense._halved(5, 4) == 2
    with pytest.raises(UserError, match="too little memory for one image"):
        dense._halved(4, 4)


def test_a_mesh_that_cannot_be_is_refused(case):
    snn, genes, images, labels = case
    with pytest.raises(UserError, match="a mesh of 64 x 2 needs 128 devices, but there are"):
        observe(snn, genes, images, labels, timesteps=12, plan=Plan(mesh=(64, 2)))
    with pytest.raises(UserError, match="mesh is 0 x 1"):
        Plan(mesh=(0, 1))


EIGHT = """
import numpy as np
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
snn, genes, images = dyadic_snn("pool_before"), Genes(dyadic_thresholds(5, 6)), dyadic_images(10)
labels = np.arange(10) % 3
for precision in ("float32", "int8"):
    plan = Plan(backend="xla", precision=precision)
    one, right = observe_images(snn, genes, images, labels, timesteps=10, plan=plan)
    for mesh, rows in (((4, 2), None), ((3, 2), 2), ((1, 8), None)):  # sides that divide neither 6 nor 10 as well
        plan = Plan(precision=precision, mesh=mesh, rows=rows)
        many, spread = observe_images(snn, genes, images, labels, timesteps=10, plan=plan)
        for name in ("correct", "spikes", "synops"):
            np.testing.assert_array_equal(getattr(many, name), getattr(one, name))
        np.testing.assert_array_equal(right, spread)
print("equal")
"""


@pytest.mark.slow
def test_eight_devices_count_what_one_counts():
    """Dyadic weights are exact in float32 as well, so that every mesh must agree bit for bit."""
    paths = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", EIGHT],
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "equal", run.stderr[-2000:]
