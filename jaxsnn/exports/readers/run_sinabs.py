"""Run network.nir in sinabs as jaxsnn computes it; needs nir and sinabs (checked with 2.0.3).

    scores = Runner()(pixels)  # float pixels (N, C, H, W) in [0, 1]; scores (steps, N, classes), summed over time

As it is imported, sinabs's network starts at 0, fires several times in a step, and cuts membranes at minus the
threshold; the lines below change that. sinabs.from_nir runs a graph with branches in the wrong order, so that
nirtorch.nir_to_torch puts sinabs's modules together instead. It fires at the threshold, too (>=): where the
metadata's comparison is >, that differs for membranes exactly at the threshold.
"""

from functools import partial
from pathlib import Path

import nir
import torch
from nirtorch import nir_to_torch
from sinabs.activation import SingleSpike
from sinabs.nir import _import_sinabs_module as module_of


class Runner:
    def __init__(self, path=Path(__file__).with_name("network.nir")):
        self.graph = nir.read(path)
        notes = self.graph.metadata
        self.steps = int(notes["timesteps"])
        self.mean, self.std = (torch.tensor(notes[name])[:, None, None] for name in ("mean", "std"))
        kinds = (nir.IF, nir.Affine, nir.Conv2d, nir.SumPool2d, nir.Flatten)
        ours = partial(module_of, batch_size=None, num_timesteps=self.steps)
        self.network = nir_to_torch(nir.read(path), dict.fromkeys(kinds, ours))

    def start(self, images):
        """Set the membranes as they are before the first step."""
        for name, node in self.graph.nodes.items():
            if isinstance(node, nir.IF):
                shape = (images, *node.v_threshold.shape)
                first = torch.tensor(node.metadata["initial_membrane"]).reshape(-1, *[1] * (len(shape) - 2))
                layer = self.network.get_submodule(name)
                layer.min_v_mem, layer.spike_fn = None, SingleSpike
                layer.v_mem = first.expand(shape).clone()

    @torch.no_grad()
    def __call__(self, pixels):
        image = (pixels - self.mean) / self.std
        self.start(len(image))
        out = self.network(image.repeat_interleave(self.steps, 0))[0]  # all steps of an image in a row
        return out.unflatten(0, (len(image), self.steps)).transpose(0, 1).cumsum(0)
