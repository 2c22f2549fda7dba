"""A network trained in PyTorch: hand it over, and let it spike."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import tyro
from torch.nn import AvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, ReLU, Sequential
from torch.nn.functional import cross_entropy

import data
import jaxsnn


def main(epochs: int = 4, images: int = 1000, out: Path = Path("own_pytorch_network.png")) -> None:
    """Train a small network for a few seconds, convert it, and draw its accuracy over time."""
    train, test = data.load("embedded", "train", limit=images), data.load("embedded", "test", limit=500)
    x, unseen = (torch.tensor(part.images).permute(0, 3, 1, 2) / 127.5 - 1 for part in (train, test))
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [Conv2d(before, after, 3, padding=1, bias=False), AvgPool2d(2), BatchNorm2d(after), ReLU()]
    model = Sequential(*layers, Flatten(), Linear(1024, 10, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for part in (part for _ in range(epochs) for part in torch.randperm(len(x)).split(50)):
        optimizer.zero_grad()
        cross_entropy(model(x[part]), torch.tensor(train.labels[part.numpy()]).long()).backward()
        optimizer.step()
    right = (model.eval()(unseen).argmax(1).numpy() == test.labels).mean()

    snn = jaxsnn.load(model, input_shape=(3, 32, 32), mean=0.5, std=0.5)  # x = (pixels - mean) / std, see above

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for v0 in (0.0, 0.5):
        genes = jaxsnn.percentiles(snn, train.images[:200]).genes(99.7, v0)
        seen = jaxsnn.observe(snn, genes, test.images, test.labels, timesteps=40)
        axes.plot(range(1, 41), 100 * seen.accuracy[0], label=f"spiking, v0 = {v0}")
    axes.axhline(100 * right, color="black", linestyle=":", label="PyTorch")
    axes.set(xlabel="timesteps (one step of delay per layer)", ylabel=f"accuracy on {len(test)} test images [%]")
    axes.legend()
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
