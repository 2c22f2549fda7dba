"""What a search leaves in its run's folder: thresholds.json, curves.npz and, last of all, results.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.records.calibrated_network import NAME
from jaxsnn.records.run_config import RunConfig
from jaxsnn.records.run_folder import write_curves
from jaxsnn.records.thresholds_file import thresholds_record
from jaxsnn.runtime.files import write_json
from jaxsnn.search.evolve import Candidate, Generation


@dataclass(frozen=True)
class SearchResult:
    """How a search ended.

    Attributes:
        last: its last generation.
        best: the finalist that won; with its genes.
        baseline: genes of the baseline, one candidate.
        percentiles: (L,) where the thresholds found lie among the activations.
        train_images: number of training images there are, the unit of an epoch.
        image_evaluations: candidates x images that were simulated.
        gradient_passes: forward and backward passes of the ANN, times images, that attacks took.
        limit_passes: candidates x images of the clipped ANN, one timestep each.
        seconds: of the search, all processes of a resumed run together.
        peak_bytes: most memory in use.
        limits: what the search was to stay below: "energy" in microjoules an image, "peak" in spikes a neuron and
            step of the busiest layer.
    """

    last: Generation
    best: Candidate
    baseline: Genes
    percentiles: list[float]
    stopped_early: bool
    train_images: int
    image_evaluations: int
    gradient_passes: int
    limit_passes: int
    seconds: float
    peak_bytes: int
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def optimized(self) -> Genes:
        """The genes that were found, one candidate."""
        if self.best.genes is None:
            raise ValueError("a candidate of a checkpoint has no genes before it is restored")
        return self.best.genes

    @property
    def epochs(self) -> float:
        """Training cost by eq. 17: simulated images, and here an attack's gradient passes, each as one image.

        A pass of the clipped ANN (--limit) costs one timestep, not T, and is not counted.
        """
        return (self.image_evaluations + self.gradient_passes) / self.train_images

    def to_json(self) -> dict:
        """The search's part of results.json."""
        return {
            "stopped_early": self.stopped_early,
            "converged": self.last.converged,
            "generations": self.last.number,
            "nfe": self.last.evaluations,
            "training_cost_epochs": self.epochs,
            "gradient_passes": self.gradient_passes,
            "limit_passes": self.limit_passes,
            "search_seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


def write_thresholds(
    folder: Path, config: RunConfig, snn: SNN, sha256: str, found: SearchResult, calibrated: bool
) -> None:
    """thresholds.json: what other commands read, before the test images are touched.

    Thresholds found around a ``calibrated`` network are those of the network in calibrated.safetensors.
    """
    record = thresholds_record(snn.network, config.weights, sha256, found.optimized, config.dynamics) | {
        "architecture": config.network,
        "percentile": config.percentile,
        **{f"baseline_{key}": value for key, value in found.baseline.to_record().items()},
        "percentiles": found.percentiles,
        **({"calibrated": NAME} if calibrated else {}),
    }
    write_json(folder / "thresholds.json", record)


def results_of(
    config: RunConfig, snn: SNN, tested: dict, found: SearchResult, stamp: dict, seconds: float
) -> dict:
    """results.json: both networks on the test images (``tested``), and how the search came to them.

    Args:
        stamp: versions, device and content hashes.
        seconds: of everything.
    """
    results = tested | {
        "preset": config.preset,
        "data": config.data,
        "seed": config.seed,
        "network": snn.network.name,
        "layers": [layer.name for layer in snn.network.spiking],
        **found.to_json(),
        "seconds": seconds,
        **stamp,
    }
    results["baseline"] |= {"percentile": config.percentile} | found.baseline.to_record()
    if "half_full" in results:
        results["half_full"] |= {"percentile": config.percentile}
    results["optimized"] |= {
        "percentiles": found.percentiles,
        "cost": found.best.cost,
        "cost_parts": found.best.parts,
    } | found.optimized.to_record()
    return results


def write_results(folder: Path, results: dict, found: SearchResult) -> None:
    """curves.npz and results.json; a run is finished once the latter is there."""
    write_curves(
        folder,
        baseline=np.array(results["baseline"]["accuracy"]),
        optimized=np.array(results["optimized"]["accuracy"]),
        training=found.best.accuracy,
    )
    write_json(folder / "results.json", results)
