"""Training: ANNs, and spiking networks by backpropagation through time."""
