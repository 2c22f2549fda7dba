"""Run network.nir in snnTorch as jaxsnn computes it; needs nir and snntorch (checked with 1.0.0).

    scores = Runner()(pixels)  # float pixels (N, C, H, W) in [0, 1]; scores (steps, N, classes), summed over time

As it is imported, snnTorch's network leaks by a factor 0.9 at every step, hands on tuples, and does not fire while
a membrane is still above the threshold after a reset; the lines in ``__init__`` change that.
"""

from pathlib import Path

import nir
import snntorch
import torch
from snntorch.import_nir import import_from_nir


class Runner:
    def __init__(self, path=Path(__file__).with_name("network.nir")):
        self.graph = nir.read(path)
        notes = self.graph.metadata
        self.steps = int(notes["timesteps"])
        self.mean, self.std = (torch.tensor(notes[name])[:, None, None] for name in ("mean", "std"))
        self.network = import_from_nir(nir.read(path))
        for module in self.network.modules():
            if isinstance(module, torch.nn.Flatten):
                module.start_dim = 1  # the first axis is the batch
            if isinstance(module, snntorch.Leaky):
                module.beta.fill_(1.0)
                module.init_hidden = True
                module.reset_delay = True  # takes one threshold off for a spike, at the next step's start

    def start(self, images):
        """Set the membranes as they are before the first step."""
        for name, node in self.graph.nodes.items():
            if isinstance(node, nir.IF):
                first = torch.tensor(node.metadata["initial_membrane"])
                first = first + (first > 1)  # for the threshold that the first step takes off
                shape = (images, *node.v_threshold.shape)
                first = first.reshape(-1, *[1] * (len(shape) - 2))
                self.network.get_submodule(name).mem = first.expand(shape).clone()

    @torch.no_grad()
    def __call__(self, pixels):
        image = (pixels - self.mean) / self.std
        self.start(len(image))
        total, scores = 0, []
        for _ in range(self.steps):
            total = total + self.network(image)[0]
            scores.append(total)
        return torch.stack(scores)
