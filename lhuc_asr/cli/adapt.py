"""``lhuc-asr adapt MODEL --speaker NAME AUDIO... -o NAME.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def adapt(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a model that export made, or of a finished experiment.")
    ],
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO", help="Recordings of one person: files, folders, patterns, or - for standard input."
        ),
    ],
    speaker: Annotated[str, typer.Option("--speaker", metavar="NAME", help="Name of the person.")],
    transcripts: Annotated[
        Path | None,
        typer.Option(
            "--transcripts",
            metavar="FILE",
            help="Known transcripts: one line per recording, with its name and its words.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write; default: NAME.safetensors"),
    ] = None,
) -> None:
    """Adapt to a new speaker, and write the speaker's file for transcribe.

    The words come from a first pass over the recordings, or from known transcripts.
    """
    from lhuc_asr.lhuc.speaker import check_speaker_name
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.transcript import read_transcripts

    check_speaker_name(speaker)  # before seconds of work, and before the name becomes a path
    path = output or Path(f"{speaker}.safetensors")
    recognizer = load(model)
    known = None if transcripts is None else read_transcripts(transcripts, recognizer.own_tags)
    recognizer.adapt(audio, speaker, known).save(path)
    typer.echo(f"{speaker}: {path}")
