"""What a search with the paper's settings costs on one device: python -m benchmarks.cloud_cost

Prints a Markdown table for the rows of Table I: the work in image-timestep-candidates (itc), P (G + 1) candidates
on the preset's images for its timesteps, without the steps that are layer delay and need no simulation; and the
seconds that it takes. The finalists, the test images and crafting attacks come on top (a few per cent).

The CPU's rate was measured. No accelerator's was: their seconds are rooflines, the executed multiply-accumulates
times two over the device's peak in bfloat16, times an assumed utilisation. Memory traffic is not in them.
"""

from dataclasses import dataclass

from benchmarks import command
from benchmarks.contenders.entries import our_macs
from jaxsnn.cli.options import DebugOptions
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import Network
from jaxsnn.runtime.checks import in_range
from jaxsnn.search.presets import PRESETS
from jaxsnn.search.settings import SearchSettings

CPU_RATE = 5190
"""itc/s of VGG15 on CIFAR-10 images, event-driven, int8, two cores: benchmarks.throughput, docs/results.md."""


PEAKS = {"H100": 989e12, "A100": 312e12, "TPU v5e": 197e12, "TPU v5p": 459e12}
"""Dense bfloat16 FLOP/s of one device, by its maker: NVIDIA's data sheets (SXM; the H100's 1,979e12 there is with
sparsity), Google's "Peak compute per chip (bf16)"."""


NETWORKS = {
    "cifar10": ("vgg15", 10, 32),
    "cifar100-vgg15": ("vgg15", 100, 32),
    "cifar100-vgg11": ("vgg11", 100, 32),
    "imagenet": ("vgg15", 1000, 224),
    "cifar10-attack": ("vgg15", 10, 32),
    "cifar100-attack": ("vgg15", 100, 32),
}
"""Architecture, classes and image side of each row."""


@dataclass(frozen=True)
class CostConfig(DebugOptions):
    """Print what a search with each preset of Table I costs on one device."""

    utilisation: float = 0.3
    """Share of an accelerator's peak that is assumed to be reached."""


def network_of(name: str) -> Network:
    """The network of the preset called ``name``."""
    kind, classes, side = NETWORKS[name]
    return architecture(kind, classes=classes, input_shape=(side, side, 3))


def work(preset: SearchSettings, network: Network) -> int:
    """Image-timestep-candidates of a whole search, of the steps that are simulated."""
    candidates = preset.population * (preset.generations + 1)
    return candidates * preset.images * (preset.timesteps - network.delay)


def roofline_seconds(itc: int, network: Network, peak: float, utilisation: float) -> float:
    """Seconds of ``itc`` on a device of ``peak`` FLOP/s."""
    return 2 * our_macs(network) * itc / (peak * utilisation)


def table(utilisation: float) -> str:
    """The Markdown table."""
    share = f"{100 * utilisation:g} %"
    columns = ["preset", "network", "million itc", "MMAC/itc", "two CPU cores, measured rate"]
    columns += [f"{name}, roofline at {share}" for name in PEAKS]
    lines = [columns, ["---"] * len(columns)]
    for name in NETWORKS:
        network = network_of(name)
        itc = work(PRESETS[name], network)
        row = [name, network.name, f"{itc / 1e6:,.0f}", f"{our_macs(network) / 1e6:,.0f}"]
        row.append(f"{itc / CPU_RATE:,.0f} s" if name == "cifar10" else "")
        row += [f"{roofline_seconds(itc, network, peak, utilisation):,.0f} s" for peak in PEAKS.values()]
        lines.append(row)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(config: CostConfig) -> None:
    """Print the table."""
    in_range(config, "(0, 1]", "utilisation")
    print(table(config.utilisation))


if __name__ == "__main__":
    command.run(CostConfig, main, "cloud_cost", __doc__)
