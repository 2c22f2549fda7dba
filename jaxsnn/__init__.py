"""Turn a trained network into a fast spiking one.

    import data, jaxsnn

    train, test = data.load("embedded", "train"), data.load("embedded", "test")
    snn = jaxsnn.load()
    baseline = jaxsnn.percentiles(snn, train.images[:500]).genes(99.7, v0=0.5)
    for generation in jaxsnn.evolve(snn, train, population=12, generations=12, images=80):
        print(generation.number, generation.best.cost)
    print(jaxsnn.compare(snn, baseline, generation.best.genes, test))

Importing this package imports neither JAX nor NumPy: a public name is loaded when it is first used. The commands,
``python -m jaxsnn`` lists them, are modules of their own.
"""

import importlib
import importlib.machinery
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsnn.analysis.comparison import compare
    from jaxsnn.conversion.calibration import Calibration, percentiles
    from jaxsnn.conversion.folding import convert
    from jaxsnn.conversion.loading import load
    from jaxsnn.conversion.start import Start, calibrate
    from jaxsnn.errors import UserError
    from jaxsnn.exports.write import export_network
    from jaxsnn.networks.description import Network
    from jaxsnn.networks.spiking import SNN, Dynamics, Genes
    from jaxsnn.networks.spiking_input import spiking_input
    from jaxsnn.records.finished_run import read_run
    from jaxsnn.search.run import evolve
    from jaxsnn.search.settings import SearchSettings
    from jaxsnn.simulation.observables import Observables
    from jaxsnn.simulation.observe import observe
    from jaxsnn.simulation.plan import Plan

_HOMES = {
    "Calibration": "conversion.calibration",
    "Dynamics": "networks.spiking",
    "Genes": "networks.spiking",
    "Network": "networks.description",
    "Observables": "simulation.observables",
    "Plan": "simulation.plan",
    "SNN": "networks.spiking",
    "SearchSettings": "search.settings",
    "Start": "conversion.start",
    "UserError": "errors",
    "calibrate": "conversion.start",
    "compare": "analysis.comparison",
    "convert": "conversion.folding",
    "evolve": "search.run",
    "export_network": "exports.write",
    "load": "conversion.loading",
    "observe": "simulation.observe",
    "percentiles": "conversion.calibration",
    "read_run": "records.finished_run",
    "spiking_input": "networks.spiking_input",
}
"""Public names, and the modules that hold them."""

__all__ = [
    "SNN",
    "Calibration",
    "Dynamics",
    "Genes",
    "Network",
    "Observables",
    "Plan",
    "SearchSettings",
    "Start",
    "UserError",
    "calibrate",
    "compare",
    "convert",
    "evolve",
    "export_network",
    "load",
    "observe",
    "percentiles",
    "read_run",
    "spiking_input",
]


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _check_companions() -> None:
    """Raise ``ImportError`` where a file of the user's own hides one of the packages that belong to this one."""
    home = Path(__file__).parents[1]
    for name in ("data", "evo"):
        loaded = sys.modules.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name) if loaded is None else loaded.__spec__
        origin = getattr(spec, "origin", None) or getattr(loaded, "__file__", None)
        if (
            origin is not None
            and (home / name).is_dir()
            and Path(origin).resolve().parent != (home / name).resolve()
        ):
            raise ImportError(f"{origin} hides the package {name!r} that jaxsnn needs: rename it", name=__name__)


def _end_quietly_on_interrupt() -> None:
    """Let Ctrl-C end ``python -m jaxsnn.COMMAND`` without a traceback while it is still importing.

    Python has "-m" as the program's name until it has found the module; ``jaxsnn.cli.command.main`` takes over.
    """
    is_command = sys.argv[:1] == ["-m"] and any(
        part.startswith(("jaxsnn.", "-mjaxsnn.")) for part in sys.orig_argv
    )
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_end_quietly_on_interrupt()
_check_companions()

_FLAG = "xla_cpu_experimental_ynn_fusion_type"

# XLA's YNNPACK fusions make convolutions and window sums on a CPU up to three times slower than XLA's own code
# (jax 0.10.2, Zen 4), and wrong results are reported for them (jax issues 39103, 39257). XLA reads it when its
# first computation runs; a value that the user has set stays.
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_FLAG}=".strip()
