"""``lhuc-asr``: its verbs, and how errors are shown.

Verbs import what they need when they are called: importing torch alone takes seconds, and ``--help`` must be fast.
"""

from __future__ import annotations

import logging
import signal
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.base.threads import wait_briefly
from lhuc_asr.base.version import __version__
from lhuc_asr.cli.adapt import adapt
from lhuc_asr.cli.benchmark import benchmark
from lhuc_asr.cli.download import download
from lhuc_asr.cli.export import export
from lhuc_asr.cli.info import info
from lhuc_asr.cli.ppnet import ppnet
from lhuc_asr.cli.run import run
from lhuc_asr.cli.speakers import speakers
from lhuc_asr.cli.toy import toy
from lhuc_asr.cli.transcribe import transcribe

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="lhuc-asr",
    help="Speaker adaptation of DNN acoustic models with Learning Hidden Unit Contributions (LHUC).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (run, benchmark, export, info, adapt, transcribe, download, toy):
    app.command()(verb)
app.add_typer(speakers, name="speakers")
app.add_typer(ppnet, name="ppnet")

# Exit statuses of a process that was told to end, as in shells: 128 plus the signal's number.
SIGNALLED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

# Whether errors are shown with their traceback; set by --debug.
_debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lhuc-asr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every verb."""
    global _debug
    _debug = debug
    setup_logging(logging.DEBUG if debug else logging.INFO)


def main() -> None:
    """Entry point. A user's mistake ends in one line and exit status 1, not in a traceback."""
    _prepare_process()
    try:
        app()
    except LhucError as error:
        if _debug:
            raise
        sys.exit(f"lhuc-asr: error: {error}")
    except OSError as error:
        if _debug:
            raise
        # Such as a full disk or a folder without permission: the system's message, and the file.
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"lhuc-asr: error: {where}{error.strerror or error}; what was finished before is intact")
    except MemoryError:
        if _debug:
            raise
        sys.exit("lhuc-asr: error: the memory is full; close other programs, or give less at a time")
    except UnicodeEncodeError as error:
        if _debug:
            raise
        sys.exit(
            f"lhuc-asr: error: the terminal's encoding {error.encoding} lacks {error.object[error.start]!r}; write to "
            "a file, or set PYTHONIOENCODING=utf-8"
        )
    except SystemExit as ended:
        if ended.code in SIGNALLED:
            stages = not {"run", "benchmark"}.isdisjoint(sys.argv)
            remedy = "; the same command resumes it after the last finished stage" if stages else ""
            typer.echo(f"lhuc-asr: interrupted{remedy}", err=True)
        raise


def _prepare_process() -> None:
    """Prepare signals, standard output and threads.

    The process cleans up when it is told to end, as by ``docker stop``; names that are not UTF-8 are printed as they
    are; threads leave cores to other processes while they wait.
    """
    wait_briefly()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup, which ignores SIGHUP
            signal.signal(number, _end)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
