"""Run network.nir in SpikingJelly as jaxsnn computes it; needs nir and spikingjelly (checked with 2.0.0).

    scores = Runner()(pixels)  # float pixels (N, C, H, W) in [0, 1]; scores (steps, N, classes), summed over time

As it is imported, SpikingJelly's network resets to 0 and starts at 0; the lines below change that. It fires at the
threshold, too (>=): where the metadata's comparison is >, that differs for membranes exactly at the threshold.
"""

from pathlib import Path

import nir
import torch
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.nir_exchange import import_from_nir


class Runner:
    def __init__(self, path=Path(__file__).with_name("network.nir")):
        self.graph = nir.read(path)
        notes = self.graph.metadata
        self.steps = int(notes["timesteps"])
        self.mean, self.std = (torch.tensor(notes[name])[:, None, None] for name in ("mean", "std"))
        self.network = import_from_nir(nir.read(path))
        for module in self.network.modules():
            if isinstance(module, neuron.IFNode):
                module.v_reset = None  # subtract the threshold

    def start(self, images):
        """Set the membranes as they are before the first step."""
        for name, node in self.graph.nodes.items():
            if isinstance(node, nir.IF):
                shape = (images, *node.v_threshold.shape)
                first = torch.tensor(node.metadata["initial_membrane"]).reshape(-1, *[1] * (len(shape) - 2))
                self.network.get_submodule(name).module.v = first.expand(shape).clone()

    @torch.no_grad()
    def __call__(self, pixels):
        image = (pixels - self.mean) / self.std
        self.start(len(image))
        total, scores, state = 0, [], None
        for _ in range(self.steps):
            out, state = self.network(image, state)
            total = total + out
            scores.append(total)
        return torch.stack(scores)
