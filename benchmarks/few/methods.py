"""The rows of ``benchmarks.few_timesteps`` by name."""

from benchmarks.few import ftbc, iteration, ltb, mmse, ours, percentile, snnc
from benchmarks.few.task import Method

RIVALS: dict[str, tuple[str, Method]] = {
    "percentile": ("99.7 percentile", percentile.empty_start),
    "half-full": ("99.7, half full", percentile.half_full_start),
    "one-scale": ("99.7, half full, one scale", percentile.one_scale),
    "mmse-layer": ("MMSE a layer", mmse.per_layer),
    "mmse-channel": ("MMSE a channel", mmse.per_channel),
    "iteration": ("threshold iteration", iteration.per_channel),
    "snnc-light": ("SNNC light", snnc.light),
    "snnc-light-channel": ("SNNC light, channels", snnc.light_channels),
    "snnc-advanced": ("SNNC advanced", snnc.advanced),
    "snnc-advanced-channel": ("SNNC advanced, channels", snnc.advanced_channels),
    "ltb": ("LTB", ltb.balanced),
    "ltb-delayed": ("LTB, delayed", ltb.delayed),
    "ftbc": ("FTBC", ftbc.temporal),
}


def methods() -> dict[str, tuple[str, Method]]:
    """Title and function of every row, rivals first."""
    own = ours.rows() | {"ours-delayed-readout": ours.delayed} | ours.distillations()
    return RIVALS | {name: (name.replace("-", ", ", 1).replace("-", " "), row) for name, row in own.items()}
