"""``lhuc-asr report EXP``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.web.sounds import Sounds


def report(
    experiment_folder: Annotated[
        Path, typer.Argument(metavar="EXP", help="Folder of a finished experiment, such as exp/an4.")
    ],
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="Test set; default: the first")] = None,
    name: Annotated[
        str | None, typer.Option("--pass", metavar="NAME", help="Pass to report on; default: the primary one")
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option("--speaker", metavar="NAME", help="Show the recordings of this speaker only; may be repeated."),
    ] = None,
    sounds: Annotated[Sounds, typer.Option("--sounds", help="Recordings that can be listened to.")] = Sounds.CHANGED,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; default: report.html in EXP")
    ] = None,
) -> None:
    """Write one HTML file that shows what adaptation has changed, speaker by speaker and word by word.

    A browser opens it without a network; it may be sent to somebody. The sounds make it large: half a megabyte for a
    minute of speech.
    """
    from lhuc_asr.web.report_file import write_report

    path = write_report(experiment_folder, split, name, speaker or (), sounds, output)
    typer.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
