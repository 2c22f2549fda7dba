"""Files made out of real ones, damaged in ways that their kind of reader does not see at once.

Bytes that are changed anywhere mostly end at the first checksum or bracket. So a file is taken apart as far as its
kind is known (members of a zip archive, instructions of a pickle, fields of a message, chunks of a PNG), a few
parts are changed, and it is put together again with the right lengths and checksums.
"""

import gzip
import hashlib
import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Sequence

from benchmarks.fuzz_mutations import (
    MOST_BYTES,
    NUMBERS,
    Mutation,
    Rng,
    changed_bytes,
    changed_json,
    changed_lines,
    changed_text,
    changed_tree,
    pick,
)


def changed_safetensors(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """Safetensors with another header: its tree, and the trees in the JSON that its notes hold."""
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size])
        notes = header.get("__metadata__", {})
        named = [name for name, text in notes.items() if text.startswith(("{", "["))]
        if named and rng.random() < 0.6:
            name = pick(rng, named)
            notes[name] = changed_json(notes[name].encode(), (), rng).decode("utf-8", "replace")
        else:
            header = changed_tree(header, rng)
        head = json.dumps(header).encode("utf-8", "replace")
    except (ValueError, AttributeError):
        return changed_bytes(content, others, rng)
    body = content[8 + size :]
    if rng.random() < 0.3:
        body = changed_bytes(body, (), rng)
    return len(head).to_bytes(8, "little") + head + body


def changed_checkpoint(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A checkpoint with another payload and the checksum of that."""
    first, _, rest = content.partition(b"\n")
    payload = changed_safetensors(rest[65:], (), rng)
    return first + b"\n" + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def changed_pickle(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A pickle with other instructions: some dropped, doubled, moved, replaced, or with other arguments."""
    try:
        starts = [at for _, _, at in pickletools.genops(content) if at is not None]
    except Exception:  # whatever is no pickle
        return changed_bytes(content, others, rng)
    steps = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)])]
    for _ in range(int(rng.integers(1, 5))):
        at, kind = int(rng.integers(len(steps))), int(rng.integers(7))
        step = steps[at]
        if kind == 0 and len(steps) > 1:
            del steps[at]
        elif kind == 1:
            steps[at:at] = [step] * int(rng.integers(1, 30))
        elif kind == 2:
            steps.insert(int(rng.integers(len(steps))), step)
        elif kind == 3:
            steps.insert(at, pick(rng, _INSTRUCTIONS))
        elif kind == 4 and len(step) in (2, 5, 9):
            number = pick(rng, NUMBERS) % (1 << 8 * (len(step) - 1))
            steps[at] = step[:1] + number.to_bytes(len(step) - 1, "little")
        elif kind == 5:
            steps[at] = step[:1] + changed_bytes(step[1:], (), rng)
        else:
            steps[at] = pick(rng, [b"K", b"J", b"I", b"L"]) + str(pick(rng, NUMBERS)).encode() + b"\n"
    return b"".join(steps)[:MOST_BYTES]


_INSTRUCTIONS = [b"(", b")", b"]", b"}", b"t", b"R", b"b", b"a", b"e", b"s", b"u", b"0", b"1", b"2", b"N", b"\x88"]
_INSTRUCTIONS += [
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x94",
    b"d",
    b"l",
    b"o",
    b"Q",
    b".",
    b"h\0",
    b"j\0\0\0\x10",
]
_INSTRUCTIONS += [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"c_codecs\nencode\n",
    b"cnumpy\ndtype\n",
    b"ios\nsystem\n",
]
_INSTRUCTIONS += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"P1\n"]
_INSTRUCTIONS += [b"I1000000000\n", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"K\xff", b"J\xff\xff\xff\x7f", b"\x93"]


