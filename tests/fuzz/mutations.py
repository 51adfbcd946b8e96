"""Changes that break a file: of its bytes, its words, its JSON, its YAML, or the header of its tensors."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

# What readers trip over: limits of integers, numbers that are none, empty and long names, paths, controls, marks.
NUMBERS = (
    "0",
    "-1",
    "1",
    "2147483648",
    "-9223372036854775809",
    "1e400",
    "-1e-320",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "1_0",
)
WORDS = (
    *NUMBERS,
    "", " ", "\t", "\x00", "\ufeff", "\u200b", "\u00ad", "\u2019", "e\u0301", "<unk>", "<s>", "#1", "|", "a|", "-",
    "..", "../../dev/zero", "/dev/zero", "~", "*", "%s", "{}", "[", "\\", "'", '"', "\u202e", "\ud800", "x" * 5000,
    "null", "true",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf"), 0.5, "", "0", "a",
    "\x00", "../../dev/zero", "/dev/zero", "x" * 5000, "\ud800", [], {}, [[]], [None], {"": None}, {"kind": "none"},
)  # fmt: skip
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four changes of the bytes, wherever they fall."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(_BYTE_CHANGES)(content, rng)
    return content


def mutate_header(content: bytes, rng: random.Random) -> bytes:
    """A change in the first bytes, where formats have their sizes."""
    size = min(len(content), 128)
    return mutate_bytes(content[:size], rng) + content[size:]


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """One to four changes of lines and words, now and then of bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    text = content.decode("utf-8", errors="surrogateescape")
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(_TEXT_CHANGES)(text, rng)
    return text.encode("utf-8", errors="surrogatepass")


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """One or two values changed, left out, renamed or doubled; now and then a change of the text itself."""
    if rng.random() < 0.2:
        return mutate_text(content, rng)
    try:
        tree = json.loads(content)
    except ValueError:  # one object a line
        lines = content.splitlines(keepends=True)
        if not lines:
            return mutate_bytes(content, rng)
        place = rng.randrange(len(lines))
        try:
            changed = _changed(json.loads(lines[place]), rng)
        except ValueError:
            return mutate_text(content, rng)
        lines[place] = _dumped(changed) + b"\n"
        return b"".join(lines)
    for _ in range(rng.randint(1, 2)):
        tree = _changed(tree, rng)
    return _dumped(tree)


def mutate_tensors(content: bytes, rng: random.Random) -> bytes:
    """A change in the header of a safetensors file, whose length is made to fit, or in its numbers."""
    if len(content) < 16 or rng.random() < 0.3:
        return mutate_bytes(content, rng)
    (size,) = struct.unpack("<Q", content[:8])
    header, body = content[8 : 8 + size], content[8 + size :]
    if rng.random() < 0.3:
        return content[: 8 + size] + mutate_bytes(body, rng)
    tree = json.loads(header)
    metadata = tree.get("__metadata__", {})
    if "description" in metadata and rng.random() < 0.6:
        metadata["description"] = mutate_json(metadata["description"].encode(), rng).decode("utf-8", errors="replace")
    else:
        tree = _changed(tree, rng)
    header = _dumped(tree)
    return struct.pack("<Q", len(header)) + header + body


def _changed(tree: Any, rng: random.Random) -> Any:
    """A copy of a tree with one change somewhere."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []
    _collect(tree, places)
    if not places:
        return rng.choice(VALUES)
    parent, key = rng.choice(places)
    change = rng.randrange(6)
    if change == 0:
        del parent[key]
    elif change == 1 and isinstance(parent, dict):
        parent[rng.choice(WORDS)] = parent.pop(key)
    elif change == 2 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        step = rng.choice((-1, 1, 1000, -1000, 0.5))
        # An earlier change may have made an integer that is too large for a float.
        parent[key] = parent[key] + (step if abs(parent[key]) < 2**1000 else int(step))
    elif change == 3:
        other, place = rng.choice(places)
        parent[key] = copy.deepcopy(other[place]) if place in other or isinstance(other, list) else None
    elif change == 4 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[key] = rng.choice(VALUES)
    return tree


def _collect(tree: Any, places: list[tuple[Any, Any]]) -> None:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        places.append((tree, key))
        _collect(value, places)


def _dumped(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8", errors="surrogatepass")


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _integer(content: bytes, rng: random.Random) -> bytes:
    """A number of 2, 4 or 8 bytes at a limit, in either order."""
    width = rng.choice((2, 4, 8))
    if len(content) < width:
        return content
    place = rng.randrange(len(content) - width + 1)
    number = (rng.choice(EDGES) & (256**width - 1)).to_bytes(width, rng.choice(("little", "big")))
    return content[:place] + number + content[place + width :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _leave_out(content: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(content))
    return content[:start] + content[start + rng.randint(1, 64) :]


def _double(content: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(content))
    part = content[start : start + rng.randint(1, 64)]
    return content[:start] + part * rng.randint(2, 5) + content[start:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.choice(WORDS).encode("utf-8", errors="surrogatepass") + content[place:]


def _random(content: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.randbytes(rng.randint(1, 16)) + content[place + rng.randint(0, 16) :]


def _lines(text: str, change: Callable[[list[str]], None]) -> str:
    lines = text.split("\n")
    change(lines)
    return "\n".join(lines)


def _line_change(text: str, rng: random.Random) -> str:
    def change(lines: list[str]) -> None:
        first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines.insert(first, lines[second])
            case 1:
                del lines[first]
            case 2:
                lines[first], lines[second] = lines[second], lines[first]
            case _:
                lines[first] += rng.choice(("\r", " ", "\t", "\x00", " \ufeff", "\u2028"))

    return _lines(text, change)


def _word_change(text: str, rng: random.Random) -> str:
    def change(lines: list[str]) -> None:
        place = rng.randrange(len(lines))
        mark = next((mark for mark in (",", ":", "=") if mark in lines[place] and rng.random() < 0.5), " ")
        words = lines[place].split(mark)
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        lines[place] = mark.join(words)

    return _lines(text, change)


def _whole_change(text: str, rng: random.Random) -> str:
    match rng.randrange(6):
        case 0:
            return "\ufeff" + text
        case 1:
            return text.replace("\n", "\r\n")
        case 2:
            return text.swapcase()
        case 3:
            return text.replace(" ", "\t")
        case 4:
            return text.replace("\n", "\r")
        case _:
            return text + text


_BYTE_CHANGES = (_flip, _flip, _integer, _integer, _cut, _leave_out, _double, _insert, _random)
_TEXT_CHANGES = (_line_change, _word_change, _word_change, _whole_change)
