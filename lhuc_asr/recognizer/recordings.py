"""Recordings that a user names: files, folders, patterns, standard input.

Of many recordings some may be unusable. Whoever opens them says what happens then (``OnBad``): the first problem is
raised, or each is told and its recording left out.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import AudioError, CorpusError, LhucError
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS
from lhuc_asr.recognizer.named_files import files_of
from lhuc_asr.recognizer.transcript import Span, recording_name

logger = logging.getLogger(__name__)

STANDARD_INPUT, STANDARD_INPUT_NAME = "-", "standard-input"
# File systems allow 255 bytes a name; an output's ending and a temporary file's marks need some of them.
MAX_FILE_NAME_BYTES = 200

# Called with the problem of each recording that is left out; None raises the first problem.
OnBad = Callable[[LhucError], None] | None


@dataclass(frozen=True)
class Recording:
    """A recording that can be opened.

    Attributes:
        name: Name of the file without its ending, or with it or its folders if several files have that name; without
            white space, and of characters that can be shown.
        path: The file to read.
        info: Content of the file's header.
        source: The file as the user named it; ``-`` for standard input.
        part: Part of the file that counts, such as a speaker's turn; None for all of it.
        channel: Number of the file's channel that a corpus names for it, from 1; None where it names none.
    """

    name: str
    path: Path
    info: AudioInfo
    source: str
    part: Span | None = None
    channel: int | None = None

    @property
    def span(self) -> Span:
        """Part of the file that counts."""
        return self.part or Span(0.0, self.info.seconds)

    @property
    def seconds(self) -> float:
        """Length of what counts."""
        return self.span.end - self.span.start

    @property
    def title(self) -> str:
        """Name of the recording in messages."""
        return _title(self.source)

    @property
    def file_name(self) -> str:
        """The name, short enough to be a file's with an ending."""
        content = self.name.encode()
        if len(content) <= MAX_FILE_NAME_BYTES:
            return self.name
        start = content[: MAX_FILE_NAME_BYTES - 9].decode(errors="ignore")
        return f"{start}-{hashlib.sha256(content).hexdigest()[:8]}"


class LeftOut:
    """The recordings of a command that could not be used: told at once, and an error when the command ends.

    Args:
        what: What is left out, in messages.
    """

    def __init__(self, what: str = "recordings") -> None:
        self._what = what
        self._problems: list[LhucError] = []

    def note(self, problem: LhucError) -> None:
        """Tell a problem in the log; an ``OnBad``."""
        logger.warning("left out: %s", problem)
        self._problems.append(problem)

    @property
    def count(self) -> int:
        """Number of problems so far."""
        return len(self._problems)

    def check(self, total: int) -> None:
        """Raise an error if recordings were left out.

        Args:
            total: Number of all recordings, with those that were left out.

        Raises:
            AudioError: Recordings were left out; the message counts them and has the first one's problem.
        """
        count = self.count
        if count == total == 1:
            raise self._problems[0]
        if count:
            raise AudioError(f"left out {count} of {total} {self._what}, the others are done; {self._problems[0]}")


@contextmanager
def recordings(sources: Sequence[str | Path], on_bad: OnBad = None) -> Iterator[list[Recording]]:
    """A context with the recordings that a user names; within it, what comes through a pipe is in a nameless file.

    Args:
        sources: Files; folders, for all files in or below them that have a recording's ending (``files_of``); patterns
            such as ``talks/*.flac``; ``-`` for standard input, one stream.
        on_bad: What happens to recordings that cannot be used.

    Yields:
        The recordings, ordered by name; a recording that is named several times appears once.

    Raises:
        AudioError: A recording cannot be used, and ``on_bad`` is None; or none can be used.
        CorpusError: A folder or pattern has no recording, likewise; or none was named.
    """
    bad: list[LhucError] = []

    def noted(problem: LhucError) -> None:
        bad.append(problem)
        if on_bad is None:
            raise problem
        on_bad(problem)

    named = list(dict.fromkeys(str(source) for source in sources))
    if not named:
        raise CorpusError("no recording was named; give files, folders, patterns, or - for standard input")
    paths: dict[str, Path] = {}
    for source in named:
        if source != STANDARD_INPUT:
            with usable(shown(source), noted):
                for path in files_of(source, noted):
                    paths.setdefault(os.path.realpath(path), path)
    with ExitStack() as stack:
        opened = []
        for name, path in _names(list(paths.values()), noted).items():
            with usable(shown(path), noted, path):
                opened.append(_opened(name, path, stack))
        if STANDARD_INPUT in named:
            with usable(_title(STANDARD_INPUT), noted):
                opened.append(_standard_input(stack))
        if not opened:
            raise bad[0] if len(bad) == 1 else CorpusError(f"none of {len(bad)} recordings can be used; {bad[0]}")
        yield sorted(opened, key=lambda recording: recording.name)


