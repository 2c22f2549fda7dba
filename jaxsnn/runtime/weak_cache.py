"""Results that are kept for as long as what they were made of, and no longer: no cache keeps a network alive."""

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Concatenate, ParamSpec, TypeVar

K = TypeVar("K")
P = ParamSpec("P")
R = TypeVar("R")


def remembered(function: Callable[Concatenate[K, P], R]) -> Callable[Concatenate[K, P], R]:
    """Keep a function's results for each first argument, until nobody else holds that argument.

    The other arguments must be hashable, and a result must not refer to the first argument.

    >>> class Network: pass
    >>> made = remembered(lambda network, size: [size])
    >>> network = Network()
    >>> made(network, 3) is made(network, 3)
    True
    """
    kept: weakref.WeakKeyDictionary[K, dict[Hashable, R]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def found(first: K, *args: P.args, **kwargs: P.kwargs) -> R:
        results = kept.setdefault(first, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = function(first, *args, **kwargs)
        return results[key]

    return found
