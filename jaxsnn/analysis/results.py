"""What a comparison on test images finds: its values, its JSON, and a short table of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from jaxsnn.analysis.latency import LatencyRow, latency
from jaxsnn.networks.spiking import Genes
from jaxsnn.runtime.entries import Entries
from jaxsnn.simulation.observables import Observables


@dataclass(frozen=True)
class NetworkResult:
    """One spiking network on the test images.

    Attributes:
        accuracy: Acc(t) in [0, 1] at t = 1..T.
        spikes_per_image, synops_per_image: spikes, and the synaptic operations that they cause.
        spikes_per_image_by_layer, synops_per_image_by_layer: the same of each spiking layer; None in results of
            earlier versions.
        percentile: of the ANN's activations, where that is what the thresholds are.
        thresholds: one per spiking layer, in units of the ANN's activations; None where they were not recorded,
            and then nothing is known of ``v0`` and ``leak`` either.
        v0: initial membranes as fractions of the thresholds; None: 0.
        leak: factors on the membranes at each step; None: 1.
    """

    accuracy: tuple[float, ...]
    spikes_per_image: float
    synops_per_image: float
    spikes_per_image_by_layer: tuple[float, ...] | None = None
    synops_per_image_by_layer: tuple[float, ...] | None = None
    percentile: float | None = None
    thresholds: tuple[float, ...] | None = None
    v0: tuple[float, ...] | None = None
    leak: tuple[float, ...] | None = None

    @property
    def membranes(self) -> str:
        """Where the membranes start, and how they leak if they do: "v0 0.5, leak 0.9"; "" where not known."""
        if self.thresholds is None:
            return ""
        v0 = f"v0 {_spread(self.v0 or (0.0,))}"
        leak = _spread(self.leak or (1.0,))
        return v0 if leak == "1" else f"{v0}, leak {leak}"

    @classmethod
    def of_counts(cls, counts: Observables, candidate: int, genes: Genes | None = None) -> "NetworkResult":
        """The result of one of the candidates that were counted.

        Args:
            genes: of the network, as one candidate.
        """
        spikes, synops = counts.spikes[candidate], counts.synops[candidate]
        found = cls(
            accuracy=tuple(counts.accuracy[candidate].tolist()),
            spikes_per_image=float(spikes.sum() / counts.images),
            synops_per_image=float(synops.sum() / counts.images),
            spikes_per_image_by_layer=tuple((spikes / counts.images).tolist()),
            synops_per_image_by_layer=tuple((synops / counts.images).tolist()),
        )
        return found if genes is None else found.with_genes(genes)

    def with_genes(self, genes: Genes) -> "NetworkResult":
        """The result with the genes of its network, one candidate."""
        parts = {name: None if part is None else tuple(part) for name, part in genes.to_record().items()}
        return replace(self, **parts)

    def to_json(self) -> dict:
        """The network as results.json holds it; what is not known is left out."""
        known = {name: _listed(value) for name, value in asdict(self).items() if value is not None}
        if self.thresholds is not None:
            known |= {"v0": _listed(self.v0), "leak": _listed(self.leak)}
        return known

    @classmethod
    def from_json(cls, record: Entries, timesteps: int | None = None) -> "NetworkResult":
        """The network of a results.json; raises ``UserError`` where it is not one.

        Args:
            timesteps: that its accuracy must have; None for any number.
        """
        accuracy = record.numbers("accuracy", timesteps)
        if not all(0 <= share <= 1 for share in accuracy):
            raise record.wrong("accuracy", "numbers in [0, 1]")
        layers = len(record.numbers("thresholds")) if record.known("thresholds") else None
        by_layer = ("spikes_per_image_by_layer", "synops_per_image_by_layer", "thresholds", "v0", "leak")
        return cls(
            accuracy=accuracy,
            spikes_per_image=record.number("spikes_per_image"),
            synops_per_image=record.number("synops_per_image"),
            percentile=record.number("percentile") if record.known("percentile") else None,
            **{name: record.numbers(name, layers) for name in by_layer if record.known(name)},
        )


@dataclass(frozen=True)
class TestResult:
    """Baseline against optimised thresholds on test images.

    Attributes:
        ann_accuracy: of the ANN, in [0, 1].
        timesteps: T, counted in the convention ``delay``: "layer" counts one step of delay per layer, "none" none.
        delay_steps: the layer delay of the network.
        latency: timesteps to each target, in the convention ``delay``.
        latency_other_delay: the same rows in the other convention; none where nothing is left of T in it.
        attack: what the images were attacked with, where they were; see ``Attack.record``.
        accuracy_gain_ci95: 95 % interval of what the optimised network's accuracy is above the baseline's, in
            points, at t = 1..T; None in results of earlier versions.
        half_full: the baseline with membranes that start at half of their thresholds, where that was compared.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for tests

    ann_accuracy: float
    test_images: int
    timesteps: int
    delay: str
    delay_steps: int
    baseline: NetworkResult
    optimized: NetworkResult
    latency: tuple[LatencyRow, ...]
    latency_other_delay: tuple[LatencyRow, ...]
    attack: dict[str, Any] | None = None
    accuracy_gain_ci95: tuple[tuple[float, float], ...] | None = None
    half_full: NetworkResult | None = None

    @property
    def networks(self) -> tuple[NetworkResult, ...]:
        """All that were compared, the baseline first and the optimised one last."""
        return (self.baseline, *(() if self.half_full is None else (self.half_full,)), self.optimized)

    def to_json(self) -> dict:
        """The test part of results.json."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        networks = ("baseline", "optimized", *(() if self.half_full is None else ("half_full",)))
        values |= {name: getattr(self, name).to_json() for name in networks}
        values |= {name: [row.to_json() for row in values[name]] for name in ("latency", "latency_other_delay")}
        if self.accuracy_gain_ci95 is not None:
            values["accuracy_gain_ci95"] = [list(ends) for ends in self.accuracy_gain_ci95]
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, record: dict, where: str = "results.json") -> "TestResult":
        """The test part of a results.json; other entries are left alone.

        Args:
            where: the file, for messages.

        Raises:
            UserError: an entry is missing or of another kind.
        """
        entries = Entries.of(record, where)
        timesteps = entries.count("timesteps", 1)
        delay = entries.text("delay")
        if delay not in ("layer", "none"):
            raise entries.wrong("delay", "layer or none")
        return cls(
            ann_accuracy=entries.share("ann_accuracy"),
            test_images=entries.count("test_images", 1),
            timesteps=timesteps,
            delay=delay,
            delay_steps=entries.count("delay_steps"),
            baseline=NetworkResult.from_json(entries.entries("baseline"), timesteps),
            optimized=NetworkResult.from_json(entries.entries("optimized"), timesteps),
            latency=_rows(entries, "latency"),
            latency_other_delay=_rows(entries, "latency_other_delay"),
            attack=_attack(entries.entries("attack")) if entries.known("attack") else None,
            accuracy_gain_ci95=_intervals(entries, "accuracy_gain_ci95", timesteps),
            half_full=NetworkResult.from_json(entries.entries("half_full"), timesteps)
            if entries.known("half_full")
            else None,
        )

    @classmethod
    def of(cls, value: "TestResult | dict") -> "TestResult":
        """``value`` itself, or the test part of a results.json."""
        return value if isinstance(value, TestResult) else cls.from_json(value)

    def accuracy_at(self, network: NetworkResult, step: int, delay: str) -> float | None:
        """Acc of one of the networks after ``step`` steps in the convention ``delay``.

        None where that was not simulated, or nothing can have reached the read-out.
        """
        own = step
        if delay != self.delay:
            own = step + self.delay_steps if delay == "none" else step - self.delay_steps
        silent = self.delay_steps if self.delay == "layer" else 0
        return network.accuracy[own - 1] if silent < own <= self.timesteps else None

    def horizon(self, delay: str) -> int:
        """The last step that was simulated, counted in the convention ``delay``."""
        if delay == self.delay:
            return self.timesteps
        return self.timesteps + (self.delay_steps if delay == "layer" else -self.delay_steps)

    def steps_to(self, network: NetworkResult, target: float, delay: str) -> int | None:
        """First step in the convention ``delay`` from which one of the networks stays at or above ``target``.

        None where that is not so within T.
        """
        silent = self.delay_steps if self.delay == "layer" else 0
        found = int(latency(np.array(network.accuracy[silent:]), target - 1e-9)) if silent < self.timesteps else 0
        return found + (self.delay_steps if delay == "layer" else 0) if found else None

    def __str__(self) -> str:
        """A short table of at most 72 columns: timesteps to each target, and what each network does with them."""
        convention = "one step of delay per layer" if self.delay == "layer" else "no layer delay"
        lines = [
            f"{self.test_images:,} test images, ANN {100 * self.ann_accuracy:.2f} %; timesteps with {convention}",
            f"baseline: {_described(self.baseline)}; optimised: {_described(self.optimized)}",
            _line("", "baseline", "optimised", "saved", "95 % interval"),
        ]
        for row in self.latency:
            pair = (row.baseline_timesteps, row.optimized_timesteps)
            steps = (f"> {self.timesteps}" if n is None else str(n) for n in pair)
            least = row.saved_at_least(self.timesteps)
            saved = "" if row.improvement_percent is None else f"{row.improvement_percent:.1f} %"
            saved = saved if least is None else f"> {least:.1f} %"
            ends = "" if row.ci95 is None else f"{row.ci95[0]:.0f} to {row.ci95[1]:.0f} %"
            lines.append(_line(f"{row.target_name} ({100 * row.target:.2f} %)", *steps, saved, ends))
        pair = (self.baseline, self.optimized)
        last = (f"{100 * network.accuracy[-1]:.2f} %" for network in pair)
        lines.append(_line(f"after {self.timesteps} timesteps", *last))
        lines.append(_line("1,000 spikes an image", *(f"{n.spikes_per_image / 1e3:.1f}" for n in pair)))
        lines.append(_line("million synops an image", *(f"{n.synops_per_image / 1e6:.1f}" for n in pair)))
        return "\n".join(lines)


def _described(network: NetworkResult) -> str:
    """What is known of a network's genes, in words."""
    percentile = "" if network.percentile is None else f"{network.percentile:g} percentile"
    return ", ".join(part for part in (percentile, network.membranes) if part) or "thresholds not recorded"


def _rows(entries: Entries, name: str) -> tuple[LatencyRow, ...]:
    return tuple(LatencyRow.from_json(row) for row in entries.list_of_entries(name))


def _attack(record: Entries) -> dict[str, Any]:
    """The attack, once it is clear that it has what reports show of it."""
    record.text("method")
    record.number("epsilon_grey_levels")
    return record.record


def _intervals(entries: Entries, name: str, length: int) -> tuple[tuple[float, float], ...] | None:
    """Pairs of numbers, ``length`` of them; None where there is no such entry."""
    if not entries.known(name):
        return None
    pairs = entries.record[name]
    if not isinstance(pairs, list) or len(pairs) != length:
        raise entries.wrong(name, f"{length} pairs of numbers")
    rows = [Entries({name: pair}, entries.where).numbers(name, 2) for pair in pairs]
    return tuple((low, high) for low, high in rows)


def _spread(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _line(first: str, *cells: str) -> str:
    return (f"{first:<24}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (10, 11, 10, 17)))).rstrip()
