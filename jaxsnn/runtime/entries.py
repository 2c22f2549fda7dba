"""Entries of a JSON object that must be of a kind: read, or refused in one sentence that names the entry."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

from jaxsnn.errors import UserError


@dataclass(frozen=True)
class Entries:
    """The entries of one JSON object.

    Attributes:
        record: the object.
        where: its file or place, for messages.
    """

    record: dict[str, Any]
    where: str

    @classmethod
    def of(cls, value: Any, where: str) -> "Entries":
        """Raises ``UserError`` where ``value`` is not a JSON object."""
        if not isinstance(value, dict):
            raise UserError(f"{where} is {value!r}, expected a JSON object"[:500])
        return cls(value, where)

    def wrong(self, name: str, expected: str) -> UserError:
        """The error that says what an entry is and what was expected."""
        if name not in self.record:
            return UserError(f"{self.where} has no {name}")
        return UserError(f"{self.where}: {name} is {self.record[name]!r}"[:400] + f", expected {expected}")

    def number(self, name: str) -> float:
        """A finite number."""
        value = self.record.get(name)
        if _finite(value):
            return value
        raise self.wrong(name, "a finite number")

    def share(self, name: str) -> float:
        """A number in [0, 1]."""
        value = self.record.get(name)
        if _finite(value) and 0 <= value <= 1:
            return value
        raise self.wrong(name, "a number in [0, 1]")

    def count(self, name: str, low: int = 0) -> int:
        """A whole number of at least ``low``."""
        value = self.record.get(name)
        if type(value) is not int or not low <= value < 1 << 53:
            raise self.wrong(name, f"a whole number of at least {low}")
        return value

    def text(self, name: str) -> str:
        """A string."""
        value = self.record.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def numbers(self, name: str, length: int | None = None) -> tuple[float, ...]:
        """A list of finite numbers, of ``length`` where that is given."""
        value = self.record.get(name)
        if not isinstance(value, list) or not all(map(_finite, value)):
            raise self.wrong(name, "a list of finite numbers")
        if length is not None and len(value) != length:
            raise UserError(f"{self.where}: {name} has {len(value)} entries, expected {length}")
        return tuple(value)

    def entries(self, name: str) -> "Entries":
        """A JSON object."""
        if name not in self.record:
            raise self.wrong(name, "a JSON object")
        return Entries.of(self.record[name], f"{self.where}: {name}")

    def list_of_entries(self, name: str) -> list["Entries"]:
        """A list of JSON objects."""
        value = self.record.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [Entries.of(one, f"{self.where}: {name}[{index}]") for index, one in enumerate(value)]

    def known(self, name: str) -> bool:
        """Whether there is such an entry, and it is not null."""
        return self.record.get(name) is not None


def _finite(value: Any) -> TypeGuard[float]:
    # an int of JSON may be beyond every float
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
