"""JSON as its standard defines it; Python's own reader takes more.

Not accepted: ``NaN`` and ``Infinity``, numbers that do not fit into 64 bits, a key that occurs twice, and halves of a
character (lone surrogates), which cannot be printed or be a file's name.
"""

from __future__ import annotations

import json
import math
from typing import Any

_LEAST, _MOST = -(2**63), 2**64 - 1


def parse_json(content: bytes) -> Any:
    """The value of one JSON text in UTF-8.

    Raises:
        ValueError: The content is not JSON, or one of the things above.
    """
    text = content.decode("utf-8")
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\ud" in text or "\\uD" in text:
        _check_characters(text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return value


def _integer(text: str) -> int:
    # A shorter text is not too long for ``int``, whose message would name a setting of Python.
    if len(text) > len(str(_LEAST)) or not _LEAST <= (value := int(text)) <= _MOST:
        raise ValueError(f"the number {text[:24]} does not fit into 64 bits")
    return value


def _real(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:24]} does not fit into 64 bits")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant)


def _check_characters(text: str) -> None:
    """Refuse text whose strings have lone surrogates, which are written as escapes."""
    try:
        json.dumps(_DECODER.decode(text), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half of a character (a lone surrogate) in a string") from error
