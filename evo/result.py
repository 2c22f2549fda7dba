"""What a minimisation returns: a dictionary whose entries are attributes too, as SciPy's result object is."""

from typing import Any


class OptimizeResult(dict):
    """The fields are those of `scipy.optimize.OptimizeResult` for differential evolution:

    x (D,) and fun of the best member; nfev and nit; success and message; population (P, D), best first, and
    population_energies (P,). A callback's intermediate result has `convergence` as well.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:>{width}}: {value}" for name, value in self.items())
