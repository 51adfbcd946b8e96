"""``lhuc-asr export EXP OUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    experiment: Annotated[
        Path,
        typer.Argument(metavar="EXP", help="Folder of a finished experiment, or of one fold of a cross-validation."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    adapted_pass: Annotated[
        str | None,
        typer.Option("--pass", metavar="NAME", help="Pass that the model adapts like; default: the recipe's first"),
    ] = None,
) -> None:
    """Copy the model of a finished experiment into one folder, for adapt and transcribe on any machine."""
    from lhuc_asr.pipeline import export as exporting

    description = exporting.export(experiment, out, adapted_pass)
    typer.echo(f"{out}: {description.experiment}, adapts like the pass {description.with_speaker.name}")
