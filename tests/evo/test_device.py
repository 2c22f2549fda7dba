"""The jitted variant: exact where the random numbers are shared, equal in distribution where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evo
from evo.engines import device
from helpers.objectives import generations, rastrigin, rosenbrock, sphere

SIZE, DIMENSION = 7, 4


def reference_trials(strategy, low, high, crossover, members, best_row, draws):
    """Eq. 7-9 for one member and one coordinate at a time."""
    f = draws.weight
    trials = members.copy()
    for i in range(len(members)):
        best, x = members[best_row], members[i]
        r = [members[k] for k in draws.partners[i]]
        match strategy[:-3]:
            case "rand1":
                v = r[0] + f * (r[1] - r[2])
            case "rand2":
                v = r[0] + f * (r[1] + r[2] - r[3] - r[4])
            case "best1":
                v = best + f * (r[0] - r[1])
            case "best2":
                v = best + f * (r[0] + r[1] - r[2] - r[3])
            case "currenttobest1":
                v = x + f * (best - x + r[0] - r[1])
            case "randtobest1":
                v = r[0] + f * (best - r[0]) + f * (r[1] - r[2])
        dimension = members.shape[1]
        if strategy.endswith("bin"):
            taken = [j for j in range(dimension) if draws.chance[i, j] < crossover or j == draws.first[i]]
        else:
            taken = [draws.first[i]]
            while len(taken) < dimension and draws.chance[i, len(taken)] < crossover:
                taken.append((taken[-1] + 1) % dimension)
        for j in taken:
            inside = low[j] <= v[j] <= high[j]
            trials[i, j] = v[j] if inside else low[j] + draws.fresh[i, j] * (high[j] - low[j])
    return trials


jitted_trials = jax.jit(device.trials_from, static_argnames="strategy")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(strategy=st.sampled_from(evo.STRATEGIES), seed=st.integers(0, 10_000))
def test_given_the_same_numbers_the_steps_are_exact(strategy, seed):
    # Multiples of 1/64 below 4 and a weight of eighths: every sum and product is exact in float32, so that a
    # fused multiply-add rounds nothing and equality says that the steps, not the roundings, are the same.
    rng = np.random.default_rng(seed)
    members = rng.integers(-256, 257, (SIZE, DIMENSION)).astype(np.float32) / 64
    low, high = np.full(DIMENSION, -4, np.float32), np.full(DIMENSION, 4, np.float32)
    draws = device.Draws(
        weight=np.float32(rng.integers(1, 13) / 8),
        partners=np.array([rng.permutation(np.delete(np.arange(SIZE), i))[:5] for i in range(SIZE)]),
        first=rng.integers(DIMENSION, size=SIZE),
        chance=rng.uniform(size=(SIZE, DIMENSION)).astype(np.float32),
        fresh=rng.integers(0, 64, (SIZE, DIMENSION)).astype(np.float32) / 64,
    )
    setting = device.Setting(low, high, low, low, 0, 0, np.float32(0.7))
    best = int(rng.integers(SIZE))
    expected = reference_trials(strategy, low, high, np.float32(0.7), members, best, draws)
    in_numpy = device.trials_from(setting, members, best, draws, strategy)
    np.testing.assert_array_equal(in_numpy, expected)
    on_device = jax.tree.map(jnp.asarray, (setting, members, best, draws))
    np.testing.assert_array_equal(jitted_trials(*on_device, strategy=strategy), expected)


OBJECTIVES = ((sphere, -1.0, 2.0), (rosenbrock, -2.0, 2.0), (rastrigin, -5.0, 4.0))


RUNS, GENERATIONS, POPULATION = 200, 12, 8


def chosen(points):
    """The objective that the last, fixed coordinate names, so that one compilation serves all three."""
    names = [points[:, -1] == number for number in range(len(OBJECTIVES))]
    return jnp.select(names, [function(points[:, :-1]) for function, _, _ in OBJECTIVES])


@pytest.mark.parametrize(
    "number", range(len(OBJECTIVES)), ids=[function.__name__ for function, _, _ in OBJECTIVES]
)
@pytest.mark.parametrize("strategy", ["best1bin", "rand1bin"])
def test_agrees_with_numpy_in_distribution(number, strategy):
    """Two-sample Kolmogorov-Smirnov test on the best costs of 200 runs each, 0.1 % level, fixed seeds."""
    stats = pytest.importorskip("scipy.stats")
    function, low, high = OBJECTIVES[number]
    settings = {"strategy": strategy, "mutation": (0.5, 1.5), "crossover": 0.7, "tol": 0.0}
    arguments = ([low] * 3 + [number], [high] * 3 + [number], POPULATION)
    numpy_engine = evo.make_engine("scipy", *arguments, **settings)
    in_numpy = []
    for seed in range(RUNS):
        state = generations(numpy_engine, numpy_engine.init(seed), lambda x: function(x[:, :-1]), GENERATIONS + 1)
        in_numpy.append(numpy_engine.best(state[-1])[1])
    keys = jax.random.split(jax.random.PRNGKey(1), RUNS)
    runs = evo.minimize_on_device(chosen, evo.make_engine("jax", *arguments, **settings), keys, GENERATIONS)
    assert stats.ks_2samp(in_numpy, np.asarray(runs.cost)).pvalue > 1e-3


def make(low=-1.0, high=2.0, **settings):
    return evo.make_engine("jax", np.broadcast_to(low, 3), np.broadcast_to(high, 3), 12, **settings)


KEYS = jax.random.split(jax.random.PRNGKey(2), 4)


def minimize(engine, keys=KEYS, cost=sphere):
    """Nine generations; every test that calls this with four keys, or with one, shares a compilation."""
    return evo.minimize_on_device(cost, engine, keys, 9)


@pytest.mark.parametrize("init", ["random", "latinhypercube", "normal"])
def test_initial_populations(init):
    engine = make(init=init, mean=np.array([-0.9, 0.5, 1.0]), std=np.array([0.5, 0.1, 0.0]))
    states = jax.vmap(lambda key: device._start(engine.setting, key, *engine.start_arguments))(
        jax.random.split(jax.random.PRNGKey(0), 400)
    )
    members = np.asarray(states.members, dtype=np.float64)
    assert members.shape == (400, 12, 3) and members.min() >= -1 and members.max() <= 2
    if init == "normal":
        np.testing.assert_allclose(members[..., 2], 1.0, rtol=1e-6)
        assert members[..., 1].mean() == pytest.approx(0.5, abs=0.01)
        assert members[..., 1].std() == pytest.approx(0.1, abs=0.01)
        assert (members[..., 0] < -0.99).mean() < 0.1, "reflected, not piled up at the bound"
    else:
        assert members.mean() == pytest.approx(0.5, abs=0.03)
    if init == "latinhypercube":
        slices = np.floor((members + 1) / 3 * 12)
        np.testing.assert_array_equal(
            np.sort(slices, axis=1), np.broadcast_to(np.arange(12)[:, None], slices.shape)
        )


def test_partners_are_others_and_uniform():
    setting = make().setting
    draw = jax.jit(jax.vmap(lambda key: device.draw(setting, key, 6, 3, 4)))
    draws = draw(jax.random.split(jax.random.PRNGKey(0), 3000))
    partners = np.asarray(draws.partners)
    assert all(len({*row, member}) == 5 for run in partners[:200] for member, row in enumerate(run))
    shares = np.bincount(partners[:, 2].ravel(), minlength=6) / partners[:, 2].size
    np.testing.assert_allclose(shares, [0.2, 0.2, 0, 0.2, 0.2, 0.2], atol=0.02)
    weights = np.asarray(draws.weight)
    assert 0.5 <= weights.min() < 0.51 and 1.49 < weights.max() < 1.5


def test_one_call_is_the_same_as_the_loop():
    engine = make()
    key = jax.random.PRNGKey(5)
    runs = minimize(engine, key[None])
    state = engine.init(5)
    for generation in range(10):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, sphere(candidates))
        assert runs.history[0, generation] == pytest.approx(engine.best(state)[1], rel=1e-4)
    np.testing.assert_allclose(runs.population[0], engine.parents(state), rtol=1e-3, atol=1e-4)
    assert runs.history.shape == (1, 10) and runs.cost[0] == runs.history[0, -1]


def test_runs_are_independent_and_typed_keys_do():
    engine = make()
    together, again = minimize(engine), minimize(engine, jax.random.wrap_key_data(KEYS))
    np.testing.assert_array_equal(together.x, again.x)
    alone = minimize(engine, KEYS[2:3])
    np.testing.assert_allclose(together.x[2], alone.x[0], rtol=1e-4, atol=1e-6)
    assert len({float(cost) for cost in together.cost}) == 4


def test_nan_counts_as_infinite_on_the_device():
    def cost(x):
        return jnp.where(x[:, 0] > 0.5, jnp.nan, sphere(x))

    runs = evo.minimize_on_device(cost, make(), KEYS[:3], 25)
    assert np.isfinite(runs.energies).all() and not np.isnan(runs.history).any()


def test_engines_of_one_shape_share_a_compilation():
    def generation(engine):
        state = engine.init(0)
        state = engine.tell(state, engine.ask(state)[0], np.zeros(12))
        engine.rescore(state, np.zeros(12))
        return [compiled._cache_size() for compiled in (device._start, device._tell, device._rescore)]

    before = generation(make())
    other = make(-2.0, 5.0, crossover=0.9, mutation=0.8)
    assert generation(other) == before


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda x: x, r"\(12, 3\) to \(12,\).*\(12, 3\)"),
        (lambda x: x.sum(), r"got \(\)"),
        (lambda x: x.sum(-1) + 1j, "complex"),
        (lambda x: x[:, 0] > 0, "bool"),
    ],
)
def test_wrong_cost_functions_are_refused_before_the_first_evaluation(cost, message):
    with pytest.raises(ValueError, match=message):
        minimize(make(), cost=cost)


def test_other_refusals():
    with pytest.raises(ValueError, match="-1"):
        evo.minimize_on_device(sphere, make(), KEYS, -1)
    with pytest.raises(ValueError, match="'sobol'"):
        make(init="sobol")


def test_bounds_are_rounded_inwards():
    engine = make([0.1, 0.7, 0.3], [99.9, 0.7, 0.9])
    low, high = (np.asarray(bound, dtype=np.float64) for bound in (engine.setting.low, engine.setting.high))
    assert low[0] >= 0.1 and high[0] <= 99.9 and low[1] == high[1] == engine.setting.low.dtype.type(0.7)
    runs = minimize(engine)
    assert np.asarray(runs.population[..., 2], dtype=np.float64).min() >= 0.3
