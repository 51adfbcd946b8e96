"""``lhuc-asr transcribe MODEL [--speaker FILE] AUDIO...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def transcribe(
    model: Annotated[Path, typer.Argument(help="A folder that export made, or an experiment's.")],
    audio: Annotated[
        list[str], typer.Argument(help="One person's recordings: files, folders, patterns, or - for standard input.")
    ],
    speaker: Annotated[
        Path | None, typer.Option("--speaker", metavar="FILE", help="The person's file, that adapt wrote.")
    ] = None,
    form: Annotated[
        Literal["txt", "json", "srt", "ctm"],
        typer.Option("--format", help="Words; with times and confidences: json, ctm; captions: srt."),
    ] = "txt",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="A file; a folder, then a file for each recording in it."),
    ] = None,
) -> None:
    """Write down what is said in one person's recordings, adapted to the person or not."""
    from lhuc_asr.base.atomic import write_text
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.transcript import write

    found = load(model).transcribe(audio, speaker)
    if output is None:
        typer.echo(write(found, form), nl=False)
    elif output.is_dir() or (form == "srt" and len(found) > 1):
        for transcript in found:
            write_text(output / f"{transcript.recording}.{form}", write([transcript], form))
    else:
        write_text(output, write(found, form))
