"""The engines of the ask/tell protocol, one file each; `base` holds what they share."""

from evo.engines.by_name import ENGINES, make_engine, make_front_engine

__all__ = ["ENGINES", "make_engine", "make_front_engine"]
