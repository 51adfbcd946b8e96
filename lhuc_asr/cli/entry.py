"""The command ``lhuc-asr`` from its first instant to its last: loading the verbs and leaving Python take a second each.

Ctrl-C or ``kill`` may come then, when nothing needs to be cleaned up: the process ends without a word.
"""

from __future__ import annotations

import signal
import sys

from lhuc_asr.cli.signals import ENDING


def main() -> None:
    """Load the verbs and run one."""
    _end_without_a_word()
    try:
        from lhuc_asr.cli.main import main as run
    except ModuleNotFoundError as error:  # amplitudes alone need less: docs/install.md
        sys.exit(
            f"lhuc-asr: error: {error.name} is not installed; the command needs all of lhuc_asr: pip install lhuc_asr, "
            "without --no-deps"
        )
    try:
        run()
    finally:
        _end_without_a_word()


def _end_without_a_word() -> None:
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.SIG_DFL)
