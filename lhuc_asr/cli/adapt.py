"""``lhuc-asr adapt MODEL --speaker NAME AUDIO... -o NAME.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def adapt(
    model: Annotated[Path, typer.Argument(help="A folder that export made, or an experiment's.")],
    audio: Annotated[
        list[str], typer.Argument(help="One person's recordings: files, folders, patterns, or - for standard input.")
    ],
    speaker: Annotated[str, typer.Option("--speaker", metavar="NAME", help="The person's name.")],
    transcripts: Annotated[
        Path | None,
        typer.Option("--transcripts", metavar="FILE", help="What is said, where it is known: lines of NAME WORDS ..."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The speaker's file; NAME.safetensors unless given."),
    ] = None,
) -> None:
    """Adapt to a new speaker: learn amplitudes from recordings, on what a first pass finds in them."""
    from lhuc_asr.lhuc.speaker import check_speaker_name
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.transcript import read_transcripts

    check_speaker_name(speaker)  # before seconds of work, and before it becomes a path
    known = None if transcripts is None else read_transcripts(transcripts)
    path = output or Path(f"{speaker}.safetensors")
    load(model).adapt(audio, speaker, known).save(path)
    typer.echo(f"{speaker}: {path}")
