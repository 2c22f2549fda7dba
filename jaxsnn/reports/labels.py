"""Names that people read, for networks and conventions."""

NETWORKS = {
    "clean": "nothing (clean)",
    "ann": "the ANN",
    "baseline": "the baseline SNN",
    "optimized": "the optimised SNN",
}


CONVENTIONS = {"layer": "layer delay", "none": "no delay"}
