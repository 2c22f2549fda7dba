"""Networks by name."""

import difflib
from collections.abc import Callable
from functools import partial

from jaxsnn.errors import UserError
from jaxsnn.network import Network, ScaleNorm, vgg

ARCHITECTURES: dict[str, Callable[..., Network]] = {
    # the embedded network: 10 spiking layers; early pools keep the work per step small, because the first
    # convolution sees a constant current and is computed once
    "vgg11-slim": partial(
        vgg, [[24], [48], [64, 64], [96, 96, 96], [128, 128, 128]], name="vgg11-slim", norm=ScaleNorm
    ),
    # for 28 x 28 images and other sides that divide by 4
    "vgg4": partial(vgg, [[32], [64]], [128], name="vgg4", norm=ScaleNorm),
    # the paper's: no bias, no norm, dropout 0.1, pools between convolution and activation
    "vgg15": partial(
        vgg,
        [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]],
        [4096],
        name="vgg15",
        dropout=0.1,
    ),
}


def architecture(name: str, **options) -> Network:
    """The named network; ``options`` are those of ``jaxsnn.network.vgg`` (classes, input_shape, mean, std)."""
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown network {name!r}: {hint}the names are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](**options)
