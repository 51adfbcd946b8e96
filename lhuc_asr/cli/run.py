"""``lhuc-asr run RECIPE [key=value ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Folder of a recipe, with its config.yaml; or a YAML file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings that replace the recipe's, such as lhuc.sweeps=3. Names and paths are taken as they stand, "
            "with blanks, # and quotes; null is none. Lists and groups are YAML: speeds=[1.0, 0.9].",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read the corpus and the lexicon only, say what is there, and write nothing."),
    ] = False,
) -> None:
    """Run a recipe: train, decode, adapt to each test speaker, decode again, and show both error rates.

    Finished stages are skipped; a run that was killed is resumed. Relative paths start from the folder of the command,
    ~ is your home folder.
    """
    from lhuc_asr.corpus.noise import CLEAN
    from lhuc_asr.pipeline.check import check_recipe
    from lhuc_asr.pipeline.experiment import load_recipe
    from lhuc_asr.pipeline.run import run_recipe
    from lhuc_asr.score.tables import environment_table, table_text, wer_table

    path = recipe / "config.yaml" if recipe.is_dir() or not recipe.suffix else recipe
    config = load_recipe(path, overrides or [])
    if check:
        for line in check_recipe(config).lines():
            typer.echo(line)
        return
    passes = run_recipe(config)
    # The table keeps its full width: fitted to a narrow terminal, it would lose the names of splits and passes.
    typer.echo(table_text(wer_table(passes, title=f"{config.folder}: word error rates")), nl=False)
    by_environment = environment_table(passes, CLEAN, title="WER % by environment")
    if by_environment is not None:
        typer.echo(table_text(by_environment), nl=False)
    typer.echo(f"Figures, tables and hypotheses: {config.folder / 'decode'}")
