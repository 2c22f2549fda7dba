"""Neurons of other kinds, a small file each, on the seam of ``jaxsnn.simulation.neuron.if_step``."""
