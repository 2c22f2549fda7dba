"""The event-driven back-end for CPUs: lowering, kernels, and the run over images."""
