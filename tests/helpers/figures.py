"""Figures that a test may look into after they have been saved."""

import matplotlib.pyplot as plt


def kept_open(monkeypatch, module):
    """Yields the list of the figures that ``module.save`` saves, left open; each is a PNG."""
    kept, original = [], module.save

    def save(figure, path):
        figure.canvas.draw()
        kept.append(figure)
        with monkeypatch.context() as patch:
            patch.setattr(plt, "close", lambda figure: None)
            original(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(module, "save", save)
    yield kept
    plt.close("all")
