"""``lhuc-asr run RECIPE [key=value ...]``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.cli.options import FigureFormat, FigureFormats, Tensorboard


def run(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="Folder of a recipe, with its config.yaml; a YAML file; or a recipe's name, as demo."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings that replace the recipe's, such as lhuc.sweeps=3. Names and paths are taken as they stand, "
            "with blanks, # and quotes; null is none. Lists and groups are YAML: speeds=[1.0, 0.9].",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show all settings with their meanings, and run nothing.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read the corpus and the lexicon only, say what is there, and write nothing."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the stages that would run and those that are finished, and write nothing."
        ),
    ] = False,
    figure_format: FigureFormats = FigureFormat.PNG,
    tensorboard: Tensorboard = False,
) -> None:
    """Run a recipe: train, decode, adapt to each test speaker, decode again, and show both error rates.

    Finished stages are skipped; a run that was killed is resumed. Relative paths start from the folder of the command,
    ~ is your home folder.
    """
    from lhuc_asr.base.device import checked_device
    from lhuc_asr.base.explained import explain_config
    from lhuc_asr.base.ranks import joined
    from lhuc_asr.cli.recipes import recipe_file
    from lhuc_asr.corpus.noise import CLEAN
    from lhuc_asr.pipeline.check import check_recipe
    from lhuc_asr.pipeline.experiment import load_recipe
    from lhuc_asr.pipeline.planned import plan_lines
    from lhuc_asr.pipeline.run import follow_recipe, run_recipe
    from lhuc_asr.score.tables import SHORT_WIDTH, environment_table, short_table, table_text

    config = load_recipe(recipe_file(recipe), overrides or [])
    if print_config:
        typer.echo(explain_config(config), nl=False)
        return
    if check:
        for line in check_recipe(config).lines():
            typer.echo(line)
        return
    if dry_run:
        for line in plan_lines(config):
            typer.echo(line)
        return
    formats = [] if figure_format is FigureFormat.PNG else [figure_format.value]
    checked_device(config.device, "device=")
    with joined(config.device) as ranks:
        if not ranks.is_first:
            logging.getLogger("lhuc_asr").setLevel(logging.ERROR)  # the first one says it all
            follow_recipe(config)
            return
        passes = run_recipe(config, formats, tensorboard=tensorboard)
    typer.echo(table_text(short_table(passes, title=f"{config.folder}: word error rates"), SHORT_WIDTH), nl=False)
    by_environment = environment_table(passes, CLEAN, title="WER % by environment")
    if by_environment is not None:
        typer.echo(table_text(by_environment, SHORT_WIDTH), nl=False)
    typer.echo(f"All figures of the table, pictures, hypotheses: {config.folder / 'decode'}")