def changed_zip(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A zip archive with a member changed as its own kind is, or a record of the archive itself."""
    if rng.random() < 0.3:
        return _changed_directory(content, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, OSError):
        return changed_bytes(content, others, rng)
    at, kind = int(rng.integers(len(members))), rng.random()
    name, held = members[at]
    if kind < 0.8:
        members[at] = name, _kind_of(name)(held, (), rng)
    elif kind < 0.87:
        del members[at]
    elif kind < 0.94:
        members.append((pick(rng, [name, f"{name}x", "../x", "/etc/x", ""]), held))
    else:
        members[at] = str(pick(rng, ["data.pkl", "x/data.pkl", "byteorder", "../x", name[1:]])), held
    out = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, held in members:
            # not writestr, which warns of names that are there twice
            with archive.open(zipfile.ZipInfo(name or "x"), "w") as file:
                file.write(held)
    return out.getvalue()[: 4 * MOST_BYTES]


def _kind_of(name: str) -> Mutation:
    if name.endswith(".pkl"):
        return changed_pickle
    if name.endswith(".json"):
        return changed_json
    return changed_npy if name.endswith(".npy") else changed_bytes


def _changed_directory(content: bytes, rng: Rng) -> bytes:
    """A number in the records that name and place the members."""
    raw = bytearray(content)
    heads = [at for mark in (b"PK\1\2", b"PK\5\6", b"PK\3\4") for at in _all(content, mark)]
    for _ in range(int(rng.integers(1, 3))):
        if heads:
            at, size = pick(rng, heads) + int(rng.integers(4, 46)), pick(rng, [1, 2, 4])
            raw[at : at + size] = (pick(rng, NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(raw)


def _all(content: bytes, part: bytes) -> list[int]:
    found, at = [], content.find(part)
    while at >= 0:
        found.append(at)
        at = content.find(part, at + 1)
    return found


def changed_npy(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """An npy file with another header, of the same length where that can be."""
    if rng.random() < 0.3 or content[:6] != b"\x93NUMPY":
        return changed_bytes(content, others, rng)
    size = int.from_bytes(content[8:10], "little")
    head = changed_text(content[10 : 10 + size], (), rng).ljust(size)
    return content[:8] + (len(head) % 65536).to_bytes(2, "little") + head + content[10 + size :]


def changed_packed(inner: Mutation) -> Mutation:
    """A gzip file, or what it holds and then packed again."""

    def changed(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
        if rng.random() < 0.15:
            return changed_bytes(content, others, rng)
        try:
            held = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return changed_bytes(content, others, rng)
        return gzip.compress(inner(held, (), rng), 1, mtime=0)

    return changed


def changed_tar(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A tar archive: fields of its headers, whose checksums are right again, or members moved and doubled."""
    blocks = [content[at : at + 512] for at in range(0, len(content), 512)]
    heads = [at for at, block in enumerate(blocks) if block[257:262] == b"ustar"]
    if not heads or rng.random() < 0.1:
        return changed_bytes(content, others, rng)
    for _ in range(int(rng.integers(1, 4))):
        at = pick(rng, heads)
        raw, kind = bytearray(blocks[at].ljust(512, b"\0")), int(rng.integers(5))
        if kind == 0:
            raw[156] = int(pick(rng, list(b"01234567LKxgSDVMNA\0")))
        elif kind == 1:
            raw[124:136] = b"%011o\0" % (pick(rng, NUMBERS) % (1 << 33))
        elif kind == 2:  # the binary form of sizes
            raw[124:136] = bytes([pick(rng, [0x80, 0xFF])]) + rng.bytes(11)
        elif kind == 3:
            blocks[at:at] = [blocks[at]] * int(rng.integers(1, 1200))
            break
        else:
            place, length = pick(rng, [(0, 100), (157, 100), (257, 8), (345, 155), (100, 24)])
            raw[place : place + length] = changed_bytes(bytes(raw[place : place + length]), (), rng)[
                :length
            ].ljust(length, b"\0")
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
        blocks[at] = bytes(raw)
    return b"".join(blocks)


def changed_png(content: bytes, others: Sequence[bytes], rng: Rng) -> bytes:
    """A PNG with other chunks, whose checksums are right; or a TIFF, JPEG or the like with other bytes."""
    if content[:4] != b"\x89PNG" or rng.random() < 0.2:
        return changed_bytes(content, others, rng)
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    where, kind = int(rng.integers(len(chunks))), int(rng.integers(5))
    name, held = chunks[where]
    if kind == 0:
        chunks[where:where] = [chunks[where]] * int(rng.integers(1, 50))
    elif kind == 1:
        chunks.insert(
            where, (pick(rng, [b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"fdAT"]), held)
        )
    elif kind == 2 and name == b"IHDR":
        sizes = [pick(rng, [1, 9, 12, 255, 65535, 1 << 20, (1 << 31) - 1]) for _ in range(2)]
        chunks[where] = name, struct.pack(">II", *sizes) + changed_bytes(held[8:], (), rng)[:5].ljust(5, b"\0")
    elif kind == 3 and name == b"IDAT":
        inner = changed_bytes(zlib.decompress(held), (), rng)
        chunks[where] = name, zlib.compress(inner * int(rng.integers(1, 4)))
    else:
        chunks[where] = name, changed_bytes(held, (), rng)
    out = content[:8]
    for name, held in chunks:
        out += struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))
    return out[: 4 * MOST_BYTES]


