"""Files made out of real ones by changing bytes, words or JSON; benchmarks/fuzz_formats.py has other formats."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Sequence[bytes], Rng], bytes]
"""Of a file, beside other examples of its kind."""
MOST_BYTES = 1 << 16
"""Of a file; what is longer is cut."""
NUMBERS = [0, 1, 2, 7, 32, 127, 128, 255, 256, 4096, 32767, 65535, 65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31]
NUMBERS += [(1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
JUNK = [None, True, False, -1, -7, 0.5, -0.0, 1e-300, 1e300, 10**30, "", "0", "image", "../../x", "/etc/passwd"]
JUNK += [
    "$\\frac{",
    "a\x00b",
    "x[/bold]",
    "x" * 300,
    "\ud800",
    "\u202e",
    [],
    {},
    [[[[[]]]]],
    [0] * 40,
    {"a": 1},
    *NUMBERS,
]
"""What stands in the place of any part of a JSON file."""


def pick(rng: Rng, choices: Sequence) -> Any:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def changed_bytes(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """One to four changes anywhere: bits, bytes, numbers, parts cut out, doubled, or taken from another file."""
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(raw) + 1))
        length = int(2 ** rng.uniform(0, 10))
        kind = int(rng.integers(8))
        if kind == 0 and raw:
            raw[at % len(raw)] ^= 1 << int(rng.integers(8))
        elif kind == 1 and raw:
            raw[at % len(raw)] = int(rng.integers(256))
        elif kind == 2:
            size, order = pick(rng, [1, 2, 4, 8]), pick(rng, ["little", "big"])
            number = (pick(rng, NUMBERS) - int(rng.integers(2))) % (1 << 8 * size)
            raw[at : at + size] = number.to_bytes(size, order)
        elif kind == 3:
            del raw[at : at + length]
        elif kind == 4:
            raw[at:at] = raw[at : at + length] * int(rng.integers(1, 4))
        elif kind == 5:
            raw[at:at] = rng.bytes(min(length, 64))
        elif kind == 6:
            other = pick(rng, others) if others else content
            start = int(rng.integers(len(other) + 1))
            raw[at : at + length] = other[start : start + length]
        else:
            raw = raw[:at]
    return bytes(raw[:MOST_BYTES])


def changed_text(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """Words and numbers of a text, replaced, dropped, doubled."""
    words = content.replace(b"\n", b" \n ").replace(b"=", b" = ").split(b" ")
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(words)))
        kind = int(rng.integers(4))
        if kind == 0:
            del words[at]
        elif kind == 1:
            words[at:at] = [words[at]]
        else:
            words[at] = str(pick(rng, [*JUNK, "nan", "-inf", "[", '"""', "1e999"])).encode("utf-8", "replace")
        words = words or [b""]
    return b" ".join(words)


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _places(part, (*path, key))


def changed_tree(value, rng: Rng):
    """A JSON value with one to three of its parts replaced, removed, doubled, or swapped with another part."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        paths = list(_places(value))
        path = pick(rng, paths)
        if not path:
            if rng.random() < 0.1:
                return pick(rng, JUNK)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = int(rng.integers(5))
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        elif kind == 2:
            found = value
            for key in pick(rng, paths):
                try:
                    found = found[key]
                except (LookupError, TypeError):
                    break
            parent[path[-1]] = copy.deepcopy(found)
        elif kind == 3 and isinstance(parent[path[-1]], int | float):
            parent[path[-1]] = parent[path[-1]] * pick(rng, [-1, 2, 0.5, 1e9]) + int(rng.integers(-2, 3))
        else:
            parent[path[-1]] = copy.deepcopy(pick(rng, JUNK))
    return value


def changed_json(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A JSON file with other parts."""
    try:
        tree = json.loads(content)
    except ValueError:
        return changed_text(content, others, rng)
    return json.dumps(changed_tree(tree, rng)).encode("utf-8", "surrogatepass")


def changed_lines(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A file of JSON lines, one of which has other parts, or is gone, or there twice."""
    lines = content.splitlines() or [b"{}"]
    at, kind = int(rng.integers(len(lines))), int(rng.integers(4))
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at:at] = [lines[at]]
    else:
        lines[at] = changed_json(lines[at], (), rng)
    return b"\n".join(lines)
