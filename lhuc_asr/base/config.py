"""Strict configuration: frozen pydantic models, filled from YAML and ``key=value`` overrides.

An unknown key is an error, and so is a value of the wrong type: nothing is ignored, and nothing is guessed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from lhuc_asr.base.errors import ConfigError


class StrictModel(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelT = TypeVar("ModelT", bound=StrictModel)


@dataclass(frozen=True, eq=False)
class ChosenByKind:
    """Annotation of a field that holds one of a family of configurations, chosen from a table by the key ``kind``.

    A field is written ``corpus: Annotated[CorpusSource, ChosenByKind(SOURCES)]``. The table is open: a class that is
    put into it later can be chosen too. An instance of the field's class is accepted whether the table has its class
    or not. A dump has all fields of the chosen class.

    Attributes:
        table: Classes by their kinds, all of them subclasses of the field's class.
    """

    table: Mapping[str, type[StrictModel]]

    def __get_pydantic_core_schema__(self, family: type[StrictModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """How pydantic validates the field; without a schema of its own, a value is dumped as what it is."""

        def choose(value: Any) -> StrictModel:
            if isinstance(value, family):
                return value
            if not isinstance(value, dict):
                raise ValueError("Input should be a mapping of keys to values")
            chosen = self.chosen(value)
            if chosen is None:
                fault = f"unknown kind {value['kind']!r}" if "kind" in value else "the key 'kind' is missing"
                raise ValueError(f"{fault}; known kinds: {', '.join(sorted(self.table))}")
            return chosen.model_validate(value)

        return core_schema.no_info_plain_validator_function(choose)

    def chosen(self, value: Any) -> type[StrictModel] | None:
        """The class that a mapping of keys to values chooses; None where there is none."""
        kind = value.get("kind") if isinstance(value, dict) else None
        return self.table.get(kind) if isinstance(kind, str) else None


def load_config(model: type[ModelT], path: Path, overrides: Iterable[str] = ()) -> ModelT:
    """Read a YAML file, apply ``a.b=value`` overrides, validate.

    Args:
        model: The configuration class.
        path: A YAML file.
        overrides: Strings ``key=value``; the key may be dotted, the value is parsed as YAML.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, a value does not fit.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file; a recipe's folder holds a config.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(model, tree, str(path))


def parse_config(model: type[ModelT], tree: dict[str, Any], source: str) -> ModelT:
    """Validate a tree of plain values against a configuration class.

    Raises:
        ConfigError: The message has one clause per mistake, with the key and the nearest known key, after ``source``.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, tree, dict(problem)) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from error


def dump_config(config: StrictModel) -> str:
    """The configuration as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: an override has the form key=value, for example lhuc.sweeps=3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{override!r}: the value is not valid YAML: {_one_line(error)}") from error
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        if node.get(parent) is None:  # absent, or a heading with nothing below it
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise ConfigError(f"{override!r}: {parent!r} is a value, not a group of keys")
    node[leaf] = value


def _explain(model: type[BaseModel], tree: Any, problem: dict[str, Any]) -> str:
    path, fields = _resolve(model, tree, problem["loc"])
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
        return f"unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    # A whole group of keys does not show which one is wrong.
    shown = "" if isinstance(value, dict) else f" (found {value!r})"
    return f"{key}: {message}{shown}" if key else f"{message}{shown}"


def _resolve(model: type[BaseModel], tree: Any, location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """The dotted key of a mistake as the user wrote it, and the known keys beside its last part.

    The location of a mistake contains the tag of a discriminated union, which the keys of the file do not: the tag
    is left out.
    """
    path: list[str] = []
    current: Any = model
    known: list[str] = []
    for part in location:
        if isinstance(current, _Union):
            current = current.members.get(part)
            continue
        if isinstance(current, ChosenByKind):
            current = current.chosen(tree)
        path.append(str(part))
        tree = _value_at(tree, part)
        if get_origin(current) is dict:  # a table with names that the user chose
            known, current = [], _inner(get_args(current)[1])
            continue
        if get_origin(current) in (list, tuple):  # all of one class
            known, current = [], _inner(get_args(current)[0])
            continue
        fields = getattr(current, "model_fields", {})
        known = list(fields)
        current = _content(fields[part]) if part in fields else None
    return path, known


def _value_at(tree: Any, part: str | int) -> Any:
    """What stands below a key or an index; None where there is nothing."""
    try:
        return tree[part]
    except (KeyError, IndexError, TypeError):
        return None


@dataclass(frozen=True)
class _Union:
    """A discriminated union: its classes by their tags."""

    members: dict[Any, Any]


def _content(field: FieldInfo) -> Any:
    """What a field holds: a class, a union, a table, or one of a family chosen by its kind."""
    chosen = next((note for note in field.metadata if isinstance(note, ChosenByKind)), None)
    return chosen or _inner(field.annotation, field.discriminator)


def _inner(annotation: Any, discriminator: Any = None) -> Any:
    """The same for an annotation: what it holds, without what is around it."""
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        chosen = next((note for note in notes if isinstance(note, ChosenByKind)), None)
        discriminators = (note.discriminator for note in notes if isinstance(note, FieldInfo))
        return chosen or _inner(annotation, discriminator or next(discriminators, None))
    members = [member for member in get_args(annotation) if member is not type(None)]
    if isinstance(discriminator, str):
        return _Union({tag: member for member in members for tag in _tags(member, discriminator)})
    optional = get_origin(annotation) in (Union, UnionType) and len(members) == 1
    return _inner(members[0]) if optional else annotation


def _tags(member: Any, discriminator: str) -> tuple[Any, ...]:
    return get_args(member.model_fields[discriminator].annotation)


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())
