"""Results on standard output, each as soon as it is there."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext


def show(pieces: Iterable[str]) -> None:
    """Write each piece to standard output as soon as it is there.

    Raises:
        OutputError: Standard output is closed.
    """
    from lhuc_asr.base.errors import OutputError
    from lhuc_asr.base.runlog import without_bar

    # A bar on standard error takes everything that is printed for its own, also what goes to a file.
    stream = sys.stdout
    if stream is None:
        raise OutputError("standard output is closed; name a file: --output FILE")
    with without_bar() if stream.isatty() else nullcontext():
        for piece in pieces:
            stream.write(piece)
            stream.flush()
