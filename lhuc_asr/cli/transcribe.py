"""``lhuc-asr transcribe MODEL [--speaker NAME] AUDIO...``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import nullcontext
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
        str | None,
        typer.Option(
            "--speaker",
            metavar="NAME|FILE",
            help="The person: the file that adapt wrote, or the name of a file NAME.safetensors in this folder or in "
            "speakers/; default: no adaptation",
        ),
    ] = None,
    form: Annotated[
        Literal["txt", "json", "ctm", "stm", "tsv", "srt", "vtt", "TextGrid"],
        typer.Option(
            "--format",
            case_sensitive=False,
            help="Words alone: txt; with times and confidences: json, ctm or tsv; phrases with times: stm; captions: "
            "srt or vtt; for Praat: TextGrid.",
        ),
    ] = "txt",
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write, or a folder (ending in / if it is new) for one file per recording, each written as "
            "soon as it is finished; default: the terminal, likewise",
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
    from lhuc_asr.recognizer.speaker_files import speaker_file
    from lhuc_asr.recognizer.transcript_files import TranscriptFiles
    from lhuc_asr.recognizer.transcript_formats import check_holds, pieces

    if output == "-":
        output = None
    if skip_existing and (overwrite or output is None):
        raise typer.BadParameter("--skip-existing goes with --output, and not with --overwrite")
    if output is None and sys.stdout is None:
        raise OutputError("standard output is closed; name a file: --output FILE")
    person = None if speaker is None else speaker_file(speaker)
    left_out = LeftOut()
    with recordings(audio, left_out.note) as named:
        unopened = left_out.count
        if output is None:
            check_holds(form, len(named))
            transcripts = load(model).transcripts(named, person, channel=channel, on_bad=left_out.note)
            _show(pieces(transcripts, form))
            left_out.check(len(named) + unopened - left_out.count)
            return
        files = TranscriptFiles.at(output, form, named, overwrite=overwrite)
        files.check_places(Inputs([*(each.path for each in named), *([person] if person else [])], [model]))
        done = files.done(named) if skip_existing else set()
        count = len(done)
        if done:
            logger.info("skipped, their files exist: %d of %d recordings", count, len(named))
        if count < len(named):
            recognizer = load(model)
            if not skip_existing:
                files.check_contents(named, recognizer.vocabulary)
            note = left_out.note
            count += files.write(recognizer.transcripts(named, person, channel=channel, done=done, on_bad=note))
    left_out.check(count)


def _show(pieces: Iterable[str]) -> None:
    """Write each piece to standard output as soon as it is there."""
    from lhuc_asr.base.runlog import without_bar

    # A bar on standard error takes everything that is printed for its own, also what goes to a file.
    stream = sys.stdout
    with without_bar() if stream.isatty() else nullcontext():
        for piece in pieces:
            stream.write(piece)
            stream.flush()
