"""Figures and page of a finished run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxsnn.records.calibrated_network import fits_of
from jaxsnn.reports import few_figures, figures, html_report
from jaxsnn.runtime.entries import Entries

MOST_SAID = 200
"""Characters of a library's error that a warning repeats."""


@contextmanager
def spared(say: Callable[[str], object], path: Path) -> Iterator[None]:
    """What goes wrong while a figure or a page is made of finished results is one sentence, and costs no result.

    Args:
        say: gets the sentence.
        path: of the figure or the page.
    """
    try:
        yield
    except Exception as error:  # whatever Matplotlib, its fonts or a full disk raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_SAID]
        say(f"{path} could not be made ({why}); the results are complete without it")


def draw(folder: Path, results: dict, rows: list[dict], say: Callable[[str], object]) -> None:
    """Draw figures and page into a run's folder; its results are safe whatever becomes of them.

    Args:
        results: the contents of results.json.
        rows: the lines of history.jsonl.
        say: gets a sentence for each that cannot be made.
    """
    place, (baseline, optimized) = folder / "figures", (results["baseline"], results["optimized"])
    with spared(say, path := place / "accuracy.png"):
        figures.accuracy_curves(results, path)
    with spared(say, path := place / "thresholds.png"):
        figures.threshold_bars(results["layers"], baseline, optimized, path)
    with spared(say, path := place / "cost.png"):
        figures.cost_history(rows, path)
    if "calibration" in results:
        with spared(say, path := place / "layers.png"):
            fits = fits_of(Entries.of(results["calibration"], "results.json: calibration"))
            few_figures.layer_errors(fits, path)
    with spared(say, path := folder / "report.html"):
        html_report.write(folder)
