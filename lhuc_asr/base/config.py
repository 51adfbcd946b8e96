"""Strict configuration: frozen pydantic models, filled from YAML and ``key=value`` overrides.

An unknown key is an error, and so is a value of the wrong type: nothing is ignored, and nothing is guessed. Numbers are
finite, and every one has a lower and an upper limit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.plain_values import LONGEST_TEXT, PlainValueError, dump_plain, read_plain

# Mistakes that a message names, and the length of a value in it.
MISTAKES_IN_MESSAGE, LONGEST_SHOWN = 10, 100

# A seed of random choices. Products of it with a million, for the epochs of a run, fit in 64 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# A step size of an optimizer.
LearningRate = Annotated[float, Field(gt=0.0, le=1000.0)]


class StrictModel(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=StrictModel)


@dataclass(frozen=True, eq=False)
class ChosenByKind:
    """Annotation of a field that holds one of a family of configurations, chosen from a table by the key ``kind``.

    A field is written ``corpus: Annotated[CorpusSource, ChosenByKind(SOURCES)]``. The table is open: a class that is
    put into it later can be chosen too. An instance of the field's class is accepted whether the table has its class
    or not. A dump has all fields of the chosen class.

    Attributes:
        table: Classes by their kinds, all of them subclasses of the field's class.
        default: The kind where the key is missing; None to refuse that.
    """

    table: Mapping[str, type[StrictModel]]
    default: str | None = None

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
        kind = value.get("kind", self.default) if isinstance(value, dict) else None
        return self.table.get(kind) if isinstance(kind, str) else None

    def known_keys(self, value: Any) -> list[str]:
        """The keys that a mapping may have, for a message about one that is unknown."""
        chosen = self.chosen(value)
        return [] if chosen is None else list(chosen.model_fields)


@dataclass(frozen=True, eq=False)
class ChosenByKeys(ChosenByKind):
    """The same where a key that only one of the classes has chooses it; the class ``default`` is for all others."""

    def chosen(self, value: Any) -> type[StrictModel] | None:
        """The class that a mapping chooses by its keys."""
        if not isinstance(value, dict):
            return None
        usual = self._usual
        own = (each for each in self.table.values() if value.keys() & (each.model_fields.keys() - usual.model_fields))
        return next(own, usual)

    def known_keys(self, value: Any) -> list[str]:
        """Where no key has chosen a class, those of all: the unknown one may be meant to choose."""
        if self.chosen(value) is not self._usual:
            return super().known_keys(value)
        return list(dict.fromkeys(key for each in self.table.values() for key in each.model_fields))

    @property
    def _usual(self) -> type[StrictModel]:
        return self.table[self.default or next(iter(self.table))]


def load_config(model: type[ModelT], path: Path, overrides: Iterable[str] = ()) -> ModelT:
    """Read a YAML file, apply ``a.b=value`` overrides, validate.

    A field that holds text or a path takes the value of an override as it stands, with its blanks, ``#`` and quotes:
    ``name=2001`` is the name 2001. Only ``null`` means None where the field may be None; a file of that name is
    ``./null``. For every other field the value is a number, ``true``, ``false``, or YAML in brackets:
    ``speeds=[1.0, 0.9]``, ``passes={lhuc: {}}``. Inside brackets text is quoted where YAML needs it. Comments are not
    allowed.

    Args:
        model: The configuration class.
        path: A YAML file.
        overrides: Strings ``key=value``; the key may be dotted. The last one of a key wins.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, a value does not fit.
    """
    tree = read_tree(path)
    for override in overrides:
        _place_override(tree, override)
    return parse_config(model, _settled(tree, model), str(path))


def read_tree(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, not validated.

    Raises:
        ConfigError: The file is missing or not YAML, or not a mapping.
    """
    try:
        value = read_plain(_text_of(path))
    except PlainValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    tree = {} if value is None else value
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def parse_config(model: type[ModelT], tree: dict[str, Any], source: str) -> ModelT:
    """Validate a tree of plain values against a configuration class.

    Raises:
        ConfigError: The message has one clause per mistake, with the key and the nearest known key, after ``source``.
    """
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        clauses = [_explain(model, tree, dict(problem)) for problem in problems[:MISTAKES_IN_MESSAGE]]
        if len(problems) > MISTAKES_IN_MESSAGE:
            clauses.append(f"and {len(problems) - MISTAKES_IN_MESSAGE} more mistakes")
        raise ConfigError(f"{source}: {_on_one_line('; '.join(clauses))}") from error
    if counted := next(_booleans_as_numbers(tree, config, ""), None):
        raise ConfigError(f"{source}: {counted}: expected a number, found true or false")
    return config


def dump_config(config: StrictModel) -> str:
    """The configuration as YAML, every default written out."""
    return dump_plain(config.model_dump(mode="json"))


