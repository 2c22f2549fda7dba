"""The engines behind the ask/tell protocol, one file each."""

from evo.engines.by_name import ENGINES, make_engine

__all__ = ["ENGINES", "make_engine"]
