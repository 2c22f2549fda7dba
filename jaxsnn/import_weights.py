"""Import a network that was trained elsewhere: python -m jaxsnn.import_weights FILE"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from rich.progress import Progress
from rich.table import Table

from jaxsnn.analysis.comparison import ann_right
from jaxsnn.cli import command
from jaxsnn.cli.options import DataOptions, DebugOptions
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.import_network import Imported, describe, import_network
from jaxsnn.conversion.loading import check_data
from jaxsnn.conversion.model_import import import_model, is_model_file
from jaxsnn.conversion.state_dicts import has_torch, read_foreign
from jaxsnn.conversion.torch_twin import torch_logits
from jaxsnn.errors import UserError
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.weights import describes_network, save_weights
from jaxsnn.reports.labels import for_table
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import write_atomically

COMPARED = 100
"""Images on which logits before and after the import are compared."""
TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit, that rounding may make."""


@dataclass(frozen=True)
class ImportConfig(DebugOptions, DataOptions):
    """Import a whole model (.onnx, or .pt2 of torch.export.save) for jaxsnn.optimize --weights, or weights alone:
    a PyTorch state_dict (.pt, .pth) or a plain safetensors file.

    Of a whole model it prints how far its logits are from those of ONNX Runtime, where that is installed, or of
    the file's graph in float64. Of weights it prints layer by layer what was read, folded and left out, and the
    ANN's accuracy on test images before the import (computed by PyTorch from the file's own tensors, where PyTorch
    is installed). In both cases the accuracy after import and folding follows.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """File of weights."""
    network: str | None = None
    """Architecture by name (vgg15-bn, vgg16-bn, resnet18, resnet20, ...) or a description, FILE.json; default:
    inferred from the shapes, where they leave no doubt."""
    width: float = 1.0
    """Factor on the features of the named architecture."""
    out: Path | None = None
    """Write the imported network here, a .safetensors file."""
    describe: Path | None = None
    """Write a description of the network as JSON to edit, and stop; without --network the file's layers in a row,
    to put pools, strides and shortcuts into."""
    input_shape: tuple[int, ...] | None = None
    """Shape of one input of a whole model whose file leaves it open (3 32 32, say); default: the images'."""
    max_pool: Literal["refuse", "spiking", "average"] = "refuse"
    """What becomes of a whole model's max pools: spiking lets the input of each window that has fired most pass
    its spikes; average puts average pools in their place, to be trained further."""
    mean: tuple[float, ...] | None = None
    """Mean of the pixels (in [0, 1]) per channel, with which the network was trained; default: CIFAR-10's for
    weights, 0 for a whole model."""
    std: tuple[float, ...] | None = None
    """Their standard deviation per channel; default: CIFAR-10's for weights, 1 for a whole model."""
    images: int | None = None
    """Test images; default: all."""


def report_table(imported: Imported) -> Table:
    """What was read, folded and left out, op by op."""
    network = imported.network
    table = Table(title=for_table(f"{network.name}, {len(network.spiking)} spiking layers"))
    for column in ("layer", "op", "read from", "shape", "what"):
        table.add_column(column)
    before = None
    for row in imported.rows:
        cells = ("" if row.layer == before else row.layer, row.op, row.module, row.shape, row.what)
        table.add_row(*map(for_table, cells))
        before = row.layer
    return table


def import_whole(config: ImportConfig, console: command.TextConsole) -> dict[str, float]:
    """Import a file that holds a whole model; returns the difference of a logit and the accuracy."""
    for option in ("network", "describe"):
        if getattr(config, option) is not None:
            raise UserError(f"{config.file} describes its own network: leave --{option} out")
    test = config.load("test", config.images)
    height, width, channels = test.images.shape[1:]
    model = import_model(
        config.file,
        config.input_shape or (channels, height, width),
        mean=config.mean,
        std=config.std,
        max_pool=config.max_pool,
        images=test.images[:COMPARED],
    )
    network = model.network
    console.print(
        f"{network.name}: {len(network.spiking)} spiking layers, images {network.input_shape}, {network.classes} "
        "classes",
        highlight=False,
    )
    for note in model.notes:
        console.print(note, highlight=False, markup=False)
    results: dict[str, float] = {"difference": model.difference}
    notes = {"imported_from": config.file.name, "data": config.data}
    try:
        check_data(network, test.images, len(test.classes), f"{test.name} ({test.split})")
    except UserError as error:
        console.print(f"its accuracy is not known: {error}", highlight=False, markup=False)
    else:
        folded, params = fold(network, model.params)
        results |= {"accuracy_after": float(ann_right(folded, params, test.images, test.labels).mean())}
        notes |= {"test_accuracy": f"{results['accuracy_after']:.4f}", "test_images": str(len(test))}
        console.print(
            f"ANN accuracy after import: {100 * results['accuracy_after']:.2f} % on {len(test)} test images"
        )
    if config.out is not None:
        save_weights(config.out, network, model.params, notes)
        console.print(f"-> {config.out}")
    return results


