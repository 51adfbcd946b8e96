"""``lhuc-asr toy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def toy(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where figures and toy.json go.")] = Path("exp/toy"),
    seed: Annotated[int, typer.Option(min=0, help="Of the networks' first weights.")] = 1,
) -> None:
    """Show on three toy regressions, in seconds, what amplitudes can learn and what they cannot.

    After figures 1 to 3 of the paper: a network of four units follows a new function, with its amplitudes only.
    """
    from lhuc_asr.score.tables import table_text
    from lhuc_asr.score.toy import toy_table
    from lhuc_asr.study.toy import run_toy

    report = run_toy(out, seed)
    typer.echo(table_text(toy_table(report)), nl=False)
    typer.echo(f"Figures and curves: {out}")
