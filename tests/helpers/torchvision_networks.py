"""ResNet-18/34/50 and MobileNetV2 as descriptions, with torchvision's structure and names of modules."""

from jaxsnn.networks.description import IMAGE, AvgPool, BatchNorm, Conv, Dense, Edge, Layer, Network, then

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNETS = {18: ([2, 2, 2, 2], 1), 34: ([3, 4, 6, 3], 1), 50: ([3, 4, 6, 3], 4)}
"""Blocks of each stage, and how much wider the last convolution of a block is: 4 in a bottleneck."""
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2's expansion, features, blocks and stride of each stage."""


def resnet(depth, side=224, classes=1000, width=1.0):
    """An average pool stands where torchvision has a max pool."""
    blocks, wider = RESNETS[depth]
    layers = []

    def normed(conv, norm):
        return conv, BatchNorm(norm)

    def add(name, *edges):
        layers.append(Layer(name, edges))
        return len(layers) - 1

    channels = round(64 * width)
    last = add("conv1", Edge(IMAGE, normed(Conv("conv1", channels, 7, 2), "bn1")))
    pooled = (AvgPool(3, 2, 1, count_padding=False),)
    for stage, count in enumerate(blocks):
        features = round(64 * width) * 2**stage
        for index in range(count):
            name, stride = f"layer{stage + 1}.{index}", 2 if stage and not index else 1
            inner = (
                [(features, 3, stride), (features, 3, 1)]
                if wider == 1
                else [(features, 1, 1), (features, 3, stride), (features * wider, 1, 1)]
            )
            x, before = last, pooled
            for number, (wide, kernel, step) in enumerate(inner, 1):
                ops = (*before, *normed(Conv(f"{name}.conv{number}", wide, kernel, step), f"{name}.bn{number}"))
                if number < len(inner):
                    x, before = add(f"{name}.conv{number}", Edge(x, ops)), ()
            shortcut = pooled
            if stride > 1 or channels != features * wider:
                down = Conv(f"{name}.downsample.0", features * wider, 1, stride)
                shortcut = (*pooled, *normed(down, f"{name}.downsample.1"))
            last = add(name, Edge(x, ops), Edge(last, shortcut))
            channels, pooled = features * wider, ()
    end = -(-side // 32)
    add("fc", Edge(last, (AvgPool(end), Dense("fc", classes, bias=True))))
    return Network(f"resnet{depth}", (side, side, 3), classes, tuple(layers), MEAN, STD)


def mobilenet_v2(side=224, classes=1000, width=1.0):
    """Norms are folded, so that maps can be shared; activations are clipped at 6.

    The output of a block is a sum without an activation: the edges that end in it.
    """
    layers = []

    def add(name, edges):
        layers.append(Layer(name, edges, cap=6.0))
        return (Edge(len(layers) - 1, ()),)

    channels = round(32 * width)
    x = add("features.0", (Edge(IMAGE, (Conv("features.0.0", channels, 3, 2, True),)),))
    number = 0
    for expansion, features, count, first in INVERTED:
        for index in range(count):
            number += 1
            name, stride, hidden = f"features.{number}.conv", first if index == 0 else 1, channels * expansion
            inner, at = x, 0
            if expansion > 1:
                inner, at = add(f"{name}.0", then(x, Conv(f"{name}.0.0", hidden, 1, bias=True))), 1
            inner = add(
                f"{name}.{at}", then(inner, Conv(f"{name}.{at}.0", hidden, 3, stride, True, groups=hidden))
            )
            out = then(inner, Conv(f"{name}.{at + 1}", round(features * width), 1, bias=True))
            x = (*x, *out) if stride == 1 and channels == round(features * width) else out
            channels = round(features * width)
    x = add("features.18", then(x, Conv("features.18.0", round(1280 * width), 1, bias=True)))
    last = then(x, AvgPool(-(-side // 32)), Dense("classifier.1", classes, bias=True))
    return Network("mobilenet_v2", (side, side, 3), classes, (*layers, Layer("classifier", last)), MEAN, STD)
