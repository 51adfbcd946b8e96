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
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write, or a folder (ending in / if it is new) for NAME.safetensors; default: this folder",
        ),
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option(
            "--channel", metavar="N", min=1, help="The recordings' channel to take, from 1; default: all, mixed down"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is not this person's for this model.")
    ] = False,
) -> None:
    """Adapt to a new speaker, and write the speaker's file for transcribe.

    The words come from a first pass over the recordings, or from known transcripts. A recording that cannot be used is
    left out and named; the exit status is then 1.
    """
    from lhuc_asr.base.destinations import Inputs, leads_to_stream, output_of, shown
    from lhuc_asr.lhuc.speaker import check_speaker_name
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import LeftOut, recordings
    from lhuc_asr.recognizer.speaker import check_file_of
    from lhuc_asr.recognizer.transcript import read_transcripts

    check_speaker_name(speaker)  # before seconds of work, and before the name becomes a path
    path = output_of(output or "./", f"{speaker}.safetensors")
    recognizer = load(model)
    known = None if transcripts is None else read_transcripts(transcripts, recognizer.own_tags)
    left_out = LeftOut()
    with recordings(audio, left_out.note) as named:
        unopened = left_out.count
        inputs = [recording.path for recording in named] + ([transcripts] if transcripts else [])
        Inputs(inputs, [model]).refuse(path)
        network = recognizer.description.network
        check_file_of(path, speaker, network, overwrite=overwrite)
        person = recognizer.adapt(named, speaker, known, channel=channel, on_bad=left_out.note)
        check_file_of(path, speaker, network, overwrite=overwrite)  # another command may have made it meanwhile
        person.save(path)
    typer.echo(f"{speaker}: {shown(path)}", err=leads_to_stream(path))
    left_out.check(len(named) + unopened - left_out.count)
