"""Settings of the search by name: the demonstration that runs by default, few timesteps, and the paper's Table I.

Table I leaves out the number of images, the timesteps and the bounds. Images follow from its training costs by
eq. 17: 3,000 for CIFAR, about 1,200 under attack, 5,000 for ImageNet. Its VGG11 row is inconsistent
(35 x 7.8 is 273, not 312); P and G are taken as printed.
"""

import difflib
from dataclasses import replace
from typing import Any, Literal

from jaxsnn.errors import UserError
from jaxsnn.search.settings import SearchSettings

DEFAULT = "demo"
"""What runs where nobody chooses."""
TEST_TIMESTEPS = {"demo": 48, "few": 32, "thresholds": 60}
"""Timesteps of the comparison on test images, where they are not the paper's 100."""
PAPER_TEST_TIMESTEPS = 100


def _table_1(
    alpha: float,
    beta: float,
    gamma: float,
    percentile: float,
    std: float,
    population: int,
    generations: int,
    images: int,
    attack: Literal["none", "fgsm", "pgd"] = "none",
) -> SearchSettings:
    """A row of Table I: eq. 11 alone, on 100 timesteps."""
    return SearchSettings(
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        area=0.0,
        limit=0.0,
        limit_images=2000,
        percentile=percentile,
        std=std,
        population=population,
        generations=generations,
        images=images,
        timesteps=100,
        final_images=5000,
        low=0.2,
        high=2.0,
        tol=0.01,
        attack=attack,
    )


FEW = SearchSettings(
    start="calibrated",
    reconstruct=True,
    delay="none",
    timesteps=4,
    population=24,
    generations=20,
    images=256,
    final_images=512,
    calibration_images=512,
    alpha=0.0,
    beta=0.0,
    gamma=0.0,
    area=0.0,
    limit=0.0,
    divergence=1.0,
)


PRESETS: dict[str, SearchSettings] = {
    "demo": replace(
        FEW, timesteps=12, population=12, generations=6, images=128, final_images=256, calibration_images=512
    ),
    "few": FEW,
    "thresholds": SearchSettings(),
    "cifar10": _table_1(1, 10, 500, 99.7, 0.15, 25, 26, 3000),
    "cifar100-vgg15": _table_1(1, 40, 20, 99.7, 0.15, 25, 27, 3000),
    "cifar100-vgg11": _table_1(0.7, 60, 200, 99.7, 0.13, 35, 8, 3000),
    "imagenet": _table_1(1, 70, 110, 99.8, 0.13, 20, 6, 5000),
    "cifar10-attack": _table_1(1, 2, 60, 99.7, 0.25, 25, 22, 1200, attack="fgsm"),
    "cifar100-attack": _table_1(1, 2, 60, 99.7, 0.25, 25, 24, 1200, attack="fgsm"),
}


def preset(name: str) -> SearchSettings:
    """The settings called ``name``; raises ``UserError`` with the near matches."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown preset {name!r}: {hint}the presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_values(name: str) -> dict[str, Any]:
    """What a preset sets in a command's options: its settings, and the timesteps of the comparison."""
    steps = TEST_TIMESTEPS.get(name, PAPER_TEST_TIMESTEPS)
    arithmetic = {"precision": "int8"} if preset(name).start == "calibrated" else {}
    return vars(preset(name)) | {"test_timesteps": steps} | arithmetic
