"""Results that the paper reports, to stand beside ours."""

from typing import NamedTuple


class PaperRow(NamedTuple):
    """A row of the paper's Table III, or one of this run like it.

    Attributes:
        reference: who reports it; "this run" is ours.
        ann, snn: accuracy under attack, in percent.
        timesteps: of the SNN; None in a row of ours whose networks reach no target.
    """

    dataset: str
    reference: str
    attack: str
    method: str
    architecture: str
    ann: float
    snn: float
    timesteps: int | None

    @property
    def own(self) -> bool:
        """Whether the row is of this run."""
        return self.reference == OURS

    def lines(self) -> tuple[str, str]:
        """What the row is about: the network and its thresholds, and below it who says so of which attack."""
        return f"{self.architecture} on {self.dataset}, {self.method}", f"{self.reference}, {self.attack}"


OURS = "this run"
"""Reference of this run's rows."""

HEADINGS = ("dataset", "reference", "attack", "method", "architecture", "ANN %", "SNN %", "timesteps")

PAPER = (
    PaperRow("CIFAR-10", "Sharmin et al., 2020", "FGSM", "backpropagation", "ResNet20", 1.8, 3.8, 200),
    PaperRow("CIFAR-10", "Sharmin et al., 2020", "FGSM", "backpropagation", "VGG5", 10.4, 15.0, 100),
    PaperRow("CIFAR-10", "Sharmin et al., 2019", "FGSM", "backpropagation", "VGG9", 61.7, 51.6, 70),
    PaperRow("CIFAR-10", "Lu and Sengupta, 2020", "FGSM", "99.7 percentile", "VGG15", 67.42, 67.40, 74),
    PaperRow("CIFAR-10", "the paper", "FGSM", "optimised", "VGG15", 67.42, 68.9, 42),
    PaperRow("CIFAR-100", "Sharmin et al., 2020", "FGSM", "backpropagation", "VGG11", 17.1, 15.5, 200),
    PaperRow("CIFAR-100", "Lu and Sengupta, 2020", "FGSM", "99.7 percentile", "VGG15", 30.54, 31.11, 61),
    PaperRow("CIFAR-100", "the paper", "FGSM", "optimised", "VGG15", 30.54, 33.1, 44),
)
"""Table III, epsilon 8/255."""
