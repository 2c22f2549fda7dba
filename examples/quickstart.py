"""The embedded network in ten lines: the usual thresholds, a search, and membranes that start half full."""

from pathlib import Path

import matplotlib.pyplot as plt
import tyro

import data
import jaxsnn


def main(
    generations: int = 6, test_images: int = 500, limit_images: int = 500, out: Path = Path("quickstart.png")
) -> None:
    """Draw the accuracy over time of one network with three settings of its neurons."""
    train, test = data.load("embedded", "train"), data.load("embedded", "test", limit=test_images)
    snn = jaxsnn.load()
    activations = jaxsnn.percentiles(snn, train.images[:200])
    search = jaxsnn.evolve(
        snn,
        train,
        calibration=activations,
        population=8,
        generations=generations,
        images=80,
        limit_images=limit_images,
    )
    for generation in search:
        print(f"generation {generation.number}: lowest cost {generation.best.cost:.1f}")
    settings = {
        "99.7 percentile": activations.genes(99.7),
        "thresholds searched": generation.best.genes,
        "99.7 percentile, membranes half full": activations.genes(99.7, v0=0.5),
    }

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, genes in settings.items():
        seen = jaxsnn.observe(snn, genes, test.images, test.labels, timesteps=60)
        axes.plot(range(1, 61), 100 * seen.accuracy[0], label=name)
    axes.set(xlabel="timesteps (one step of delay per layer)", ylabel=f"accuracy on {len(test)} test images [%]")
    axes.legend(loc="lower right")
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
