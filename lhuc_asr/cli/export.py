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
    from lhuc_asr.recognizer import from_experiment, model_folder

    description, files = from_experiment.of_experiment(experiment, adapted_pass)
    model_folder.export(description, files, out)
    typer.echo(f"{out}: {description.experiment}, adapts as its pass {description.adapted_pass}")
