"""Fail unless the wheel holds the three packages with their data, and nothing else."""

import sys
import zipfile

MEGABYTE = 1 << 20
WINGS = [
    "analysis",
    "cli",
    "conversion",
    "networks",
    "records",
    "reports",
    "runtime",
    "search",
    "simulation",
    "simulation/events",
    "training",
]

with zipfile.ZipFile(sys.argv[1]) as wheel:
    sizes = {info.filename: info.file_size for info in wheel.infolist()}
top = {name.split("/")[0] for name in sizes}
packages = {name for name in top if not name.endswith(".dist-info")}
if packages != {"jaxsnn", "evo", "data"}:
    sys.exit(f"the wheel holds {sorted(packages)}, expected data, evo and jaxsnn")
for name, limit in (
    ("data/embedded/cifar10_train.npz", 4 * MEGABYTE),
    ("data/embedded/cifar10_test.npz", 4 * MEGABYTE),
    ("jaxsnn/embedded/vgg8_cifar10.safetensors", 4 * MEGABYTE),
    *((f"jaxsnn/{wing}/__init__.py", MEGABYTE) for wing in WINGS),
):
    if not 0 < sizes.get(name, 0) <= limit:
        sys.exit(f"{name} has {sizes.get(name)} bytes in the wheel, expected between 1 and {limit}")
print(f"wheel: {len(sizes)} files, {sum(sizes.values()) / MEGABYTE:.1f} MB in data, evo and jaxsnn")
