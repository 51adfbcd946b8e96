"""The measure of memory that other tests judge by."""

from __future__ import annotations

import subprocess
import sys

from peak_memory import importable, peak_of_memory

TOUCHED = 200 << 20


def test_a_process_has_its_own_peak() -> None:
    """``ru_maxrss`` of the child would be that of this process, at least what is touched here."""
    touched = bytearray(TOUCHED)
    touched[::4096] = b"1" * len(touched[::4096])
    assert peak_of_memory() > TOUCHED
    command = [sys.executable, "-c", "from peak_memory import peak_of_memory; print(peak_of_memory())"]
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=importable())
    assert int(child.stdout) < TOUCHED
