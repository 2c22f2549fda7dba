"""The spiking network for other programs: PyTorch code, integers for a chip, NIR."""
