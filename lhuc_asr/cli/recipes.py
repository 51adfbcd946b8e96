"""The recipes that come with the package, found by name, and recipes of the user's own, found by path."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.experiment_folder import CONFIG_FILE, ExperimentName
from lhuc_asr.base.plain_values import dump_plain


def recipes_folder() -> Path:
    """The folder of the recipes: in the package where it was installed, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.parent.name for path in recipes_folder().glob(f"*/{CONFIG_FILE}"))


def recipe_named(name: str) -> Path:
    """The folder of a recipe that comes with the package.

    Raises:
        ConfigError: There is none of that name; the message lists the names.
    """
    if name not in (names := recipe_names()):
        raise ConfigError(f"{name}: not a recipe; the recipes are {', '.join(names)}")
    return recipes_folder() / name


def recipe_file(recipe: Path) -> Path:
    """The YAML file of a recipe that a command line gives: a file, a folder with a config.yaml, or a recipe's name.

    A path goes before a name; a folder without config.yaml, such as a corpus of the same name, is not a recipe.

    Raises:
        ConfigError: It is neither; the message lists the names.
    """
    if (recipe / CONFIG_FILE).exists():
        return recipe / CONFIG_FILE
    if recipe.exists() and not recipe.is_dir():
        return recipe
    if str(recipe) in (names := recipe_names()):
        return recipes_folder() / recipe / CONFIG_FILE
    fault = f"a folder without {CONFIG_FILE}" if recipe.is_dir() else "no such configuration file"
    raise ConfigError(f"{recipe}: {fault}, and not the name of a recipe; the recipes are {', '.join(names)}")


def renamed(text: str, name: str) -> str:
    """A recipe's YAML with another name, so that its experiment has a folder of its own; comments stay.

    Raises:
        ConfigError: The name cannot be that of an experiment.
    """
    try:
        TypeAdapter(ExperimentName).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"{name!r}: not a name for a recipe; name the folder with at most 200 letters, digits, '_', '-' and '.'"
        ) from error
    line = dump_plain({"name": name})
    return re.sub(r"^name:.*\n", lambda _: line, text, count=1, flags=re.M)