@contextmanager
def usable(title: str, on_bad: OnBad, path: Path | None = None) -> Iterator[None]:
    """A context of the work on one recording; an error in it is that recording's problem, and ends only this work.

    Args:
        title: Name of the recording in messages.
        on_bad: What happens with the problem.
        path: File of the recording, which the messages of errors may name.

    Raises:
        LhucError: The problem, if ``on_bad`` is None.
    """
    try:
        yield
        return
    except LhucError as error:
        problem = type(error)(str(error).replace(str(path), title))
        cause: Exception = error
    except MemoryError as error:
        problem, cause = AudioError(f"{title}: too large for the memory; cut it into parts"), error
    except OSError as error:
        problem, cause = AudioError(f"{title}: cannot be read ({error.strerror or error})"), error
    if on_bad is None:
        raise problem from cause
    on_bad(problem)


def _title(source: str) -> str:
    return "standard input" if source == STANDARD_INPUT else source


def _names(paths: Sequence[Path], on_bad: Callable[[LhucError], None]) -> Mapping[str, Path]:
    """Each file's name: its stem; where several have it their paths too, and where that is not enough, the endings."""
    stems = [recording_name(path.stem) for path in paths]
    longer = [recording_name(str(path.with_suffix("")).strip("./").replace("/", "-")) for path in paths]
    longest = [recording_name(str(path).strip("./").replace("/", "-")) for path in paths]
    counts, longer_counts = Counter(stems), Counter(longer)
    named: dict[str, Path] = {}
    for path, stem, long, whole in zip(paths, stems, longer, longest, strict=True):
        name = stem if counts[stem] == 1 else long if longer_counts[long] == 1 else whole
        if name in named or name == STANDARD_INPUT_NAME:
            on_bad(CorpusError(f"{shown(path)}: another recording has the name {name!r} too; rename one of them"))
        else:
            named[name] = path
    return named


def _opened(name: str, path: Path, stack: ExitStack) -> Recording:
    if not path.is_fifo():
        return Recording(name, path, _probed(path), shown(path))
    with path.open("rb") as stream:  # such as <(sox ...) in a shell
        return _spooled(name, stream, shown(path), stack)


def _standard_input(stack: ExitStack) -> Recording:
    if sys.stdin is None:
        raise AudioError("standard input is closed; send a recording through a pipe, or name a file")
    stream = sys.stdin.buffer
    if stream.isatty():
        raise AudioError("standard input is a terminal; send a recording through a pipe, or name a file")
    return _spooled(STANDARD_INPUT_NAME, stream, STANDARD_INPUT, stack)


def _spooled(name: str, stream: IO[bytes], source: str, stack: ExitStack) -> Recording:
    """A recording that comes through a pipe, in a file that has no name: whatever kills the process, it is gone."""
    path = stack.enter_context(nameless_file())
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    with usable(_title(source), None, path):
        info = _probed(path)
    return Recording(name, path, info, source)


def _probed(path: Path) -> AudioInfo:
    info = probe(path)
    if info.seconds < FRAME_LENGTH_SECONDS:
        raise AudioError(
            f"{path}: {1000 * info.seconds:.0f} ms are shorter than one window of features; leave the recording out"
        )
    return info
