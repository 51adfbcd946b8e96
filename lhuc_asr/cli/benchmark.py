"""``lhuc-asr benchmark EXP``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.cli.options import FigureFormat, FigureFormats


def benchmark(
    experiment_folder: Annotated[
        Path, typer.Argument(metavar="EXP", help="Folder of a finished experiment, such as exp/an4.")
    ],
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", "-e", help="Name of a series or a look; may be given several times."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All series and looks that the recipe has a pass for.")] = False,
    base: Annotated[
        str | None,
        typer.Option("--pass", help="Pass of the recipe to vary or to look at; default: the first that fits"),
    ] = None,
    figure_format: FigureFormats = FigureFormat.PNG,
) -> None:
    """Vary one option of a recipe's adaptation at a time, or look at one pass; write a table and a figure for each.

    Without --experiment or --all, list the series and the looks, with what each still costs. Finished work is not
    repeated.
    """
    from rich.table import Table

    from lhuc_asr.base.atomic import read_json_lines
    from lhuc_asr.score.series_table import look_table, series_table
    from lhuc_asr.score.tables import SHORT_WIDTH, table_text
    from lhuc_asr.study.cost import costs
    from lhuc_asr.study.run import KNOWN, run_benchmark
    from lhuc_asr.study.series import Series

    if not every and not experiment:
        table = Table("name", "still to do", "what it shows")
        for name, cost in costs(experiment_folder, base).items():
            table.add_row(name, str(cost), KNOWN[name].title)
        typer.echo(table_text(table, SHORT_WIDTH), nl=False)
        typer.echo("Passes over a split and networks to train, with the time that the experiment's own took.")
        return
    names = None if every else list(dict.fromkeys(experiment or []))
    for name, folder in run_benchmark(experiment_folder, names, base, [figure_format.value]).items():
        rows, kind = list(read_json_lines(folder / "table.jsonl")), KNOWN[name]
        if isinstance(kind, Series):
            made = series_table(rows, kind.title, kind.axis, kind.costs)
        else:
            made = look_table(rows, kind.title)
        typer.echo(table_text(made, SHORT_WIDTH), nl=False)
        typer.echo(f"The paper: {KNOWN[name].paper}.\n")
    typer.echo(f"Tables and figures: {experiment_folder / 'benchmark'}")
