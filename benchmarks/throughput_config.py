"""Options of benchmarks.throughput."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import data
from benchmarks.contenders import entries
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least, in_range

NETWORKS = ("vgg15", "embedded", "vgg15-224")


@dataclass(frozen=True)
class ThroughputConfig(DebugOptions):
    """Measure the population simulator and its peers."""

    networks: tuple[Literal["vgg15", "embedded", "vgg15-224"], ...] = ()
    """VGG15 with random weights, the network that comes with the package, VGG15 on 224x224 images; default: all
    three, and none beside --weights."""
    weights: tuple[Path, ...] = ()
    """Files of trained networks to measure too."""
    data: str = "random"
    """Images: random bytes, or the test images of embedded, cifar10, ... where they fit the network."""
    data_dir: Path | None = None
    """Folder of the dataset."""
    population: tuple[int, ...] = (1, 5, 25, 100)
    """Numbers of candidates P."""
    timesteps: tuple[int, ...] = (16, 42, 100)
    """Numbers of timesteps T, nominal."""
    delay: Literal["layer", "none"] = "layer"
    """Count one step of delay per layer, or none."""
    images: int = 4
    """Images of 32x32; larger ones count by their pixels, at least one."""
    rounds: int = 3
    """Timed runs of every contender, after one that compiles."""
    contenders: tuple[str, ...] = ()
    """Names to measure; default: all that are installed."""
    peers: bool = True
    """Compare with the other simulators that are installed."""
    peer_images: int = 64
    """Images of the comparison, like --images."""
    peer_timesteps: int = 42
    """Nominal timesteps of the comparison."""
    peer_population: int = 1
    """Candidates that ours simulates in the comparison; the peers do one."""
    peer_scale: float = 1.0
    """Factor on our thresholds in the comparison; a peer's time does not depend on them."""
    batches: tuple[int, ...] = (1, 4, 16, 64)
    """Batch sizes from which each peer gets its best."""
    sweep: bool = False
    """Also scale all thresholds, to see how time grows with spikes."""
    scales: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
    """Factors on the thresholds in the sweep."""
    quick: bool = False
    """VGG15 alone, P = 5, T = 42, 16 images in one batch in the comparison, no peer that compiles."""
    limit: float = 120.0
    """Leave out what is expected to take longer than so many seconds a run."""
    seed: int = 0
    """Seed of random images, random weights and the candidates."""
    out: Path = Path("runs/throughput")

    def checked(self) -> "ThroughputConfig":
        """The settings that are measured with, those of --quick filled in.

        Raises:
            UserError: options that make no sense, files or contenders that do not exist.
            data.DataError: images that do not exist.
        """
        at_least(self, population=1, timesteps=1, batches=1, images=1, rounds=1)
        at_least(self, peer_images=1, peer_timesteps=1, peer_population=1, seed=0)
        in_range(self, "(0, inf)", "scales")
        in_range(self, "(0, inf)", "limit", "peer_scale")
        self._check_contenders()
        for path in self.weights:
            if not path.is_file():
                raise UserError(f"no weights file at {path}")
        if self.data != "random":
            data.load(self.data, "test", self.data_dir, limit=1)
        if not self.quick:
            return self if self.networks or self.weights else replace(self, networks=NETWORKS)
        one = replace(self, networks=("vgg15",), population=(5,), timesteps=(42,), batches=(16,))
        return replace(one, images=4, peer_images=16)

    def _check_contenders(self) -> None:
        unknown = sorted(set(self.contenders) - entries.ENTRIES.keys())
        if unknown:
            raise UserError(f"no contender {unknown[0]!r}: the names are {', '.join(entries.ENTRIES)}")
        if self.contenders and not set(self.contenders) & entries.OURS.keys():
            raise UserError(f"--contenders names none of ours: add one of {', '.join(entries.OURS)}")
        for name in self.contenders:
            absent = entries.missing(entries.ENTRIES[name])
            if absent:
                raise UserError(f"--contenders: {name} needs {' and '.join(absent)}, not installed here")
