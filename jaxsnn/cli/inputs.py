"""What a search or a comparison starts from: images, a converted network and its percentiles, loaded together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
from rich.console import Console
from rich.text import Text

import data
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.cli import command
from jaxsnn.conversion.calibration import Calibration
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN
from jaxsnn.records.run_config import RunConfig
from jaxsnn.search.job import calibrated_on

CHECKED = 200
"""Training images on which the ANN's accuracy is looked at; a second for VGG15 on two cores."""
BARELY = 1.5
"""An accuracy below so many times chance is that of no trained network: on 200 images chance alone stays below."""


@dataclass(frozen=True)
class Inputs:
    """Attributes:
    sha256: of the file of weights.
    calibration: percentiles on the configuration's calibration images.
    """

    snn: SNN
    sha256: str
    train: data.Dataset
    test: data.Dataset
    calibration: Calibration

    def identity(self) -> dict[str, str]:
        """Content hashes, which tell whether a run is resumed with the same files."""
        return {
            "weights_sha256": self.sha256,
            "train_sha256": self.train.content_hash(),
            "test_sha256": self.test.content_hash(),
        }


@contextmanager
def telling(console: Console, name: str) -> Iterator[Callable[[float], None]]:
    """Say that a data set is being loaded, and how far; gives the callback that ``data.load`` takes.

    On a terminal that is a line which goes away; elsewhere one that stays, but for the embedded images, which take
    no time.
    """
    if console.is_terminal:
        with console.status(Text(f"loading {name}")) as status:
            yield lambda share: status.update(Text(f"loading {name}, {100 * share:.0f} %"))
    else:
        if name != "embedded":
            console.print(f"loading {name}", highlight=False, markup=False)
        yield lambda share: None


def load_inputs(config: RunConfig, console: Console) -> Inputs:
    """Load what a checked configuration names.

    Raises:
        UserError: the parts do not fit each other.
        DataError: the images cannot be read.
    """
    check_options(config)
    keep = kept(config.memory_limit)
    with telling(console, config.data) as tell:
        train = config.load("train", keep=keep, progress=tell)
        test = config.load("test", config.test_images, keep, tell)
        shape = train.images.shape[1:]
        snn, sha256 = load_snn(config.weights, config.network, shape, console.out, config.encoding)
        check_inputs(config, snn, train, test)
        inputs = Inputs(snn, sha256, train, test, calibrated_on(config, snn, train))
    command.warn(console, *suspicions(config, inputs))
    return inputs


def kept(memory_limit: float | None) -> int:
    """Bytes of decoded images that are kept: a quarter of --memory-limit (MB), or the usual ones."""
    return data.KEPT if memory_limit is None else min(data.KEPT, int(memory_limit * 1e6 / 4))


def check_options(config: RunConfig) -> None:
    """Raise ``UserError`` where options contradict each other, before anything is read."""
    if config.finalists > 1 and config.final_images < config.images:
        raise UserError(f"--final-images is {config.final_images}, expected at least --images, {config.images}")


def suspicions(config: RunConfig, inputs: Inputs) -> list[str]:
    """What is allowed and probably not meant, a sentence each."""
    found = []
    if config.precision == "bfloat16" and jax.default_backend() == "cpu":
        found.append("bfloat16 is slower than float32 on a CPU: int8 is the fast precision there")
    network, train = inputs.snn.network, inputs.train
    some = train.select(data.balanced(train.labels, min(CHECKED, len(train)), 0, "the training split"))
    right = ann_right(network, inputs.snn.params, some.images, some.labels).mean()
    if right < BARELY / network.classes:
        found.append(
            f"the ANN itself is right on only {100 * right:.0f} % of {len(some)} training images of "
            f"{network.classes} classes: are its weights trained, and for these images?"
        )
    return found


def check_inputs(config: RunConfig, snn: SNN, train: data.Dataset, test: data.Dataset) -> None:
    """Raise ``UserError`` where a checked configuration does not fit its network or its images."""
    for dataset in (train, test):
        check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    if max(config.images, config.calibration_images) > len(train):
        raise UserError(
            f"--images is {config.images} and --calibration-images {config.calibration_images}, "
            f"but {config.data} has only {len(train)} training images"
        )
    if config.delay == "layer" and min(config.timesteps, config.test_timesteps) <= snn.network.delay:
        raise UserError(
            f"--timesteps {config.timesteps} and --test-timesteps {config.test_timesteps} must be above the layer "
            f"delay of {snn.network.delay} steps: nothing reaches the read-out before"
        )
