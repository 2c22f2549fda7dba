"""What a compiled program's text (HLO) tells: bytes that its loop moves, its products' types, its collectives."""

import math
import re
from collections import Counter
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4}
BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8}
ARRAY = re.compile(r"(\w+)\[([0-9,]*)\](\{[^}]*\})?")
INSTRUCTION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
FREE = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "constant",
    "iota",
    "partition-id",
    "after-all",
    "while",
}
"""Instructions that move nothing themselves."""
PRODUCTS = re.compile(r"^(?:convolution|dot)$")
LIBRARY = re.compile(r'custom_call_target="(__cudnn\$conv|__cublas\$)')
COLLECTIVES = re.compile(r"^(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(-start)?$")


class Instruction(NamedTuple):
    """One line: name, type of the result, operation, names of its operands, and the line itself."""

    name: str
    kind: str
    operation: str
    operands: tuple[str, ...]
    line: str

    @property
    def looped(self) -> bool:
        """Whether it comes from the body of a loop."""
        return "/while/body" in self.line


def computations(text: str) -> dict[str, list[Instruction]]:
    """The instructions of every computation by its name."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if head:
            current = found.setdefault(head[1], [])
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := INSTRUCTION.match(line.strip())):
            name, kind, operation, rest = match.groups()
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.split("), ")[0]))
            current.append(Instruction(name, kind, operation, operands, line))
    return found


def size(kind: str) -> int:
    """Bytes of all arrays of a type in the device's memory; those in a TPU's on-chip memory, S(1), not."""
    total = 0
    for element, sides, layout in ARRAY.findall(kind):
        if element in BYTES and "S(1)" not in layout:
            total += BYTES[element] * math.prod(int(side) for side in sides.split(",") if side)
    return total


def loop_bytes(text: str) -> list[int]:
    """Bytes that one round of each loop reads and writes, most first: upper bounds, what stays in caches counted.

    A loop inside another counts in that one, as often as it says that it runs, or once. Without loops: the whole
    program's.
    """
    every = computations(text)
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    inner = {
        name for body in bodies for i in every.get(body, []) for name in re.findall(r"body=%?([\w.\-]+)", i.line)
    }
    outer = bodies - inner
    if not outer:
        entry = re.search(r"^ENTRY %?([\w.\-]+) ", text, re.MULTILINE)
        outer = {entry[1]} if entry else set()
    return sorted((_moved(every, name) for name in outer), reverse=True)


def _moved(every: dict[str, list[Instruction]], name: str) -> int:
    kinds = {one.name: one.kind for one in every.get(name, [])}
    total = 0
    for one in every.get(name, []):
        if one.operation == "while":
            body = re.search(r"body=%?([\w.\-]+)", one.line)
            rounds = re.search(r'known_trip_count":\{"n":"(\d+)"', one.line)
            total += _moved(every, body[1]) * (int(rounds[1]) if rounds else 1) if body else 0
        elif one.operation in FREE or one.operation.endswith("-done"):
            continue
        elif one.operation.endswith("-start"):  # from one memory to another
            arrays = [match[0] for match in ARRAY.finditer(one.kind)]
            total += sum(size(array) for array in arrays[:2])
        else:
            total += size(one.kind) + sum(size(kinds.get(operand, "")) for operand in one.operands)
    return total


def products(text: str, looped: bool | None = None) -> Counter[str]:
    """How many convolutions and matrix products there are by the types of their operands, such as "bf16 x bf16".

    Args:
        looped: those that are repeated, or those that are done once; None for all.
    """
    found: Counter[str] = Counter()
    for instructions in computations(text).values():
        kinds = {one.name: one.kind for one in instructions}
        for one in instructions:
            library = one.operation == "custom-call" and LIBRARY.search(one.line)
            if (PRODUCTS.match(one.operation) or library) and looped in (None, one.looped):
                found[" x ".join(kinds.get(name, "?").split("[")[0] for name in one.operands[:2])] += 1
    return found


def collectives(text: str) -> dict[str, int]:
    """Bytes of each kind of collective, a loop's counted once."""
    found: dict[str, int] = {}
    for instructions in computations(text).values():
        for one in instructions:
            if match := COLLECTIVES.match(one.operation):
                found[match[1]] = found.get(match[1], 0) + size(one.kind)
    return found
