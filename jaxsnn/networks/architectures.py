"""Networks by name.

Every architecture takes ``classes``, ``input_shape`` (H, W, C), ``width`` (a factor on the features of all
layers but the read-out), ``norm``, ``mean`` and ``std``. Their pools are average pools, which spiking neurons
compute exactly.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Edge,
    Layer,
    Network,
    Op,
    ScaleNorm,
    layer_shapes,
)

Norm = type[BatchNorm] | type[ScaleNorm]


NORMS: dict[str, Norm | None] = {"none": None, "batch": BatchNorm, "scale": ScaleNorm}
"""Normalisations by the name that a user gives them."""


CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def _pools(input_shape: tuple[int, int, int], blocks: int, name: str) -> list[int]:
    """Windows of the pools after each of ``blocks`` blocks, 1 for none.

    2 throughout where the sides divide. Otherwise the sides are halved while they are even, and the last pool
    takes what is left, so that the dense layers get as many inputs as from the smallest image that divides.
    """
    height, width = input_shape[:2]
    if height % 2**blocks == 0 and width % 2**blocks == 0:
        return [2] * blocks
    if height != width:
        raise UserError(
            f"{name} pools {blocks} times by 2: images of {height} x {width} must be square, or have sides that "
            f"divide by {2**blocks}"
        )
    windows = []
    for _ in range(blocks - 1):
        windows.append(2 if height % 2 == 0 else 1)
        height //= windows[-1]
    return [*windows, height]


def _shape(sides: Sequence[int]) -> tuple[int, int, int]:
    height, width, channels = sides
    return height, width, channels


def _scaled(features: Sequence[int], width: float) -> list[int]:
    return [max(1, round(count * width)) for count in features]


def _vgg(
    blocks: Sequence[Sequence[int]],
    dense: Sequence[int] = (),
    *,
    name: str,
    width: float = 1.0,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    **options: Any,
) -> Network:
    return vgg(
        [_scaled(block, width) for block in blocks],
        _scaled(dense, width),
        name=name,
        input_shape=input_shape,
        windows=_pools(input_shape, len(blocks), name),
        **options,
    )


def _vgg16_bn(norm: Norm | None = BatchNorm, **options: Any) -> Network:
    """VGG16 with the norms of torchvision's: after convolutions only; dense layers have a bias instead."""
    blocks = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]
    network = _vgg(blocks, [4096, 4096], name="vgg16-bn", norm=norm, pool="after", dropout=0.5, **options)
    if norm is not BatchNorm:
        return network

    def plain(edge: Edge) -> Edge:
        if not any(isinstance(op, Dense) for op in edge.ops):
            return edge
        ops = (replace(op, bias=True) if isinstance(op, Dense) else op for op in edge.ops)
        return replace(edge, ops=tuple(op for op in ops if not isinstance(op, BatchNorm)))

    layers = tuple(replace(layer, edges=tuple(map(plain, layer.edges))) for layer in network.layers)
    return replace(network, layers=layers)


