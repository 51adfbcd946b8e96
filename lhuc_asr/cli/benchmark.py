"""``lhuc-asr benchmark EXP``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    experiment_folder: Annotated[Path, typer.Argument(metavar="EXP", help="An experiment's folder, as exp/an4.")],
    experiment: Annotated[
        list[str] | None, typer.Option("--experiment", "-e", help="Which; may be given several times.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All experiments.")] = False,
    base: Annotated[
        str | None, typer.Option("--pass", help="The recipe's pass that experiments vary; else its first by lhuc.")
    ] = None,
) -> None:
    """Vary one thing of a recipe's adaptation at a time: a table and a figure with intervals for each experiment.

    Without --experiment or --all, say which there are. What was made before is not made again.
    """
    from rich.table import Table
    from rich.text import Text

    from lhuc_asr.pipeline.benchmark import run_benchmark
    from lhuc_asr.pipeline.experiments import EXPERIMENTS
    from lhuc_asr.score.tables import table_text

    if not every and not experiment:
        for name, known in EXPERIMENTS.items():
            typer.echo(f"{name:12} {known.title}")
        return
    names = list(EXPERIMENTS) if every else list(dict.fromkeys(experiment or []))
    for name, points in run_benchmark(experiment_folder, names, base).items():
        table = Table(title=Text(EXPERIMENTS[name].title), title_justify="left")
        for heading in ("split", "curve", EXPERIMENTS[name].axis):
            table.add_column(heading)
        for heading in ("WER %", "change %", "95 % interval", "p", "better/worse/equal"):
            table.add_column(heading, justify="right", no_wrap=True)
        for p in points:
            cells = (
                p.split, p.curve, p.label, f"{100 * p.wer:.2f}", f"{100 * p.relative:+.1f}",
                f"[{100 * p.low:+.1f}, {100 * p.high:+.1f}]", f"{p.p:.4f}", f"{p.better}/{p.worse}/{p.equal}",
            )  # fmt: skip
            table.add_row(*map(Text, cells))
        typer.echo(table_text(table), nl=False)
    typer.echo(f"Tables and figures: {experiment_folder / 'benchmark'}")
