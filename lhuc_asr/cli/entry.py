"""The command ``lhuc-asr`` from its first instant to its last: loading the verbs and leaving Python take a second each.

Ctrl-C or ``kill`` may come then, when nothing needs to be cleaned up: the process ends without a word.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Load the verbs and run one."""
    _end_without_a_word()
    from lhuc_asr.cli.main import main as run

    try:
        run()
    finally:
        _end_without_a_word()


def _end_without_a_word() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.SIG_DFL)
