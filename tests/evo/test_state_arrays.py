"""The state of an engine is kept as arrays: it comes back from them, and from nothing else."""

import numpy as np
import pytest

import evo


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scipy", "lshade", "jax", "evosax:CMA_ES"])
def test_a_state_comes_back_from_its_arrays_and_others_are_refused(name):
    options = {"evaluations": 200} if name == "lshade" else {}
    engine = evo.make_engine(name, [0.0] * 3, [2.0] * 3, 8, mean=[1.0] * 3, std=0.2, tol=0, **options)
    state = engine.init(3)
    for _ in range(3):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, np.square(np.asarray(candidates)).sum(1))
    arrays = evo.state_arrays(state)
    again = evo.state_from(engine, arrays)
    for _ in range(3):
        (one, state), (two, again) = engine.ask(state), engine.ask(again)
        np.testing.assert_array_equal(one, two)
        state, again = (engine.tell(s, one, np.square(np.asarray(one)).sum(1)) for s in (state, again))
    for key, array in arrays.items():
        for wrong in (array[None], array.astype(np.int8), None):
            changed = {k: v for k, v in (arrays | {key: wrong}).items() if v is not None}
            with pytest.raises(ValueError, match=r"\."):
                evo.state_from(engine, changed)
    with pytest.raises(ValueError, match="not part of this state"):
        evo.state_from(engine, arrays | {".zzz": np.zeros(3)})
    for key in (".members", ".energies"):
        with pytest.raises(ValueError):
            evo.state_from(engine, arrays | {key: np.full_like(arrays[key], np.nan)})


def test_a_state_whose_numbers_point_nowhere_is_refused():
    scipy = evo.make_engine("scipy", [0.0] * 3, [1.0] * 3, 6)
    arrays = evo.state_arrays(scipy.init(0))
    with pytest.raises(ValueError, match="permutation"):
        evo.state_from(scipy, arrays | {".index": np.full(6, 99)})
    with pytest.raises(ValueError, match="generator"):
        evo.state_from(scipy, arrays | {".generator": np.full(6, 1 << 31, np.uint64)})
    lshade = evo.make_engine("lshade", [0.0] * 3, [1.0] * 3, 6, evaluations=60)
    arrays = evo.state_arrays(lshade.init(0))
    with pytest.raises(ValueError, match=r"memory.cell"):
        evo.state_from(lshade, arrays | {".memory.cell": np.array(6)})
    with pytest.raises(ValueError, match="rows"):
        evo.state_from(lshade, arrays | {".archive": np.zeros((500, 3))})
