"""``lhuc-asr toy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.cli.options import take_threads


def toy(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write figures and toy.json to.")] = Path(
        "exp/toy"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the networks' initial weights.")] = 1,
) -> None:
    """Show what amplitudes can learn and what they cannot, on three toy regressions, in seconds.

    As in figures 1 to 3 of the paper: a network of four units is fitted to a new function through its amplitudes alone.
    """
    from lhuc_asr.score.tables import table_text
    from lhuc_asr.score.toy import toy_table
    from lhuc_asr.study.toy import run_toy

    take_threads(1)  # a second would only wait for the first: the largest product has 400 rows of four units
    report = run_toy(out, seed)
    typer.echo(table_text(toy_table(report)), nl=False)
    typer.echo(f"Figures and curves: {out}")
