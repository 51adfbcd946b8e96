"""Inputs tried in a process of its own, so that a crash, a hang or a flood of memory is a fault and not an end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from peak_memory import importable

HERE = Path(__file__).parent
# The longest that one input may take, and the most memory that its process may have.
SECONDS, BYTES = 20.0, 2 << 30
# Importing torch on a busy machine.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Fault:
    """An input that did not end well.

    Attributes:
        parser: Name of the parser.
        number: Number of the input; ``child.py`` makes it again from this number.
        what: What happened: an exception, a signal, a hang, too much memory.
    """

    parser: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.parser} {self.number}: {self.what}"


@dataclass
class Tally:
    """What came of the inputs.

    Attributes:
        accepted: Number of inputs that were read.
        refused: Number of inputs that ended in a ``LhucError`` of one line.
        faults: All others.
    """

    accepted: int
    refused: int
    faults: list[Fault]


def try_inputs(parser: str, seeds: Path, work: Path, first: int, count: int) -> Tally:
    """Try inputs of a parser; after one that ends the process, a new process goes on with the next.

    Args:
        parser: Name of the parser, a key of ``parsers.PARSERS``.
        seeds: Folder of whole inputs, as ``parsers.write_seeds`` makes it.
        work: Folder for the changed inputs.
        first: Number of the first input.
        count: Number of inputs.
    """
    tally = Tally(0, 0, [])
    number, end = first, first + count
    while number < end:
        number = _one_process(parser, seeds, work, number, end, tally)
    return tally


def _one_process(parser: str, seeds: Path, work: Path, first: int, end: int, tally: Tally) -> int:
    """Try inputs until the process ends; returns the number of the next input."""
    command = [sys.executable, str(HERE / "child.py"), parser, str(seeds), str(work), str(first), str(end)]
    environment = importable() | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines = _Lines(child.stdout.fileno())
        current, patience = first, START_SECONDS
        while (line := lines.next(patience)) is not None:
            if line == "":
                break
            patience = SECONDS
            verdict, _, detail = line.partition(" ")
            tally.accepted += verdict == "accepted"
            tally.refused += verdict == "refused"
            if verdict == "fault":
                tally.faults.append(Fault(parser, current, detail))
            current += 1
        hung = line is None
        child.kill() if hung else None
        status = child.wait()
        if current < end:
            message = child.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            what = f"no answer in {patience:.0f} s" if hung else f"the process ended with {status}: {message}"
            tally.faults.append(Fault(parser, current, what))
    return current + 1


class _Lines:
    """Lines of a pipe, waited for with patience."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._held = descriptor, b""

    def next(self, seconds: float) -> str | None:
        """The next line; "" at the end of the stream, None where none came in time."""
        end = time.monotonic() + seconds
        while b"\n" not in self._held:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return None
            block = os.read(self._descriptor, 65536)
            if not block:
                return ""
            self._held += block
        line, _, self._held = self._held.partition(b"\n")
        return line.decode(errors="replace")
