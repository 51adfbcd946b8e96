"""``lhuc-asr export EXP OUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    experiment: Annotated[
        Path, typer.Argument(metavar="EXP", help="An experiment's folder, or of a cross-validation's one fold's.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    adapted_pass: Annotated[
        str | None,
        typer.Option(
            "--pass", metavar="NAME", help="The pass to adapt to speakers as; the recipe's first unless given."
        ),
    ] = None,
) -> None:
    """Put what a finished experiment has trained into one folder that works elsewhere, for adapt and transcribe."""
    from lhuc_asr.pipeline import export as exporting

    description = exporting.export(experiment, out, adapted_pass)
    typer.echo(f"{out}: {description.experiment}, adapts as its pass {description.adapted_pass}")
