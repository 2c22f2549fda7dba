"""A search with a cost function of one's own: as few synaptic operations as the accuracy allows."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

import data
import jaxsnn


def main(generations: int = 10, images: int = 150, out: Path = Path("own_cost.png")) -> None:
    """Search, and draw every candidate that was simulated."""
    train = data.load("embedded", "train")
    arrays = train.images, train.labels  # any uint8 (N, H, W, C) and integers (N,)
    simulated = []

    def cost(seen: jaxsnn.Observables) -> np.ndarray:
        """Wrong answers at the last step in %, plus million synaptic operations an image, (P,)."""
        wrong, synops = 100 * (1 - seen.accuracy[:, -1]), seen.synops.sum(-1) / seen.images / 1e6
        simulated.append((synops, wrong))
        return wrong + synops

    search = jaxsnn.evolve(
        jaxsnn.load(), arrays, cost=cost, population=12, generations=generations, images=images, v0=0.5, std=0.25
    )
    for generation in search:
        print(f"generation {generation.number}: lowest cost {generation.best.cost:.1f}")

    synops, wrong = np.array(simulated).transpose(1, 0, 2)  # (generations + 1, P) each
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    number = np.broadcast_to(np.arange(len(wrong))[:, None], wrong.shape)
    drawn = axes.scatter(synops, wrong, 14, number, cmap="viridis_r")
    axes.plot(synops[0, 0], wrong[0, 0], "r*", markersize=12, label="99.7 percentile, half full")
    axes.set(xlabel="million synaptic operations an image", ylabel=f"wrong on {images} training images [%]")
    axes.legend()
    figure.colorbar(drawn, label="generation")
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
