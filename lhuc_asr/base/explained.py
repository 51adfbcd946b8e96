"""A configuration as YAML in which every key has its meaning above it, from the docstring of its class."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.plain_values import dump_plain

WIDTH = 100
INDENT = "  "
# An entry of "Attributes:" in a docstring: ``name:``, or ``name, other:``, then the meaning.
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): ", re.MULTILINE)


def explain_config(config: StrictModel) -> str:
    """The configuration as YAML, every default written out, with a comment for each key; in a list, in its first entry.

    Without its comments the text is a configuration of the same class with the same values.
    """
    return "".join(f"{line}\n" for line in _lines(config, ""))


def meanings_of(model: type[StrictModel]) -> dict[str, str]:
    """What each key of a configuration class means, by its name; classes that it inherits from count too."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        text = re.split(r"^\S", text, maxsplit=1, flags=re.MULTILINE)[0]
        _, *parts = _ENTRY.split(text)
        for names, meaning in zip(parts[::2], parts[1::2], strict=True):
            plain = re.sub(r"\bNone\b", "null", " ".join(meaning.replace("``", "").split()))
            meanings |= dict.fromkeys(names.split(", "), plain)
    return meanings


def _lines(config: StrictModel, indent: str, explained: bool = True) -> Iterator[str]:
    meanings = meanings_of(type(config)) if explained else {}
    for name in type(config).model_fields:
        if name in meanings:
            comment = f"{indent}# "
            yield from textwrap.wrap(meanings[name], WIDTH, initial_indent=comment, subsequent_indent=comment)
        yield from _entry(name, getattr(config, name), config, indent)


def _entry(name: str, value: Any, config: StrictModel, indent: str) -> Iterator[str]:
    if isinstance(value, StrictModel):
        yield f"{indent}{name}:"
        yield from _lines(value, indent + INDENT)
    elif isinstance(value, dict) and value and all(isinstance(one, StrictModel) for one in value.values()):
        yield f"{indent}{name}:"
        for key, one in value.items():
            yield f"{indent}{INDENT}{key}:"
            yield from _lines(one, indent + INDENT * 2)
    elif isinstance(value, list | tuple) and value and all(isinstance(one, StrictModel) for one in value):
        yield f"{indent}{name}:"
        for number, one in enumerate(value):
            yield from _item(list(_lines(one, indent + INDENT, explained=number == 0)), indent)
    else:
        plain = config.model_dump(mode="json", include={name})
        yield from textwrap.indent(dump_plain(plain).rstrip("\n"), indent).splitlines()


def _item(lines: list[str], indent: str) -> Iterator[str]:
    """The lines of an entry of a list: the first that is not a comment begins it."""
    first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
    for number, line in enumerate(lines):
        yield f"{indent}- {line.removeprefix(indent + INDENT)}" if number == first else line
