"""JSON files as typed values: the types, names and ranges of what a file holds are checked where it is read.

A hash says that a file is the one that was written, and nothing about who wrote it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.strict_json import parse_json

ValueT = TypeVar("ValueT")


def _file_name(path: Path) -> Path:
    if not path.parts or "\0" in str(path):
        raise ValueError("not the name of a file")
    return path


def _name(name: str) -> str:
    if not name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError("not a name: it is empty, or has control characters")
    return name


def _symbol(name: str) -> str:
    if _name(name).split() != [name]:
        raise ValueError("not a name: it has white space")
    return name


# Numbers of things: frames, words, states. The upper end is that of int32.
Count = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
NotNegative = Annotated[float, Field(ge=0.0)]
# A name that a person or a program gave: of a speaker, an utterance, a phone.
Name = Annotated[str, AfterValidator(_name)]
# A name without white space, as in files of words and phones.
Symbol = Annotated[str, AfterValidator(_symbol)]
FilePath = Annotated[Path, AfterValidator(_file_name)]


@dataclass(frozen=True)
class DocumentKind(Generic[ValueT]):
    """A kind of JSON file, or of the rows of a file of JSON lines.

    Attributes:
        value: Type of the value: a dataclass, a strict model, or a type of values in them.
        noun: What the file, or a row of it, should be, with its article, for messages.
        error: Class of the errors.
        remedy: What to do about a file that cannot be read, for messages.
        missing: What to do about a file that is not there; "" for the same.
    """

    value: type[ValueT]
    noun: str
    error: type[LhucError]
    remedy: str
    missing: str = ""

    def read(self, path: Path) -> ValueT:
        """Read a file of one value.

        Raises:
            LhucError: As ``error``: the file is missing, not JSON, or not of this kind.
        """
        with self._readable(path):
            content = path.read_bytes()
        return self._parsed(content, str(path))

    def rows(self, path: Path) -> Iterator[ValueT]:
        """Read a file of JSON lines, a value on each line.

        Raises:
            LhucError: As ``error``: the file is missing, or a line is not JSON or not of this kind.
        """
        with self._readable(path), path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield self._parsed(line, f"{path}:{number}")

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        try:
            check_plain_file(path)
            yield
        except FileNotFoundError as problem:
            raise self.error(f"{path}: no such file; {self.missing or self.remedy}") from problem
        except OSError as problem:
            raise self.error(f"{path}: cannot be read ({problem.strerror or problem}); {self.remedy}") from problem

    @cached_property
    def _adapter(self) -> TypeAdapter[ValueT]:
        return TypeAdapter(self.value)

    def _parsed(self, content: bytes, where: str) -> ValueT:
        try:
            # Two readers: one knows what JSON is, the other what the values should be.
            parse_json(content)
            return self._adapter.validate_json(content, strict=True)
        except ValidationError as problem:
            raise self.error(f"{where}: not {self.noun} ({first_mistake(problem)}); {self.remedy}") from problem
        except ValueError as problem:
            raise self.error(f"{where}: not {self.noun} (not valid JSON: {problem}); {self.remedy}") from problem


def first_mistake(problem: ValidationError) -> str:
    """The first mistake: its key, what is expected, and what was found."""
    mistake = problem.errors(include_url=False)[0]
    key = ".".join(map(str, mistake["loc"]))
    message = mistake["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(mistake["input"], dict) else f", found {reprlib.repr(mistake['input'])}"
    return f"{key}: {message}{shown}" if key else f"{message}{shown}"
