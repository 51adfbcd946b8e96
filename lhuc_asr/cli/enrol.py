"""``lhuc-asr enrol MODEL``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lhuc_asr.cli.options import Device, ModelFolder, Threads, take_threads

if TYPE_CHECKING:
    from lhuc_asr.web.enrol import Address


def enrol(
    model: ModelFolder,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="Folder of what persons keep; transcribe looks there."),
    ] = Path("speakers"),
    sentences: Annotated[
        Path | None,
        typer.Option(
            "--sentences",
            metavar="FILE",
            help="What is read, one sentence a line, in the model's words; default: everyday sentences, or words drawn "
            "from a model that does not know them",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port of the page; default: any that is free")
    ] = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Adapt to a new person in the browser: they read, speak, or give recordings, and see what it changes.

    The page is for this computer alone, and for who has its address. Nothing is written unless the person keeps it.
    Ctrl-C ends it.
    """
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.web.enrol import serve
    from lhuc_asr.web.sentences import sentences as sentences_of

    take_threads(threads)
    recognizer = load(model, device)
    read = sentences_of(recognizer.vocabulary, sentences)

    def ready(address: Address) -> None:
        typer.echo(f"{address.url}\nOpen it in a browser on this computer; Ctrl-C ends it.")

    status: str | int | None = 0
    try:
        serve(recognizer, read, output, port, ready)
    except KeyboardInterrupt:
        pass  # Ctrl-C is how it ends
    except SystemExit as ended:
        status = ended.code
    # A thread that learns for a tab would be waited for, and nobody waits for what it learns.
    sys.stdout.flush()
    os._exit(status if isinstance(status, int) else 1)
