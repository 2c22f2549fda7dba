"""What benchmarks.throughput measures: a network with its images, written as a problem for the contenders."""

import math
import multiprocessing
from pathlib import Path

import numpy as np

from benchmarks.problem import CIFAR_PIXELS, Case, load_problem, make_problem, random_params, save_problem
from benchmarks.throughput_config import ThroughputConfig
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network

RANDOM = {"vgg15": {}, "vgg15-224": {"input_shape": (224, 224, 3), "classes": 1000}}
"""Networks with random weights, and what makes them other than the architecture's default."""


def prepared(source: str, config: ThroughputConfig, path: Path) -> tuple[Case, str]:
    """The network called ``source``, written to ``path``, and what its images are.

    The work is done in a process of its own: this one keeps its memory small.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        described = pool.apply(prepare, (source, config, path))
    return Case(Path(source).stem, path, load_problem(path)), described


def prepare(source: str, config: ThroughputConfig, path: Path) -> str:
    """Write the problem of one network; returns what its images are."""
    trained = source not in RANDOM
    network, params = trained_network(source) if trained else random_network(source)
    pixels = math.prod(network.input_shape[:2])
    count = max(1, max(config.images, config.peer_images, 4) * CIFAR_PIXELS // pixels)
    calibration_count = max(2, (500 if trained else 64) * CIFAR_PIXELS // pixels)
    images, calibration, described = images_for(config, network, count, calibration_count)
    if not trained:
        params = random_params(network, calibration[:32], config.seed)
    candidates = max(*config.population, config.peer_population)
    checked = min(4, count)
    problem = make_problem(network, params, images, calibration, candidates, checked, config.seed)
    save_problem(path, problem)
    return described


def trained_network(source: str) -> tuple[Network, dict[str, np.ndarray]]:
    """The converted network of a file, or the embedded one."""
    from jaxsnn.conversion.loading import load_snn

    snn, _ = load_snn(None if source == "embedded" else Path(source))
    return snn.network, {name: np.asarray(value) for name, value in snn.params.items()}


def random_network(source: str) -> tuple[Network, dict[str, np.ndarray]]:
    """A network whose weights are still to be drawn."""
    from jaxsnn.conversion.folding import fold
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.networks.description import shapes_of

    network = architecture("vgg15", **RANDOM[source])
    nothing = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(network).items()}
    return fold(network, nothing)


def images_for(
    config: ThroughputConfig, network: Network, count: int, calibration_count: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Images to time, others to calibrate on, and what they are: the data set's where they fit, else random."""
    described = "random images"
    if config.data != "random":
        import data
        from jaxsnn.conversion.loading import check_data

        test = data.load(config.data, "test", config.data_dir, limit=count)
        train = data.load(config.data, "train", config.data_dir, limit=calibration_count)
        try:
            check_data(network, test.images, len(test.classes), test.name)
            return test.images, train.images, f"test images of {config.data}"
        except UserError:
            described = f"random images, because those of {config.data} do not fit"
    rng = np.random.default_rng(config.seed)
    images = rng.integers(0, 256, (count, *network.input_shape), dtype=np.uint8)
    return images, rng.integers(0, 256, (calibration_count, *network.input_shape), dtype=np.uint8), described
