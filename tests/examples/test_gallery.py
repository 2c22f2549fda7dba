"""The scripts of the gallery and the Python in the README run, and each script's picture is on the page."""

import importlib.util
import re
import struct
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {
    "evo_alone": {"evaluations": 120, "dimensions": 3},
    "own_cost": {"generations": 1, "images": 10},
    "own_neuron": {"images": 4, "timesteps": 2},
    "own_pytorch_network": {"epochs": 1, "images": 100},
    "quickstart": {"generations": 1, "test_images": 20, "limit_images": 40},
    "simulator_alone": {"points": 2, "images": 20},
}
MOST_BYTES = 60_000
"""Of a picture in the repository."""


@pytest.fixture(autouse=True)
def no_windows(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")


def is_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG\r\n") and min(struct.unpack(">II", content[16:24])) > 100


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_script_draws_its_picture(path, tmp_path, monkeypatch):
    if path.stem == "own_pytorch_network":
        pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location(f"examples_{path.stem}", path)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    script.main(**SMALL[path.stem], out=tmp_path / "picture.png")
    assert is_png((tmp_path / "picture.png").read_bytes())


def test_every_script_is_in_the_gallery_with_a_small_picture():
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert SMALL.keys() == {path.stem for path in EXAMPLES}
    for path in EXAMPLES:
        assert f"examples/{path.name}" in page and f"gallery/{path.stem}.png" in page
        picture = (ROOT / "docs" / "gallery" / f"{path.stem}.png").read_bytes()
        assert is_png(picture) and len(picture) < MOST_BYTES
    assert {path.stem for path in (ROOT / "docs" / "gallery").iterdir()} == SMALL.keys()


def test_readme_has_at_most_130_lines_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links and all((ROOT / link).exists() for link in links)


@pytest.mark.slow
def test_python_in_the_readme(capsys):
    """On fewer images, and for fewer generations."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for usual, small in (
        ('"test")', '"test", limit=20)'),
        ("population=12, generations=12, images=80", "population=4, generations=1, images=8, limit_images=40"),
        ("population=12, generations=6, images=128", "population=4, generations=1, images=8"),
        ("train.images[:500]", "train.images[:40]"),
        ("train.images[:512]", "train.images[:40]"),
        ("timesteps=8)  #", "timesteps=2, sweeps=1, reconstruct=False)  #"),
    ):
        assert block.count(usual) == 1
        block = block.replace(usual, small)
    exec(compile(block, "README.md", "exec"), {})
    assert "ANN - 1" in capsys.readouterr().out
