"""``lhuc-asr transcribe MODEL [--speaker FILE] AUDIO...``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

logger = logging.getLogger(__name__)


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
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write, or a folder (ending in / if it is new) for one file per recording, each written as "
            "soon as it is finished; default: the terminal",
        ),
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option(
            "--channel", metavar="N", min=1, help="The recordings' channel to take, from 1; default: all, mixed down"
        ),
    ] = None,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Go on after an interruption: files in the folder that exist are kept."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not transcripts of these recordings.")
    ] = False,
) -> None:
    """Transcribe one person's recordings, with or without adaptation to the person.

    A recording that cannot be used is left out and named; the exit status is then 1.
    """
    from lhuc_asr.base.destinations import Inputs
    from lhuc_asr.base.errors import OutputError
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import LeftOut, recordings
    from lhuc_asr.recognizer.transcript import write
    from lhuc_asr.recognizer.transcript_files import TranscriptFiles, check_terminal

    if output == "-":
        output = None
    if skip_existing and (overwrite or output is None):
        raise typer.BadParameter("--skip-existing goes with --output, and not with --overwrite")
    if output is None and sys.stdout is None:
        raise OutputError("standard output is closed; name a file: --output FILE")
    left_out = LeftOut()
    with recordings(audio, left_out.note) as named:
        if output is None:
            check_terminal(form, named)
            transcripts = list(load(model).transcripts(named, speaker, channel=channel, on_bad=left_out.note))
            typer.echo(write(transcripts, form), nl=False)
            left_out.check(len(transcripts))
            return
        files = TranscriptFiles.at(output, form, named, overwrite=overwrite)
        files.check_places(Inputs([*(each.path for each in named), *([speaker] if speaker else [])], [model]))
        done = files.done(named) if skip_existing else set()
        count = len(done)
        if done:
            logger.info("skipped, their files exist: %d of %d recordings", count, len(named))
        if count < len(named):
            recognizer = load(model)
            if not skip_existing:
                files.check_contents(named, recognizer.vocabulary)
            note = left_out.note
            count += files.write(recognizer.transcripts(named, speaker, channel=channel, done=done, on_bad=note))
    left_out.check(count)
