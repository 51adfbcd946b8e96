"""``lhuc-asr serve MODEL [--speakers ARCHIVE]``."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.cli.options import ModelFolder


def serve(
    model: ModelFolder,
    speakers: Annotated[
        Path | None,
        typer.Option(
            "--speakers",
            metavar="ARCHIVE",
            help="The speakers, in a file of lhuc-asr speakers pack, or a folder of adapt --cluster; default: unknown "
            "persons alone",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="Processes, each with the model loaded.")
    ] = 1,
    device: Annotated[
        str,
        typer.Option("--device", metavar="NAME", help="Device of the network: cpu, or cuda, which processes share."),
    ] = "cpu",
    held: Annotated[
        int, typer.Option("--held", metavar="N", min=0, help="Speakers in the memory of a process, at most.")
    ] = 256,
    waiting: Annotated[
        int, typer.Option("--waiting", metavar="N", min=1, help="Requests that a process takes on; others are refused.")
    ] = 64,
    megabytes: Annotated[
        float, typer.Option("--megabytes", metavar="N", min=0.001, help="Size of a recording, at most.")
    ] = 20.0,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", min=0.1, help="Length of a recording, at most.")
    ] = 60.0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="N", min=0.1, help="Seconds after which an answer comes too late.")
    ] = 60.0,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="Head of a Ray cluster that the processes run on, or auto for this machine's; default: this machine",
        ),
    ] = None,
) -> None:
    """Serve transcription over HTTP: recordings of many persons at once, each with the speaker's amplitudes.

    POST an audio file to /transcribe?speaker=NAME; the answer is JSON. Whoever reaches the port may ask. Ctrl-C ends
    it.
    """
    from lhuc_asr.serving.door import Limits, opened_door

    limits = Limits(waiting, megabytes, seconds, timeout)
    with opened_door(
        model,
        speakers,
        held=held,
        limits=limits,
        processes=processes,
        device=device,
        host=host,
        port=port,
        address=address,
    ) as url:
        typer.echo(f"{url}?speaker=NAME\nPOST an audio file there; Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
            threading.Event().wait()
