"""Results of comparisons that were never made, for what reports show of them."""

from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.results import NetworkResult, TestResult

LAYERS = 3


def network(accuracy, **changes):
    """A network with ``LAYERS`` layers and this Acc(t)."""
    settings = {
        "spikes_per_image": 6000.0,
        "synops_per_image": 3e6,
        "spikes_per_image_by_layer": (1000.0, 2000.0, 3000.0),
        "synops_per_image_by_layer": (5e5, 1e6, 1.5e6),
        "thresholds": (1.0, 2.0, 3.0),
    }
    return NetworkResult(tuple(accuracy), **(settings | changes))


def result(timesteps=40, images=2000, delay="layer", **changes):
    """A comparison in which the optimised network is ahead by a few steps."""
    baseline = [min(0.85, 0.1 + 0.03 * max(0, t - 8)) for t in range(timesteps)]
    optimized = [min(0.86, 0.1 + 0.03 * max(0, t - 4)) for t in range(timesteps)]
    rows = (
        LatencyRow(0.855, "ANN - 0.5", None, 31, None, None),
        LatencyRow(0.81, "ANN - 5", 34, 29, 100 * (1 - 29 / 34), (10.0, 18.0)),
    )
    settings = {
        "ann_accuracy": 0.86,
        "test_images": images,
        "timesteps": timesteps,
        "delay": delay,
        "delay_steps": 3,
        "baseline": network(baseline, percentile=99.7, v0=(0.5,) * LAYERS),
        "optimized": network(optimized, v0=(0.31, 0.5, 0.62)),
        "latency": rows,
        "latency_other_delay": rows,
        "accuracy_gain_ci95": ((-14.2, -10.3),) * timesteps,
    }
    return TestResult(**(settings | changes))


def results_json(found=None, layers=("conv1", "conv2", "conv3")):
    """A results.json of a run."""
    record = (found or result()).to_json() | {
        "network": "tiny",
        "data": "embedded",
        "layers": list(layers),
        "nfe": 156,
        "generations": 12,
        "training_cost_epochs": 6.84,
        "seconds": 83.0,
        "device": "1 x cpu",
    }
    record["optimized"] |= {"percentiles": [99.6, 99.1, 98.4], "cost": 30.0, "cost_parts": {"latency": 30.0}}
    return record


HISTORY = [
    {
        "generation": number,
        "best_cost": 230.0 - number,
        "mean_cost": None if number == 1 else 240.0 - number,
        "parts": {"latency": 25.0 - number, "slope": 0.0, "accuracy": 5.0, "limit": 200.0},
    }
    for number in range(4)
]


def attacked():
    """An attack.json."""
    row = ["embedded", "this run", "FGSM", "optimised", "tiny", 50.0, 40.0, 12, True]
    accuracy = {name: {"ann": 0.5, "baseline": 0.4, "optimized": 0.3} for name in ("clean", "ann", "baseline")}
    found = {"name": "fgsm-8", "title": "FGSM", "images": 40, "timesteps": 16, "targets_reached": 0.25}
    found["table"] = {"headings": [], "rows": [row[:8]]}
    return {"fgsm-8": found | {"transfer": {"images": 8, "timesteps": 16, "accuracy": accuracy}}}


def explained():
    """An explain.json."""
    names = ("significance", "noise_ann", "noise_baseline", "noise_optimized", "depth")
    row = {"n": 3, "rho": 0.5, "p": 0.04, "claimed_sign": 1, "rho_with_depth": 0.1, "holds": True}
    rows = [row | {"explanation": name} for name in names]
    significance = {"squared": True, "components": [1, 2, 3], "change_percent": [None, 1.5, -2.0], "images": 100}
    noise = {"attack": {"method": "fgsm", "epsilon_grey_levels": 8.0}, "timesteps": 12, "images": 100}
    sweep = {"attack": "FGSM", "population": 4, "generations": 2, "images": 8, "held_out_images": 16}
    return {
        "layers": ["a", "b", "c"],
        "percentiles": [99.0, 98.0, 97.0],
        "correlations": rows,
        "significance": significance | {"variance": 0.95},
        "sensitivity": noise | {name: [0.1, None, 0.3] for name in ("ann", "baseline", "optimized")},
        "sweep": sweep,
    }
