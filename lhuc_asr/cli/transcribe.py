"""``lhuc-asr transcribe MODEL [--speaker FILE] AUDIO...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def transcribe(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a model that export made, or of a finished experiment.")
    ],
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO", help="Recordings of one person: files, folders, patterns, or - for standard input."
        ),
    ],
    speaker: Annotated[
        Path | None,
        typer.Option("--speaker", metavar="FILE", help="The person's file, written by adapt; default: no adaptation"),
    ] = None,
    form: Annotated[
        Literal["txt", "json", "srt", "ctm"],
        typer.Option("--format", help="Words alone: txt; with times and confidences: json or ctm; captions: srt."),
    ] = "txt",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write, or a folder for one file per recording; default: the terminal",
        ),
    ] = None,
) -> None:
    """Transcribe one person's recordings, with or without adaptation to the person."""
    from lhuc_asr.base.atomic import write_text
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.transcript import write

    transcripts = load(model).transcribe(audio, speaker)
    if output is None:
        typer.echo(write(transcripts, form), nl=False)
    elif output.is_dir() or (form == "srt" and len(transcripts) > 1):
        for transcript in transcripts:
            write_text(output / f"{transcript.recording}.{form}", write([transcript], form))
    else:
        write_text(output, write(transcripts, form))
