"""Bringing photographs of different sizes to one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from data.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

CROPS = ("center", "random")


@dataclass(frozen=True)
class Geometry:
    """How a photograph becomes an array: shorter side to `resize`, then a square of `size`.

    Attributes:
      crop: "center", or "random" for a random place.
      size: side of the square, or None to keep images as they are.
      resize: length of the shorter side; None is `size` · 256 / 224, as usual for ImageNet.
      natural: squares of one size that is at most `size` keep it, as those of CIFAR and Tiny-ImageNet.

    Raises:
      DataError: an unknown crop, a size that is not positive, or a `resize` smaller than `size`.
    """

    crop: str = "center"
    size: int | None = 224
    resize: int | None = None
    natural: bool = False

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise DataError(f"crop must be one of {', '.join(CROPS)}, not {self.crop!r}")
        if self.size is None:
            if self.resize is not None:
                raise DataError(f"resize={self.resize} needs a size; size=None keeps images as they are")
            return
        if self.size < 1:
            raise DataError(f"size must be positive, not {self.size}")
        resize = round(self.size * 256 / 224) if self.resize is None else self.resize
        if resize < self.size:
            raise DataError(f"resize ({resize}) must not be smaller than size ({self.size})")
        object.__setattr__(self, "resize", resize)

    def of(self, sizes: Sequence[tuple[int, int]]) -> "Geometry":
        """The geometry for images of which some have these sizes (width, height): `natural` is decided by them."""
        sides = {side for size in sizes for side in size}
        if self.natural and self.size is not None and len(sides) == 1 and max(sides) <= self.size:
            return Geometry(self.crop, max(sides), max(sides))
        return replace(self, natural=False)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image once its shorter side is `resize`, cut to whole pixels."""
        if self.resize is None:
            return width, height
        shorter = min(width, height)
        return int(self.resize * width / shorter), int(self.resize * height / shorter)

    def offsets(self, count: int, seed: int) -> np.ndarray:
        """Return for each of `count` images where its crop lies, as fractions, float64 (count, 2): y, x."""
        if self.crop == "center":
            return np.full((count, 2), 0.5)
        # A stream of its own, so that the choice of images does not shift the crops.
        return np.random.default_rng((seed, 1)).random((count, 2))

    def fit(self, image: "Image.Image", offset: np.ndarray) -> np.ndarray:
        """Return uint8 (size, size, 3) from a PIL image; `offset` is a row of `offsets`.

        Bilinear with antialiasing, sides cut to whole pixels, as torchvision's Resize and CenterCrop.
        """
        from PIL import Image

        image = image.convert("RGB")
        if self.size is None or self.resize is None:  # both are, or neither
            return np.asarray(image)
        width, height = self.resized(*image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        top = round((height - self.size) * float(offset[0]))
        left = round((width - self.size) * float(offset[1]))
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))
