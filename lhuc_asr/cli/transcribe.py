"""``lhuc-asr transcribe MODEL [--speaker NAME] AUDIO...``."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Literal

import typer

from lhuc_asr.cli.options import Channel, Device, ModelFolder, Output, Person, Threads, Vad, take_threads
from lhuc_asr.cli.output import show

logger = logging.getLogger(__name__)


def transcribe(
    model: ModelFolder,
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO", help="Recordings of one person: files, folders, patterns, or - for standard input."
        ),
    ],
    speaker: Person = None,
    form: Annotated[
        Literal["txt", "json", "ctm", "stm", "tsv", "srt", "vtt", "TextGrid", "lattice"],
        typer.Option(
            "--format",
            case_sensitive=False,
            help="Words alone: txt; with times and confidences: json, ctm or tsv; phrases with times: stm; captions: "
            "srt or vtt; for Praat: TextGrid; all that may have been said, as Kaldi writes it: lattice.",
        ),
    ] = "txt",
    output: Output = None,
    channel: Channel = None,
    vad: Vad = False,
    device: Device = "cpu",
    threads: Threads = None,
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
    take_threads(threads)
    person = None if speaker is None else speaker_file(speaker)
    left_out, lattices = LeftOut(), form == "lattice"
    with recordings(audio, left_out.note) as named:
        total = len(named) + left_out.count  # with those that could not be opened
        if output is None:
            check_holds(form, len(named))
            recognizer, note = load(model, device), left_out.note
            transcripts = recognizer.transcripts(
                named, person, channel=channel, vad=vad, lattices=lattices, on_bad=note
            )
            show(pieces(transcripts, form))
            left_out.check(total)
            return
        files = TranscriptFiles.at(output, form, named, overwrite=overwrite)
        files.check_places(Inputs([*(each.path for each in named), *([person] if person else [])], [model]))
        done = files.done(named) if skip_existing else set()
        if done:
            logger.info("skipped, their files exist: %d of %d recordings", len(done), len(named))
        if len(done) < len(named):
            recognizer = load(model, device)
            if not skip_existing:
                files.check_contents(named, recognizer.vocabulary)
            note = left_out.note
            files.write(
                recognizer.transcripts(
                    named, person, channel=channel, vad=vad, done=done, lattices=lattices, on_bad=note
                )
            )
    left_out.check(total)
