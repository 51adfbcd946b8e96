"""The most memory that a process has had."""

from __future__ import annotations

import os
from pathlib import Path


def peak_of_memory() -> int:
    """Bytes: the largest resident size of this process since it began to run its program.

    ``getrusage`` does not tell: at ``exec`` the kernel keeps the peak of the process that started this one, which for a
    test is pytest with all that it has read.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
    return 1024 * int(kilobytes)


def importable() -> dict[str, str]:
    """The environment for a process that imports this module."""
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
