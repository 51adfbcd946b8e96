"""``lhuc-asr init RECIPE DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as own_data.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the copy; it becomes the recipe's name.")],
) -> None:
    """Copy a recipe's settings to a folder of your own, to change them there.

    Nothing that is in the folder is replaced.
    """
    from lhuc_asr.base.atomic import atomic_additions
    from lhuc_asr.base.experiment_folder import CONFIG_FILE
    from lhuc_asr.cli.recipes import recipe_named, renamed

    source = recipe_named(recipe)
    text = renamed((source / CONFIG_FILE).read_text(encoding="utf-8"), folder.absolute().name)
    with atomic_additions(folder) as new:
        (new / CONFIG_FILE).write_text(text, encoding="utf-8")
    verb = "ppnet train" if recipe.startswith("ppnet_") else "run"
    typer.echo(f"{folder / CONFIG_FILE}: change it, then: lhuc-asr {verb} {folder}")
    typer.echo(f"About the recipe: {source / 'README.md'}")
