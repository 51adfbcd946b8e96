"""Strict configuration: frozen pydantic models, filled from YAML and ``key=value`` overrides.

An unknown key is an error, and so is a value of the wrong type: nothing is ignored, nothing is guessed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lhuc_asr.base.errors import ConfigError


class StrictModel(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelT = TypeVar("ModelT", bound=StrictModel)


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(model, tree, str(path))


def parse_config(model: type[ModelT], tree: dict[str, Any], source: str) -> ModelT:
    """Validate a tree of plain values against a configuration class.

    Raises:
        ConfigError: With one line a mistake, naming ``source``, the key, and the nearest known key.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from error


def dump_config(config: StrictModel) -> str:
    """The configuration as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: an override has the form key=value, for example nnet.epochs=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not valid YAML: {error}") from error
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{override!r}: {parent!r} is a value, not a group of keys")
    node[leaf] = value


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
        return f"unknown key {key!r}{hint}"
    return f"{key or 'configuration'}: {problem['msg']} (found {problem.get('input')!r})"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue  # a union's tag or a list's index
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
