"""The command ``lhuc-asr`` from its first instant: loading the verbs takes a second, in which Ctrl-C may come."""

from __future__ import annotations

import signal


def main() -> None:
    """Load the verbs and run one. Ctrl-C before a verb has begun ends the process without a word."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not where it is ignored, as in a script's "&"
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lhuc_asr.cli.main import main as run

    run()
