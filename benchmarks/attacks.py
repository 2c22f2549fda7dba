"""Table III of the paper: one network and its spiking rivals under attack, FGSM and PGD.

    python -m benchmarks.attacks --hardened W --training-images 1000 --json attacks.json

Rivals are those of the paper's table: the spiking networks of Sharmin et al. (2020), trained from the common
network with random spikes for an image, directly or after conversion ("direct backpropagation" and "hybrid" of
``benchmarks.rivals``), attacked at their first layer; and the 99.7 percentile of Lu and Sengupta. Of the table's
other rival (Sharmin et al. 2019) no more than its figure is known.

Images are attacked on the ANN, which the attacker is most likely to have, and on each spiking network itself
through a surrogate gradient. --epsilon is meant in pixels, in grey levels of 255. In normalised space, where some
programs count it, the same number is so much less in pixels as the pixels' standard deviation says: it is reported
apart, as the nearest whole number of grey levels.

With --json a row is kept as soon as it is there; the same command goes on.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console

import data
from benchmarks import command
from benchmarks.attacks_report import SPACES, paper_table, sentences, table_of
from benchmarks.few import ours, percentile
from benchmarks.few.evaluate import evaluate
from benchmarks.few.task import Converted
from benchmarks.few_timesteps import held_rows, note_progress
from benchmarks.markdown import printed
from benchmarks.rivals import trained
from benchmarks.rivals.system import Job, Labelled
from benchmarks.rivals.victims import victim_of
from jaxsnn.analysis.adversarial import Attack, ann_victim, attack_of, perturb
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.cli.command import progress_bar
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import SNN
from jaxsnn.runtime.checks import at_least, at_most, in_range
from jaxsnn.runtime.files import plain, write_json
from jaxsnn.runtime.provenance import code_digest, describe_device, versions
from jaxsnn.simulation.plan import Plan

BATCH = 25
"""Images attacked on a spiking network at once."""
MOST_TIMESTEPS = 256
ROOT = Path(__file__).parents[1]
PARTS = ("analysis", "conversion", "networks", "simulation", "training")
CODE = ("benchmarks/few", "benchmarks/rivals", *(f"jaxsnn/{part}" for part in PARTS))
"""What rows depend on."""
RANDOM = ("hybrid", "lee")
"""Trained, with random spikes for an image."""


@dataclass(frozen=True, kw_only=True)
class Config(DebugOptions, DataOptions, WeightsOptions):
    """One network and its spiking rivals under attack."""

    data: tyro.conf.Positional[str] = "embedded"
    """Dataset: embedded, cifar10, cifar100, or another that jaxsnn.optimize --data takes."""
    hardened: Path | None = None
    """Weights of a network that was trained with jaxsnn.train --adversarial; default: none beside --weights."""
    systems: tuple[str, ...] = ()
    """By name, ours beside them in any case; default: all, those that are trained only with --training-images."""
    attacks: tuple[Literal["fgsm", "pgd"], ...] = ("fgsm", "pgd")
    epsilon: float = 8.0
    """Strength in grey levels, 1/255 of the pixel range; in normalised space the same part of its unit."""
    steps: int = 10
    """Of PGD, of epsilon / 4 each."""
    images: int = 500
    """Test images."""
    own_images: int = 100
    """The first of them are attacked on each spiking network itself, too; 0 for none."""
    timesteps: int = 8
    """T of the systems that get the image as a constant current; no layer delay."""
    random_timesteps: int = 16
    """T of those that get it as random spikes."""
    calibration_images: int = 512
    """Training images without labels, for systems that are converted."""
    training_images: int = 0
    """Training images with labels for systems that are trained; 0 leaves these out."""
    epochs: int = 1
    """Over these images."""
    batch: int = 25
    """Images of a training step."""
    minutes: float = 1e6
    """Begin no system after so many."""
    json: Path | None = None
    """Keep the rows in this file."""
    markdown: bool = False
    """Print the tables as Markdown."""

    def settings(self) -> dict[str, Any]:
        """What rows of one file have in common."""
        names = ("images", "own_images", "calibration_images", "training_images", "epochs", "batch", "steps")
        return {name: getattr(self, name) for name in (*names, "timesteps", "random_timesteps")}


class Aim(NamedTuple):
    """An attack, the space in which its strength was meant, and the network that it is crafted on.

    ``crafted`` is "ann" or "itself"; without an attack, nothing is done to the images.
    """

    space: str = ""
    attack: Attack | None = None
    crafted: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells a row's attack from others."""
        return self.space, "" if self.attack is None else str(self.attack), self.crafted


