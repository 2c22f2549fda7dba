"""One call simulates many candidates: accuracy after a few steps, over percentile and initial membrane."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

import data
import jaxsnn


def main(points: int = 6, images: int = 200, out: Path = Path("simulator_alone.png")) -> None:
    """Simulate points x points candidates at once and draw a map of their accuracies."""
    snn = jaxsnn.load()
    test = data.load("embedded", "test", limit=images)
    activations = jaxsnn.percentiles(snn, data.load("embedded", "train", limit=200).images)
    percentiles, membranes = np.linspace(95, 100, points), np.linspace(0, 0.8, points)
    threshold = activations.threshold(np.repeat(percentiles, points)[:, None])  # (P, L)
    v0 = np.broadcast_to(np.tile(membranes, points)[:, None], threshold.shape)
    genes = jaxsnn.Genes(threshold, v0)
    no_delay = jaxsnn.Dynamics(delay="none")
    seen = jaxsnn.observe(snn, genes, test.images, test.labels, timesteps=16, dynamics=no_delay)

    figure, panels = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained", sharey=True)
    for axes, step in zip(panels, (8, 16)):
        accuracy = 100 * seen.accuracy[:, step - 1].reshape(points, points)
        drawn = axes.pcolormesh(membranes, percentiles, accuracy, vmin=10, vmax=90)
        axes.set(title=f"after {step} steps", xlabel="initial membrane / threshold")
    panels[0].set_ylabel("percentile")
    figure.colorbar(drawn, ax=panels, label=f"accuracy on {len(test)} images [%]")
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
