"""``lhuc-asr``: its verbs, and how errors are shown.

Verbs import what they need when they are called: importing torch alone takes seconds, and ``--help`` must be fast.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from lhuc_asr.base.runlog import shown_log
from lhuc_asr.base.threads import wait_briefly
from lhuc_asr.base.version import __version__
from lhuc_asr.cli.adapt import adapt
from lhuc_asr.cli.align import align
from lhuc_asr.cli.benchmark import benchmark
from lhuc_asr.cli.download import download
from lhuc_asr.cli.enrol import enrol
from lhuc_asr.cli.export import export
from lhuc_asr.cli.failures import explained
from lhuc_asr.cli.info import info
from lhuc_asr.cli.init import init
from lhuc_asr.cli.listen import listen
from lhuc_asr.cli.options import paragraphs
from lhuc_asr.cli.package import package
from lhuc_asr.cli.ppnet import ppnet
from lhuc_asr.cli.process import SIGNALLED, prepare_process, require_current_folder, told_to_end
from lhuc_asr.cli.report import report
from lhuc_asr.cli.run import run
from lhuc_asr.cli.serve import serve
from lhuc_asr.cli.speakers import speakers
from lhuc_asr.cli.toy import toy
from lhuc_asr.cli.transcribe import transcribe

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="lhuc-asr",
    help="Speaker adaptation of DNN acoustic models with Learning Hidden Unit Contributions (LHUC).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for verb in (
    run,
    init,
    benchmark,
    report,
    export,
    package,
    info,
    adapt,
    transcribe,
    listen,
    enrol,
    serve,
    align,
    download,
    toy,
):
    app.command()(verb)
app.add_typer(speakers, name="speakers")
app.add_typer(ppnet, name="ppnet")
for command in (*app.registered_commands, *speakers.registered_commands, *ppnet.registered_commands):
    command.help = paragraphs(command.callback)

# Whether errors are shown with their traceback; set by --debug.
_debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lhuc-asr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every verb."""
    global _debug
    _debug = debug
    context.with_resource(shown_log(logging.DEBUG if debug else logging.INFO))
    require_current_folder()


def main() -> None:
    """Entry point. A user's mistake ends in one line and exit status 1, a mistake of ours in a traceback."""
    prepare_process()
    wait_briefly()
    try:
        app()
    except Exception as error:
        if status := told_to_end():
            _say_interrupted()
            sys.exit(status)
        sentence = explained(error)
        if _debug or sentence is None:
            raise
        sys.exit(f"lhuc-asr: error: {sentence}")
    except KeyboardInterrupt:  # typer handles those in a verb
        sys.exit(128 + signal.SIGINT)
    except SystemExit as ended:
        if ended.code in SIGNALLED:
            _say_interrupted()
        raise


def _say_interrupted() -> None:
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK") != "0":
        return  # of several processes that train together the first one says it
    stages = not {"run", "benchmark"}.isdisjoint(sys.argv)
    remedy = "; the same command resumes it after the last finished stage" if stages else ""
    typer.echo(f"lhuc-asr: interrupted{remedy}", err=True)