def resnet(
    stages: Sequence[int],
    blocks: int,
    *,
    name: str,
    width: float = 1.0,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    norm: Norm | None = BatchNorm,
    mean: Sequence[float] = CIFAR_MEAN,
    std: Sequence[float] = CIFAR_STD,
) -> Network:
    """A residual network of basic blocks (He et al., 2016) after a 3x3 stem, for small images.

    A block is ReLU(norm(conv(ReLU(norm(conv(x))))) + shortcut(x)): two layers, of which the second has two edges.
    The shortcut is the identity, or a 1x1 convolution with a norm where the shape changes. Ops have the names
    that torchvision gives its modules.

    Args:
        stages: features of each stage; every stage but the first starts with a stride of 2.
        blocks: blocks in each stage.
    """
    layers: list[Layer] = []

    def normed(op: Conv, name: str) -> tuple[Op, ...]:
        return (op, norm(name)) if norm else (op,)

    def add(name: str, *edges: Edge) -> int:
        layers.append(Layer(name, edges))
        return len(layers) - 1

    features = _scaled(stages, width)
    channels = features[0]
    last = add("conv1", Edge(IMAGE, normed(Conv("conv1", channels), "bn1")))
    for stage, count in enumerate(features, start=1):
        for index in range(blocks):
            prefix = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            inner = add(
                f"{prefix}.conv1",
                Edge(last, normed(Conv(f"{prefix}.conv1", count, stride=stride), f"{prefix}.bn1")),
            )
            shortcut = ()
            if stride > 1 or count != channels:
                projection = Conv(f"{prefix}.downsample.0", count, kernel=1, stride=stride)
                shortcut = normed(projection, f"{prefix}.downsample.1")
            last = add(
                f"{prefix}.conv2",
                Edge(inner, normed(Conv(f"{prefix}.conv2", count), f"{prefix}.bn2")),
                Edge(last, shortcut),
            )
            channels = count
    height, breadth = (-(-side // 2 ** (len(stages) - 1)) for side in input_shape[:2])
    if height != breadth:
        raise UserError(
            f"{name} averages over a square at its end: {input_shape[0]} x {input_shape[1]} is not one"
        )
    readout = Dense("fc", classes, bias=norm is BatchNorm)
    add("fc", Edge(last, (AvgPool(height), readout)))
    return Network(name, _shape(input_shape), classes, tuple(layers), tuple(mean), tuple(std))


_VGG15 = ([[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]], [4096])


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    # the embedded network: 7 spiking layers; pools in front of activations keep the work per step small
    "vgg8": partial(_vgg, [[32, 96], [96, 192], [192, 256], [256]], name="vgg8", norm=BatchNorm),
    # 10 spiking layers; early pools, because the first convolution sees a constant current and is computed once
    "vgg11-slim": partial(
        _vgg, [[24], [48], [64, 64], [96, 96, 96], [128, 128, 128]], name="vgg11-slim", norm=ScaleNorm
    ),
    # for 28 x 28 images and other sides that divide by 4
    "vgg4": partial(_vgg, [[32], [64]], [128], name="vgg4", norm=ScaleNorm),
    # without bias and norm, dropout 0.1, pools between convolution and activation, like the paper's VGG15
    "vgg5": partial(_vgg, [[64], [128, 128]], [1024], name="vgg5", dropout=0.1),
    "vgg9": partial(_vgg, [[64], [128, 256], [256, 512], [512, 512]], [1024], name="vgg9", dropout=0.1),
    "vgg11": partial(
        _vgg,
        [[64], [128], [256, 256], [512, 512], [512, 512]],
        [4096, 4096],
        name="vgg11",
        dropout=0.1,
    ),
    # the paper's
    "vgg15": partial(_vgg, *_VGG15, name="vgg15", dropout=0.1),
    # the same with norms after the pools, for faster training
    "vgg15-bn": partial(_vgg, *_VGG15, name="vgg15-bn", norm=BatchNorm, dropout=0.1),
    "vgg16-bn": _vgg16_bn,
    "resnet18": partial(resnet, [64, 128, 256, 512], 2, name="resnet18"),
    "resnet20": partial(resnet, [16, 32, 64], 3, name="resnet20"),
}


def architecture(name: str, **options: Any) -> Network:
    """The named network; ``options`` are those listed at the top of this module.

    Raises:
        UserError: an unknown name, or options that do not suit the architecture.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown network {name!r}: {hint}the names are {', '.join(ARCHITECTURES)}")
    if not 0 < options.get("width", 1) < float("inf"):
        raise UserError(f"--width is {options['width']}, expected above 0 and finite")
    network = ARCHITECTURES[name](**options)
    layer_shapes(network)
    return network


def vgg(
    blocks: Sequence[Sequence[int]],
    dense: Sequence[int] = (),
    *,
    name: str,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    norm: type[BatchNorm] | type[ScaleNorm] | None = None,
    pool: str = "before",
    windows: Sequence[int] | None = None,
    dropout: float = 0.0,
    mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
    std: Sequence[float] = (0.247, 0.2435, 0.2616),
) -> Network:
    """A VGG: blocks of 3x3 convolutions, each block ending in an average pool, then dense layers.

    Args:
        blocks: features of the convolutions, block by block.
        dense: features of the hidden dense layers.
        norm: normalisation after every map but the last, or none.
        pool: "before" the activation (conv, pool, ReLU; the paper's VGG15) or "after" it.
        windows: window of each block's pool, 1 for none; 2 unless given.
        dropout: rate in front of every dense layer.
    """
    layers: list[Layer] = []
    pending: tuple[Op, ...] = ()

    def add(op: Conv | Dense, *after: Op) -> None:
        nonlocal pending
        normed = (norm(f"norm{len(layers) + 1}"),) if norm else ()
        layers.append(Layer(op.name, (Edge(len(layers) - 1, (*pending, op, *after, *normed)),)))
        pending = ()

    for block, window in zip(blocks, windows or [2] * len(blocks)):
        for position, features in enumerate(block):
            op = Conv(f"conv{len(layers) + 1}", features)
            pools = (AvgPool(window),) if position == len(block) - 1 and window > 1 else ()
            add(op, *(pools if pool == "before" else ()))
            if pool == "after":
                pending = pools
    drop = (Dropout(dropout),) if dropout else ()
    for index, features in enumerate(dense):
        pending += drop
        add(Dense(f"dense{index + 1}", features))
    readout = Dense(f"dense{len(dense) + 1}", classes)
    layers.append(Layer(readout.name, (Edge(len(layers) - 1, (*pending, *drop, readout)),)))
    return Network(name, _shape(input_shape), classes, tuple(layers), tuple(mean), tuple(std))
