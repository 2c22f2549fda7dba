"""Twelve PyTorch networks as users write them, for images (3, 32, 32) unless said; small, but whole in structure.

``ResNet`` and ``MobileNetV2`` have torchvision's structure and parameter names. Import this module only where
PyTorch is installed.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def plain_vgg(classes=10):
    """A VGG with biases, average pools and dropout, and no norms."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes),
    )  # fmt: skip


class NormedVGG(nn.Module):
    """BatchNorm before the ReLU in the first block, behind it in the second; adaptive pool and ``view``."""

    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16), nn.AvgPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d((4, 4))
        self.classifier = nn.Linear(256, classes)

    def forward(self, x):
        x = self.pool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class Functional(nn.Module):
    """Everything in ``forward``: functional relu, pool and dropout, pixels normalised inside, ``flatten``."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(10, 14, 3, padding="same")
        self.fc1 = nn.Linear(14 * 5 * 5, 24)
        self.fc2 = nn.Linear(24, classes)
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1))

    def forward(self, x):
        x = F.relu((x - self.mean) / 0.25)
        x = F.relu(self.conv1(x))
        x = F.avg_pool2d(x, 2)
        x = torch.relu(self.conv2(F.pad(x, (1, 1, 1, 1))))
        x = F.adaptive_avg_pool2d(x, 5)
        x = x.flatten(1)
        x = F.dropout(F.relu(self.fc1(x)), 0.2, self.training)
        return self.fc2(x)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """torchvision's ResNet: ``ResNet(BasicBlock, [2, 2, 2, 2], 64)`` is resnet18 but for its max pool."""

    def __init__(self, block, layers, width=64, classes=10, pool=nn.AvgPool2d):
        super().__init__()
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = pool(3, 2, 1)
        self.layer1 = self._make_layer(block, width, layers[0], 1)
        self.layer2 = self._make_layer(block, 2 * width, layers[1], 2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], 2)
        self.layer4 = self._make_layer(block, 8 * width, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, classes)

    def _make_layer(self, block, planes, blocks, stride):
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes * block.expansion, 1, stride, bias=False),
                nn.BatchNorm2d(planes * block.expansion),
            )
        layers = [block(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes * block.expansion
        layers += [block(self.inplanes, planes) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _divisible(value, divisor=8):
    new = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return new + divisor if new < 0.9 * value else new


class ConvBNReLU(nn.Sequential):
    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        hidden = round(inputs * expand)
        self.use_res_connect = stride == 1 and inputs == outputs
        layers = [] if expand == 1 else [ConvBNReLU(inputs, hidden, kernel=1)]
        layers += [
            ConvBNReLU(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2; ``settings`` are (expansion, channels, blocks, stride)."""

    SETTINGS = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self, classes=10, width=1.0, settings=SETTINGS):
        super().__init__()
        channels, last = _divisible(32 * width), _divisible(1280 * max(1.0, width))
        features = [ConvBNReLU(3, channels, stride=2)]
        for expand, count, blocks, stride in settings:
            outputs = _divisible(count * width)
            for index in range(blocks):
                features.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expand))
                channels = outputs
        features.append(ConvBNReLU(channels, last, kernel=1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x):
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, (1, 1)).reshape(x.shape[0], -1)
        return self.classifier(x)


def depthwise_separable(classes=10):
    """MobileNetV1's blocks: a depthwise 3x3 and a 1x1 convolution, each with its norm and ReLU."""

    def block(inputs, outputs, stride):
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), block(8, 16, 1), block(16, 24, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, classes),
    )  # fmt: skip


class Dilated(nn.Module):
    """Atrous convolutions side by side, joined by concatenation, and grouped ones."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.near = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.far = nn.Conv2d(8, 8, 3, padding=3, dilation=3)
        self.norm = nn.BatchNorm2d(16)
        self.join = nn.Conv2d(16, 12, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(12, classes, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(torch.cat([self.near(x), self.far(x)], dim=1)))
        x = F.relu(self.join(x))
        return self.head(x).mean((2, 3))


def rectangular(classes=10):
    """Kernels, strides and padding that differ in rows and columns, for images (1, 40, 20)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, (5, 1), stride=(2, 1), padding=(2, 0)), nn.ReLU(),
        nn.Conv2d(8, 8, (1, 7), padding=(0, 3)), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d((4, 2)),
        nn.ZeroPad2d((1, 0, 0, 1)), nn.Conv2d(8, 12, (3, 2)), nn.ReLU(),
        nn.AvgPool2d(2, stride=1), nn.Flatten(), nn.Linear(324, classes),
    )  # fmt: skip


class Audio(nn.Module):
    """Conv1d over a signal (2, 128), an M5 in small."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv1d(2, 8, 9, stride=4, padding=4)
        self.bn1 = nn.BatchNorm1d(8)
        self.pool1 = nn.AvgPool1d(2)
        self.conv2 = nn.Conv1d(8, 12, 3, padding=2, dilation=2)
        self.bn2 = nn.BatchNorm1d(12)
        self.fc1 = nn.Linear(12, classes)

    def forward(self, x):
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool1d(x, x.shape[-1])
        return self.fc1(x.permute(0, 2, 1)).squeeze(1)


class MLP(nn.Module):
    """Dense maps with BatchNorm1d and an identity shortcut, for images (1, 28, 28)."""

    def __init__(self, classes=10):
        super().__init__()
        self.fc1 = nn.Linear(784, 32)
        self.bn1 = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, 32)
        self.drop = nn.Dropout(0.2)
        self.skip = nn.Identity()
        self.fc3 = nn.Linear(32, classes, bias=False)

    def forward(self, x):
        x = torch.relu(self.bn1(self.fc1(x.view(-1, 28 * 28))))
        x = torch.relu(self.fc2(x) + self.skip(x))
        return self.fc3(self.drop(x))


def max_pooled(classes=10):
    """A small VGG with max pools, as most are."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(768, classes),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain VGG": (plain_vgg, (3, 32, 32)),
    "BatchNorm before and behind ReLU": (NormedVGG, (3, 32, 32)),
    "functional": (Functional, (3, 32, 32)),
    "ResNet, basic blocks": (lambda: ResNet(BasicBlock, [2, 1, 1, 1], 6), (3, 32, 32)),
    "ResNet, bottlenecks": (lambda: ResNet(Bottleneck, [1, 2, 1, 1], 4), (3, 32, 32)),
    "MobileNetV2": (
        lambda: MobileNetV2(width=0.25, settings=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 2, 1))),
        (3, 32, 32),
    ),
    "depthwise separable": (depthwise_separable, (3, 32, 32)),
    "dilated and grouped, concatenated": (Dilated, (3, 32, 32)),
    "rectangular kernels": (rectangular, (1, 40, 20)),
    "Conv1d": (Audio, (2, 128)),
    "MLP": (MLP, (1, 28, 28)),
    "max pools": (max_pooled, (3, 32, 32)),
}
"""Makers and input shapes by name."""


def made(name: str, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of ``MODELS`` with random weights and, in its norms, statistics that are not the initial ones."""
    torch.manual_seed(seed)
    make, shape = MODELS[name]
    module = make()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.uniform_(0.7, 1.3)
                part.bias.normal_(0, 0.2)
    return module.eval(), shape
