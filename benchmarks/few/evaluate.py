"""What a converted network does on test images, in the simulator that can say it."""

from collections.abc import Sequence

import numpy as np

from benchmarks.few.layerwise import neurons_of, right_answers
from benchmarks.few.task import Converted, Seen, Task
from jaxsnn.conversion.channels import fold_channels
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.cells.unroll import per_layer, runs
from jaxsnn.simulation.observe import observe_images

HERE = "float32, layer by layer"
CELLS = "float32, cells"


def evaluate(converted: Converted, task: Task, images: np.ndarray, labels: np.ndarray) -> Seen:
    """Simulate ``task.timesteps`` steps without layer delay on uint8 images (N, H, W, C)."""
    if converted.run is not None:
        return converted.run(images, labels, task.timesteps)
    snn, channels = converted.snn or task.snn, converted.channels
    if converted.neurons is not None or converted.skip:
        neurons = converted.neurons or neurons_of(channels)
        given = (images, labels, task.timesteps, converted.comparison, converted.skip)
        right, spikes, synops = right_answers(snn, neurons, channels.biases[-1], *given)
        return Seen(right, np.array([spikes]), np.array([synops]), HERE)
    folded, genes = fold_channels(snn, channels)
    if converted.cells is not None:
        genes = genes._replace(leak=converted.leak)
        return _with_cells(folded, genes, converted.cells, images, labels, task.timesteps)
    observed, right = observe_images(
        folded,
        genes,
        images,
        labels,
        timesteps=task.timesteps,
        dynamics=Dynamics(converted.comparison, "none"),
        plan=task.plan,
    )
    spikes, synops = (counts[:1] / observed.images for counts in (observed.spikes, observed.synops))
    return Seen(right[0], spikes, synops, task.plan.precision)


def _with_cells(
    snn: SNN, genes: Genes, cells: Cell | Sequence[Cell], images: np.ndarray, labels: np.ndarray, timesteps: int
) -> Seen:
    genes = genes.map(lambda part: np.asarray(part, np.float32))
    right, counts, start = [], [], 0
    for scores, layers in runs(per_layer(snn.network, cells), snn, genes, images, timesteps):
        count = scores.shape[2]
        right.append((scores[0].argmax(-1) == labels[start : start + count]).T)
        counts.append([layer[0] for layer in layers])
        start += count
    return seen_of(snn, np.concatenate(right), [np.sum(parts, 0) for parts in zip(*counts)])


def seen_of(snn: SNN, right: np.ndarray, counts: Sequence[np.ndarray]) -> Seen:
    """What cells did: right (N, T), and the spikes of each layer at each step and position, (T, H, W)."""
    reach = fan_out(snn.network)
    spikes = np.stack([layer.sum((1, 2)) for layer in counts], 1)
    synops = np.stack([(layer * own).sum((1, 2)) for layer, own in zip(counts, reach)], 1)
    return Seen(right, spikes.cumsum(0) / len(right), synops.cumsum(0) / len(right), CELLS)