def aims_of(config: Config, network: Network, spiking: bool) -> Iterator[Aim]:
    """What is done to a system: nothing, the attacks in pixels, and the same numbers in normalised space."""
    yield Aim()
    spaces = {"pixels": config.epsilon, "normalised": normalised_levels(config.epsilon, network)}
    for space, levels in spaces.items():
        for method in config.attacks if levels else ():
            attack = attack_of(method, levels, steps=config.steps)
            yield Aim(space, attack, "ann")
            if spiking and config.own_images:
                yield Aim(space, attack, "itself")


def normalised_levels(grey_levels: float, network: Network) -> int:
    """The whole number of grey levels that is nearest to ``grey_levels`` / 255 of the normalised unit."""
    return round(grey_levels * float(np.mean(network.std)))


def makers(config: Config) -> dict[str, Callable[[Job], Converted]]:
    """How each spiking system is made."""
    return {
        "percentile": percentile.empty_start,
        "half-full": percentile.half_full_start,
        "ours": ours.calibrated,
        "hybrid": functools.partial(trained.hybrid, timesteps=config.random_timesteps),
        "lee": functools.partial(trained.lee, timesteps=config.random_timesteps),
    }


def chosen(config: Config) -> list[str]:
    """The spiking systems that the options name, those that are trained last."""
    known = list(makers(config))
    for name in config.systems:
        if name not in known:
            raise UserError(f"--systems {name} is unknown: the systems are {', '.join(known)}")
        if name in RANDOM and not config.training_images:
            raise UserError(f"--systems {name} is trained: say on how many images with --training-images")
    wanted = config.systems or [name for name in known if name not in RANDOM or config.training_images]
    return [name for name in known if name in wanted or name == "ours"]


@functools.cache
def code() -> str:
    """A hash of the sources that rows depend on."""
    return code_digest({name: ROOT / name for name in CODE})


@dataclass(frozen=True)
class Scene:
    """A network, images, and what is shared by its systems."""

    config: Config
    name: str
    snn: SNN
    train: data.Dataset
    test: data.Dataset
    crafted: dict[Attack, np.ndarray] = field(default_factory=dict)

    def job(self, system: str) -> Job:
        """What a system is made from."""
        config, train = self.config, self.train
        few = data.balanced(train.labels, config.calibration_images, 0, "the training split")
        many = np.random.default_rng(0).permutation(len(train))[: config.training_images]
        return Job(
            snn=self.snn,
            images=train.images[few],
            timesteps=config.random_timesteps if system in RANDOM else config.timesteps,
            plan=Plan(),
            labelled=Labelled(train.images[many], train.labels[many]),
            epochs=config.epochs,
            batch=config.batch,
        )

    def on_the_ann(self, attack: Attack) -> np.ndarray:
        """All test images, attacked on the ANN once for all systems."""
        if attack not in self.crafted:
            victim = ann_victim(self.snn)
            self.crafted[attack] = perturb(victim, attack, self.test.images, self.test.labels, batch=BATCH)
        return self.crafted[attack]

    def rows(self, system: str, there: set[tuple]) -> Iterator[dict[str, Any]]:
        """The rows of a system, "ann" for the ANN, that are not ``there``: one for each of its aims."""
        spiking = system != "ann"
        missing = [
            aim
            for aim in aims_of(self.config, self.snn.network, spiking)
            if (self.name, system, *aim.key) not in there
        ]
        job = self.job(system)
        converted = makers(self.config)[system](job) if spiking and missing else None
        for aim in missing:
            started = time.monotonic()
            labels = self.test.labels
            if aim.attack is None:
                images = self.test.images
            elif aim.crafted == "ann":
                images = self.on_the_ann(aim.attack)
            elif converted is not None:
                labels = labels[: self.config.own_images]
                victim = victim_of(converted, job)
                images = perturb(victim, aim.attack, self.test.images[: len(labels)], labels, batch=BATCH)
            if converted is None:
                right = ann_right(self.snn.network, self.snn.params, images, labels)
            else:
                right = evaluate(converted, job, images, labels).right[:, -1]
            space, attack, crafted = aim.key
            yield plain(
                {
                    "network": self.name,
                    "system": system,
                    "timesteps": job.timesteps if spiking else None,
                    "space": space,
                    "attack": attack,
                    "crafted": crafted,
                    "images": len(labels),
                    "accuracy": float(right.mean()),
                    "right": np.packbits(right).tobytes().hex(),
                    "seconds": time.monotonic() - started,
                    "code": code(),
                }
            )