def import_weights(config: ImportConfig) -> dict[str, float]:
    """Run the command; returns the accuracies and the largest difference of a logit."""
    console = command.TextConsole()
    at_least(config, images=1)
    in_range(config, "(0, inf)", "width")
    if config.out is not None and config.out.suffix != ".safetensors":
        raise UserError(f"--out is {config.out}, expected a name that ends in .safetensors")
    if describes_network(config.file):
        raise UserError(f"{config.file} needs no import: it describes its own network, give it as --weights")
    if is_model_file(config.file):
        return import_whole(config, console)
    if config.input_shape is not None or config.max_pool != "refuse":
        raise UserError(f"--input-shape and --max-pool are for whole models, {config.file} holds weights alone")
    file = read_foreign(config.file)
    test = config.load("test", config.images)
    image_shape = test.images.shape[1:]
    if config.describe is not None:
        text = describe(file, config.network, image_shape, config.width, config.mean, config.std)
        write_atomically(config.describe, text.encode())
        console.print(f"description of {len(file.modules)} modules -> {config.describe}")
        return {}
    imported = import_network(
        file, config.network, image_shape=image_shape, width=config.width, mean=config.mean, std=config.std
    )
    network = imported.network
    check_data(network, test.images, len(test.classes), f"{test.name} ({test.split})")
    console.print(report_table(imported))
    for note in imported.notes:
        console.print(note, highlight=False, markup=False)

    folded, params = fold(network, imported.params)
    results: dict[str, float] = {"images": len(test)}
    if not has_torch():
        console.print("PyTorch is not installed, so the file is not evaluated in its original layout")
    else:
        with Progress(console=console) as bar:
            task = bar.add_task("in the original layout", total=len(test))
            original = torch_logits(
                network, imported.modules, test.images, progress=lambda n: bar.update(task, advance=n)
            )
        ours = np.asarray(jax.jit(ann_forward, static_argnums=0)(folded, params, test.images[:COMPARED])[-1])
        difference = float(np.abs(ours - original[:COMPARED]).max())
        results |= {
            "accuracy_before": float((original.argmax(-1) == test.labels).mean()),
            "difference": difference,
        }
        console.print(
            f"largest difference of a logit on {len(ours)} images: {difference:.2g} "
            f"(largest logit {np.abs(original).max():.3g})",
            highlight=False,
        )
        if not difference <= TOLERANCE * np.abs(original).max():
            raise UserError(
                f"the imported network's logits differ by {difference:.3g} from PyTorch's, so it is not imported "
                "right: please report this with the network's description"
            )
        console.print(f"ANN accuracy before: {100 * results['accuracy_before']:.2f} % on {len(test)} test images")
    results["accuracy_after"] = float(ann_right(folded, params, test.images, test.labels).mean())
    console.print(
        f"ANN accuracy after import and folding: {100 * results['accuracy_after']:.2f} % on {len(test)} test "
        "images"
    )
    if config.out is not None:
        notes = {
            "imported_from": config.file.name,
            "data": config.data,
            "test_accuracy": f"{results['accuracy_after']:.4f}",
            "test_images": str(len(test)),
        }
        save_weights(config.out, network, imported.params, notes)
        console.print(f"-> {config.out}")
    return results


if __name__ == "__main__":
    command.main(ImportConfig, import_weights, "jaxsnn.import_weights")
