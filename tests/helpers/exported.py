"""Exported files, run as a user would run them: nothing here knows this package's arithmetic."""

import importlib.util
import re

import numpy as np

from jaxsnn.exports.write import write_files


def module_at(path):
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_torch(folder, images):
    """Scores (steps, N, classes) of the module in ``folder`` for uint8 images (N, H, W, C)."""
    import torch

    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        return module_at(folder / "network.py").load()(pixels).numpy()


def run_integers(folder, images):
    """Scores and spikes by layer, from the program in the README and the files beside it."""
    program = {}
    exec(re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1], program)
    scores, spikes = program["simulate"](images.transpose(0, 3, 1, 2), *program["load"](folder))
    return scores, np.array(list(spikes.values()))


def run_nir(folder, reader, images):
    """Scores (steps, N, classes) from the program beside the graph, in the reader itself."""
    import torch

    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    return module_at(folder / f"run_{reader}.py").Runner()(pixels).numpy()


def written(folder, files):
    """The folder with the files in it."""
    write_files(folder, files)
    return folder
