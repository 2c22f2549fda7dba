"""The optimiser without spiking networks: ask for candidates, tell their costs."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

import evo


def rosenbrock(x: np.ndarray) -> np.ndarray:
    """Costs (P,) of candidates (P, D); the minimum, 0, is at ones."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(-1)


def main(evaluations: int = 3000, dimensions: int = 10, out: Path = Path("evo_alone.png")) -> None:
    """Let two engines spend the same number of evaluations, and draw the lowest cost so far."""
    low, high = np.full(dimensions, -2.0), np.full(dimensions, 2.0)
    engines = {
        "SciPy's differential evolution": evo.make_engine("scipy", low, high, population=25),
        "L-SHADE": evo.make_engine("lshade", low, high, population=60, evaluations=evaluations),
    }
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, engine in engines.items():
        state, costs = engine.init(seed=0), np.array([])
        while len(costs) + 1 < evaluations:
            candidates, state = engine.ask(state)
            told = rosenbrock(candidates)
            state = engine.tell(state, candidates, told)
            costs = np.append(costs, told)
        axes.semilogy(np.minimum.accumulate(costs), label=name)
        print(f"{name}: {costs.min():.3g} after {len(costs)} evaluations")
    axes.set(xlabel="evaluations", ylabel="lowest cost so far")
    axes.legend()
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
