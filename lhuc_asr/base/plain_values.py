"""Plain values from YAML text, and back: strings, numbers, booleans, null, lists, mappings with string keys.

The notation is YAML's, the types are those of YAML 1.2's core schema. PyYAML's own constructors know more: ``0b_``,
dates and tags fail inside them, ``1:30`` is 90, ``010`` is 8, ``NO`` is false, and eight lines of anchors fill the
memory. Here such words are strings, which fit a field or do not; tags, merge keys, repeated keys and what is too large
or too deep are refused.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

# The longest recipe has 3,000 characters and 200 values.
LONGEST_TEXT = 1 << 18
MOST_VALUES = 50_000
DEEPEST = 30

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[-+]?([0-9]*\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None} | {
    form: value
    for word, value in (
        *(("null", None), ("true", True), ("false", False)),
        *((".inf", math.inf), ("+.inf", math.inf), ("-.inf", -math.inf), (".nan", math.nan)),
    )
    for form in (word, word.capitalize(), word.upper(), word.replace(".i", ".I").replace(".nan", ".NaN"))
}


class PlainValueError(ValueError):
    """A text is not YAML, or has more than plain values; the message is one line."""


def read_plain(text: str, *, comments: bool = True) -> Any:
    """The value that a YAML text stands for; None for an empty text.

    Args:
        text: One document.
        comments: Whether text may follow the value, as comments do.

    Raises:
        PlainValueError: The text is not YAML, or has tags, merge keys, repeated keys, keys that are not plain words,
            more than one document, or is too long, too deep or, with its anchors written out, too large.
    """
    if len(text) > LONGEST_TEXT:
        raise PlainValueError(f"more than {LONGEST_TEXT} characters; expected a configuration, not data")
    try:
        reader = _Reader(yaml.parse(text, Loader=yaml.BaseLoader))
        value = reader.document()
    except yaml.MarkedYAMLError as error:
        raise _at(error.problem_mark, error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise PlainValueError(" ".join(str(error).split())) from error
    rest = text[reader.end :].strip()
    if rest and not comments:
        raise PlainValueError(f"{rest!r} follows the value; quote a value that contains ' #'")
    return value


def dump_plain(value: Any) -> str:
    """A plain value as YAML text, keys in their order; ``read_plain`` gives the value back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Reader:
    """Builds a value from PyYAML's events.

    Attributes:
        end: Index of the first character after the last value.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self.end = 0

    def document(self) -> Any:
        """The value of the only document."""
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 0)
        next(self._events)  # the document ends
        if not isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise _at(event.start_mark, "a second document begins; expected one")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event)
        if event.tag is not None:
            raise _at(event.start_mark, f"the tag {event.tag!r} is not read; leave it out")
        if depth > DEEPEST:
            raise _at(event.start_mark, f"more than {DEEPEST} levels of brackets or indentation")
        before = self._values
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth)
        if isinstance(event, yaml.ScalarEvent):
            self.end = _index(event.end_mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key in self._until(yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None or key.anchor is not None:
                raise _at(key.start_mark, "a key is not a plain word")
            if key.value == "<<" and key.style is None:
                raise _at(key.start_mark, "merge keys (<<) are not read; write the values out")
            if key.value in tree:
                raise _at(key.start_mark, f"the key {key.value!r} is there twice; leave one out")
            tree[key.value] = self._value(next(self._events), depth + 1)
        return tree

    def _until(self, end: type[yaml.Event]) -> Iterator[Any]:
        """Events at one level, up to the one that ends it; what is inside them is read in between."""
        while not isinstance(event := next(self._events), end):
            yield event
        if _index(event.end_mark) > _index(event.start_mark):  # a closing bracket, not the end of an indentation
            self.end = _index(event.end_mark)

    def _repeated(self, event: Any) -> Any:
        """A copy of what an anchor names, so that an override changes one place."""
        if event.anchor not in self._anchors:
            raise _at(event.start_mark, f"there is no anchor {event.anchor!r} before this place")
        value, size = self._anchors[event.anchor]
        self._count(event, size)
        self.end = event.end_mark.index
        return copy.deepcopy(value)

    def _count(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise _at(event.start_mark, f"more than {MOST_VALUES} values, repeated ones counted")


def _scalar(event: Any) -> Any:
    text = event.value
    try:
        text.encode()
    except UnicodeEncodeError as error:  # an escape such as \\ud800
        raise _at(event.start_mark, "half of a pair of characters, which no file can hold") from error
    if event.style is not None:  # quoted, or a block of text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError as error:  # thousands of digits
            raise _at(event.start_mark, f"a number of {len(text)} digits is too long") from error
    return float(text) if _FRACTION.fullmatch(text) else text


def _index(mark: Any) -> int:
    """Number of characters before a place in the text."""
    return int(mark.index)


def _at(mark: Any, problem: str) -> PlainValueError:
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
    return PlainValueError(" ".join(problem.split()) + place)


class _Dumper(yaml.SafeDumper):
    """Writes every value out, and quotes the strings that ``read_plain`` would take for numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        """True: values that are equal are written twice."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Only between double quotes are characters escaped that a reader would take for the end of a line.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FRACTION.pattern})$"), list("-+.0123456789")
)