def _text_of(path: Path) -> str:
    """The text of a configuration file, read no further than a configuration can be long."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: not a file; a recipe's folder holds a config.yaml")
        with path.open(encoding="utf-8-sig") as file:
            return file.read(LONGEST_TEXT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: no such configuration file; a recipe's folder holds a config.yaml") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: not UTF-8 ({error.reason}); save it as UTF-8") from error


@dataclass(frozen=True)
class _Unread:
    """The value of an override, whose meaning depends on the field that it is for."""

    override: str
    text: str

    def as_yaml(self) -> Any:
        """The value of a field that does not hold text."""
        try:
            return read_plain(self.text, comments=False)
        except PlainValueError as error:
            hint = "; in brackets, quote text that contains ' #'" if " #" in self.text else ""
            raise ConfigError(f"{self.override!r}: the value is not valid YAML: {error}{hint}") from error

    def read(self, annotation: Any) -> Any:
        """The value of a field with a type; the text itself for a field that is not there, which is refused later."""
        kinds = set(_alternatives(annotation))
        if not all(_is_text(kind) for kind in kinds - {type(None)}):
            return self.as_yaml()
        return None if self.text == "null" and type(None) in kinds else self.text


def _place_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError(f"{override!r}: an override has the form key=value, for example lhuc.sweeps=3")
    if not _is_unicode(override):
        raise ConfigError(f"{override!r}: not UTF-8; a configuration is text, rename files that it names")
    *parents, leaf = parts
    node = tree
    for parent in parents:
        below = node.get(parent)
        if isinstance(below, _Unread):  # a group that an earlier override gave as a whole
            below = below.as_yaml()
        # Absent, or a heading with nothing below it.
        node[parent] = below = {} if below is None else below
        if not isinstance(below, dict):
            what = "a list; give all of it, in brackets" if isinstance(below, list) else "a value, not a group of keys"
            raise ConfigError(f"{override!r}: {parent!r} is {what}")
        node = below
    node[leaf] = _Unread(override, text)


def _settled(tree: dict[str, Any], place: Any) -> dict[str, Any]:
    """A tree with the values of overrides read as the fields of ``place``, a class or what ``_content`` gives, want."""
    tag = place.tag if isinstance(place, _Union) else "kind"
    tree = {key: value.text if isinstance(value, _Unread) and key == tag else value for key, value in tree.items()}
    if isinstance(place, ChosenByKind):
        place = place.chosen(tree)
    elif isinstance(place, _Union):
        place = place.members.get(str(tree.get(tag)))
    settled = {}
    for key, value in tree.items():
        annotation, content = _below(place, key)
        if isinstance(value, _Unread):
            settled[key] = value.read(annotation)
        else:
            settled[key] = _settled(value, content) if isinstance(value, dict) else value
    return settled


def _below(place: Any, key: str) -> tuple[Any, Any]:
    """Type and content of what stands below a key; None and None where nothing is known of it."""
    if get_origin(place) is dict:
        inner = get_args(place)[1]
        return inner, _inner(inner)
    field = getattr(place, "model_fields", {}).get(key)
    return (None, None) if field is None else (field.annotation, _content(field))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, without the notes around them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    elif annotation is not None:
        yield annotation


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind in (str, Path)


def _booleans_as_numbers(tree: Any, value: Any, key: str) -> Iterator[str]:
    """Keys under which true or false has become the number 1 or 0."""
    if isinstance(tree, bool):
        if not isinstance(value, bool) and isinstance(value, int | float):
            yield key
    elif isinstance(tree, dict):
        for name, inner in tree.items():
            below = value.get(name) if isinstance(value, dict) else getattr(value, str(name), None)
            yield from _booleans_as_numbers(inner, below, f"{key}.{name}".lstrip("."))
    elif isinstance(tree, list | tuple) and isinstance(value, list | tuple):
        for number, (inner, below) in enumerate(zip(tree, value, strict=False)):
            yield from _booleans_as_numbers(inner, below, f"{key}.{number}")


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
    shown = "" if isinstance(value, dict) else f" (found {_shortened(value)})"
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
        keys = None
        if isinstance(current, ChosenByKind):
            keys, current = current.known_keys(tree), current.chosen(tree)
        path.append(str(part))
        tree = _value_at(tree, part)
        if get_origin(current) is dict:  # a table with names that the user chose
            known, current = [], _inner(get_args(current)[1])
            continue
        if get_origin(current) in (list, tuple):  # all of one class
            known, current = [], _inner(get_args(current)[0])
            continue
        fields = getattr(current, "model_fields", {})
        known = list(fields) if keys is None else keys
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
    """A discriminated union: its classes by their tags, which stand under the key ``tag``."""

    tag: str
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
        return _Union(discriminator, {tag: member for member in members for tag in _tags(member, discriminator)})
    optional = get_origin(annotation) in (Union, UnionType) and len(members) == 1
    return _inner(members[0]) if optional else annotation


def _tags(member: Any, discriminator: str) -> tuple[Any, ...]:
    return get_args(member.model_fields[discriminator].annotation)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written to a file; Python has bytes that are not UTF-8 as half pairs of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... {len(text)} characters"


def _on_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