def changed_message(content: bytes, others: Sequence[bytes], rng: Rng, depth: int = 6) -> bytes:
    """A Protocol Buffers message: fields dropped, doubled, moved, with other numbers, or changed further in."""
    fields = _fields(content)
    if not fields or rng.random() < 0.05:
        return changed_bytes(content, others, rng)
    at, kind = int(rng.integers(len(fields))), int(rng.integers(10))
    key, value = fields[at]
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields[at:at] = [fields[at]] * int(rng.integers(1, 10))
    elif kind == 2:
        fields.insert(int(rng.integers(len(fields))), fields.pop(at))
    elif kind == 3:
        fields[at] = pick(rng, NUMBERS) % 512, value
    elif isinstance(value, int):
        fields[at] = key, pick(rng, [*NUMBERS, value + 1, value * 2]) % (1 << 64)
    elif key & 7 == 2 and depth and _fields(value):
        fields[at] = key, changed_message(value, (), rng, depth - 1)
    else:
        fields[at] = key, changed_bytes(value, (), rng)
    return b"".join(_field(key, value) for key, value in fields)


def _fields(content: bytes) -> list[tuple[int, int | bytes]]:
    """Keys and values of a message; none where it is not one."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        if key & 7 == 0:
            value, at = _varint(content, at)
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
            value, at = content[at : at + size], at + size
        elif key & 7 == 2:
            size, at = _varint(content, at)
            value, at = content[at : at + size], at + size
        else:
            return []
        if at > len(content) or not key >> 3:
            return []
        found.append((key, value))
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        value |= (content[at] & 127) << shift
        shift += 7
        at += 1
        if content[at - 1] < 128:
            return value, at
    return 3, len(content) + 1


def _field(key: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _written(key & ~7) + _written(value)
    return _written(key) + (_written(len(value)) if key & 7 == 2 else b"") + value


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


KINDS: dict[str, Mutation] = {
    "bytes": changed_bytes,
    "text": changed_text,
    "json": changed_json,
    "lines": changed_lines,
    "safetensors": changed_safetensors,
    "checkpoint": changed_checkpoint,
    "pickle": changed_pickle,
    "zip": changed_zip,
    "tar": changed_packed(changed_tar),
    "packed": changed_packed(changed_bytes),
    "picture": changed_png,
    "message": changed_message,
}
"""Kinds of files by name."""
SHARE_OF_BYTES = 0.2
"""Of all files, those with bytes changed anywhere, whatever their kind."""


def mutated(kind: str, examples: Sequence[bytes], rng: Rng) -> bytes:
    """A file made out of one of the ``examples``, now and then changed twice."""
    content = pick(rng, examples)
    for _ in range(1 + int(rng.random() < 0.2)):
        change = changed_bytes if rng.random() < SHARE_OF_BYTES else KINDS[kind]
        try:
            content = change(content, examples, rng)
        except Exception:  # what was damaged before is taken apart by libraries that may raise anything
            content = changed_bytes(content, examples, rng)
    return content