def scenes(config: Config, console: Console) -> tuple[list[Scene], dict[str, Any]]:
    """The networks that checked options name on their images, and what identifies them."""
    train, test = config.load("train"), config.load("test", config.images)
    for name in ("calibration_images", "training_images"):
        if getattr(config, name) > len(train):
            option = f"--{name.replace('_', '-')} is {getattr(config, name)}"
            raise UserError(f"{option}, but {config.data} has only {len(train)} training images")
    if config.own_images > len(test):
        raise UserError(f"--own-images is {config.own_images}, but there are only {len(test)} test images")
    found, identity = [], config.settings() | {"test_images": len(test), "test_sha256": test.content_hash()}
    files = {"as it is": (config.weights, config.network)}
    if config.hardened is not None:
        files["adversarially trained"] = (config.hardened, None)
    for name, (path, network) in files.items():
        snn, sha256 = load_snn(path, network, train.images.shape[1:], console.out)
        check_data(snn.network, test.images, len(test.classes), f"{test.name} ({test.split})")
        found.append(Scene(config, name, snn, train, test))
        identity[f"{name}_sha256"] = sha256
    return found, plain(identity)


def run(config: Config, console: Console) -> dict[str, Any]:
    """Run the rows that are missing and keep each; returns the report with all rows of this code."""
    places, identity = scenes(config, console)
    held = held_rows(config.json, identity)
    rows = [row for row in held if row["code"] == code()]
    if len(rows) < len(held):
        console.print(f"{len(held) - len(rows)} rows are of other code and will run again", highlight=False)
    there = {tuple(row[name] for name in ("network", "system", "space", "attack", "crafted")) for row in rows}
    network = places[0].snn.network
    report = {
        "network": network.name,
        "epsilon": config.epsilon,
        "std": list(network.std),
        "settings": identity,
        "device": describe_device(),
        "versions": versions(),
        "rows": rows,
    }
    todo = [(scene, system) for system in ("ann", *chosen(config)) for scene in places]
    started = time.monotonic()
    with progress_bar(console) as bar:
        task = bar.add_task("systems", total=len(todo), note="")
        for scene, system in todo:
            if time.monotonic() - started > 60 * config.minutes:
                console.print("the minutes are over: the same command goes on", highlight=False)
                break
            for row in scene.rows(system, there):
                rows.append(row)
                note_progress(
                    bar,
                    task,
                    f"{system}, {scene.name}: {row['attack'] or 'clean'} {row['space']} {row['crafted']}",
                )
                if config.json is not None:
                    write_json(config.json, report)
            bar.update(task, advance=1)
    return report


def main(config: Config) -> dict[str, Any]:
    """Run what is missing, print the tables, keep the rows."""
    at_least(config, steps=1, images=1, own_images=0, timesteps=1, random_timesteps=1, calibration_images=1)
    at_least(config, training_images=0, epochs=1, batch=1)
    at_most(config, timesteps=MOST_TIMESTEPS, random_timesteps=MOST_TIMESTEPS)
    in_range(config, "(0, inf)", "minutes")
    attack_of("fgsm", config.epsilon)
    chosen(config)
    console = Console()
    report = run(config, console)
    spaces = [space for space in SPACES if any(row["space"] == space for row in report["rows"])]
    for table in (*(table_of(report, space) for space in spaces), paper_table()):
        printed(console, table, config.markdown)
    for sentence in sentences(report):
        console.print(sentence, highlight=False, soft_wrap=config.markdown)
    if config.json is not None:
        write_json(config.json, report)
        console.print(f"-> {config.json}", soft_wrap=True)
    return report


if __name__ == "__main__":
    command.run(Config, main, "attacks", __doc__)
