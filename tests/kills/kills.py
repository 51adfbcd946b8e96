"""Commands that are killed with SIGKILL, or run into a full disk, at a moment drawn by chance, and run again.

A run to the end without a kill gives the files that are expected. Files that hold times, and those that differ between
two such runs, must be there; what is in them is not compared.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENTRY = "from lhuc_asr.cli.main import main; main()"
# Files that a run leaves on purpose: locks are empty, and whoever holds them is gone.
IGNORED = (".lock",)
# Files with times in them.
WITH_TIMES = re.compile(r"(metrics\.jsonl|run\.json|run\.log|stages/[^/]+)$")
SECONDS = re.compile(rb'"seconds": [0-9.e-]+')
# The longest that a command may take, in multiples of an undisturbed run.
PATIENCE = 20.0

Files = dict[str, str]


@dataclass(frozen=True)
class Command:
    """A command, and the folder that it works in.

    Attributes:
        name: Name, for messages.
        arguments: Arguments of ``lhuc-asr``; paths are relative to the working folder.
        before: Folder that the working folder is copied from.
        precious: Files and folders, relative to the working folder, that must be whole at every moment: as before, or
            as after the command.
        entry: Python code that the arguments are given to.
    """

    name: str
    arguments: tuple[str, ...]
    before: Path
    precious: tuple[str, ...] = ()
    entry: str = ENTRY


@dataclass
class Trial:
    """What a command does when nothing disturbs it.

    Attributes:
        command: The command.
        expected: Hash of every file after it.
        varying: Names of the files whose content is not compared.
        seconds: Duration.
        work: Folder for disturbed runs.
    """

    command: Command
    work: Path
    expected: Files = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def prepare(self) -> None:
        """Run the command twice to its end.

        Raises:
            AssertionError: The two runs leave different sets of files.
        """
        first, second = self._whole_run(), self._whole_run()
        assert first.keys() == second.keys(), f"{self.command.name}: {first.keys() ^ second.keys()} in one run only"
        self.expected = first
        self.varying = {name for name in first if first[name] != second[name] or WITH_TIMES.search(name)}

    def killed(self, rng: random.Random) -> list[str]:
        """Kill the command at some moment, then run it to its end; returns what is wrong, in words."""
        folder = self._fresh()
        self._killed_after(rng.uniform(0.02, 1.05) * self.seconds, folder)
        return self._lost(folder) + self._finished(folder)

    def killed_often(self, rng: random.Random, times: int) -> list[str]:
        """Kill the command again and again, each time later in its work; returns what is wrong, in words.

        A run that comes to its end is compared, and the next begins from nothing.
        """
        folder, wrong, kills = self._fresh(), [], 0
        while kills < times:
            if self._killed_after(rng.uniform(0.02, 0.2) * self.seconds, folder):
                kills += 1
                wrong += self._lost(folder)
            else:
                wrong += self._finished(folder)
                folder = self._fresh()
        return wrong + self._finished(folder)

    def _killed_after(self, seconds: float, folder: Path) -> bool:
        """Start the command and kill it and its processes; False if it ended before that."""
        with self._start(folder) as process:
            try:
                process.wait(seconds)
                return False
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        # The processes of its group end a moment later.
        time.sleep(0.05)
        return True

    def full_disk(self, rng: random.Random) -> list[str]:
        """Let no file grow beyond a size drawn by chance, then run the command to its end without a limit."""
        folder = self._fresh()
        limit = int(10 ** rng.uniform(1, 6))
        process = self._start(folder, limit)
        _, message = process.communicate(timeout=PATIENCE * self.seconds)
        wrong = [] if b"Traceback" not in message else [f"limit {limit}: {message.decode()[-500:]}"]
        return wrong + self._lost(folder) + self._finished(folder)

    def _whole_run(self) -> Files:
        folder = self._fresh()
        begun = time.perf_counter()
        process = self._start(folder)
        _, message = process.communicate()
        self.seconds = time.perf_counter() - begun
        assert process.returncode == 0, f"{self.command.name}: {message.decode()}"
        return hashes(folder)

    def _fresh(self) -> Path:
        folder = self.work / "here"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.command.before, folder, symlinks=True)
        (folder / "tmp").mkdir()
        return folder

    def _start(self, folder: Path, limit: int | None = None) -> subprocess.Popen[bytes]:
        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            [sys.executable, "-c", self.command.entry, *self.command.arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limited,
        )

    def _lost(self, folder: Path) -> list[str]:
        """What was whole before and is neither as before nor as after the command."""
        now, before = hashes(folder), hashes(self.command.before)
        wrong = []
        for place in self.command.precious:
            old, new, present = (_below(place, files) for files in (before, self.expected, now))
            if not (self._same(present, old) or self._same(present, new)):
                changed = sorted(name for name in old.keys() | present.keys() if old.get(name) != present.get(name))
                wrong.append(f"{place}: neither as before nor as after: {changed[:5]}")
        return wrong

    def _finished(self, folder: Path) -> list[str]:
        """Run the command again; what differs from an undisturbed run."""
        process = self._start(folder)
        try:
            _, message = process.communicate(timeout=PATIENCE * self.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return ["the next run does not end"]
        if process.returncode != 0:
            return [f"the next run ends with {process.returncode}: {message.decode()[-500:]}"]
        now = hashes(folder)
        wrong = [f"left over: {name}" for name in sorted(now.keys() - self.expected.keys())]
        wrong += [f"missing: {name}" for name in sorted(self.expected.keys() - now.keys())]
        return wrong + [
            f"other bytes: {name}"
            for name in sorted(now.keys() & self.expected.keys() - self.varying)
            if now[name] != self.expected[name]
        ]

    def _same(self, first: Files, second: Files) -> bool:
        return first.keys() == second.keys() and all(
            first[name] == second[name] for name in first if name not in self.varying
        )


def hashes(folder: Path) -> Files:
    """Hash of every file in and below a folder, by its relative name; seconds in JSON do not count."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(SECONDS.sub(b"", path.read_bytes())).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in IGNORED
    }


def _below(place: str, files: Files) -> Files:
    """A file, or the files of a folder; those that begin with a dot are a writer's, and not part of it."""
    return {name: value for name, value in files.items() if name == place or name.startswith(f"{place}/")}


def disturb(
    trials: Sequence[Trial], count: int, seed: int, how: Callable[[Trial, random.Random], list[str]]
) -> list[str]:
    """Disturb commands in turn, ``count`` times in all; what is wrong, each line with the number of the disturbance."""
    wrong = []
    for number in range(count):
        trial = trials[number % len(trials)]
        faults = how(trial, random.Random(f"{seed} {number}"))
        wrong += [f"{trial.command.name}, disturbance {number}: {fault}" for fault in faults]
    return wrong
