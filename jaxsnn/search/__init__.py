"""Differential evolution over the genes of a spiking network: cost, space, settings, checkpoints."""
