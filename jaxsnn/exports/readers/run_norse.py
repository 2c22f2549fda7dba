"""Run network.nir in Norse as jaxsnn computes it; needs nir and norse (checked with 1.1.0).

    scores = Runner()(pixels)  # float pixels (N, C, H, W) in [0, 1]; scores (steps, N, classes), summed over time

Norse's IAFCell resets to a value and cannot subtract, so that its step is replaced here; it starts at 0; and
norse.torch.from_nir runs a graph with branches in the wrong order, so that nirtorch.nir_to_torch puts Norse's
modules together instead.
"""

from pathlib import Path

import nir
import torch
from nirtorch import nir_to_torch
from norse.torch.functional.iaf import IAFFeedForwardState
from norse.torch.module.iaf import IAFCell
from norse.torch.utils.import_nir import _import_norse_module as module_of


def subtract(drive, state, p, dt=0.001):
    """Norse's ``iaf_feed_forward_step`` with a reset that subtracts the threshold."""
    v = state.v + drive
    spikes = (v > p.v_th).to(v)
    return spikes, IAFFeedForwardState(v=v - p.v_th * spikes)


class Runner:
    def __init__(self, path=Path(__file__).with_name("network.nir")):
        self.graph = nir.read(path)
        notes = self.graph.metadata
        self.steps = int(notes["timesteps"])
        self.mean, self.std = (torch.tensor(notes[name])[:, None, None] for name in ("mean", "std"))
        kinds = (nir.IF, nir.Affine, nir.Conv2d, nir.SumPool2d, nir.Flatten)
        self.network = nir_to_torch(nir.read(path), dict.fromkeys(kinds, module_of))
        for module in self.network.modules():
            if isinstance(module, torch.nn.Flatten):
                module.start_dim = 1  # the first axis is the batch
            if isinstance(module, IAFCell):
                module.activation = subtract

    def start(self, images):
        """Set the membranes as they are before the first step."""
        for name, node in self.graph.nodes.items():
            if isinstance(node, nir.IF):
                shape = (images, *node.v_threshold.shape)
                first = torch.tensor(node.metadata["initial_membrane"]).reshape(-1, *[1] * (len(shape) - 2))
                state = IAFFeedForwardState(v=first.expand(shape).clone())
                self.network.get_submodule(name).state_fallback = lambda drive, state=state: state

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
