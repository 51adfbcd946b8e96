"""Files of recordings that a user names by a file, a folder or a pattern.

In a folder, recordings are told by their endings. Linked sub-folders are entered, each folder once. What is left out is
told in the log; files and folders whose names begin with a dot are nobody's recordings and not worth a word, such as
the ``._talk.wav`` that macOS leaves beside ``talk.wav``.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import AudioError, CorpusError, LhucError

logger = logging.getLogger(__name__)

# Endings of the formats that are read (``audio.formats``); a file that the user names may have any ending.
ENDINGS = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".caf", ".w64", ".rf64", ".sph", ".nist", ".sf", ".ircam", ".voc", ".avr", ".paf", ".pvf", ".svx", ".8svx"}
    | {".wve", ".htk"}
)
# Endings of sound and video that libsndfile does not read.
CONVERTIBLE = frozenset({".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mov", ".avi", ".3gp", ".amr"})
# Files that one line of the log names.
NAMED = 20


def files_of(source: str, on_bad: Callable[[LhucError], None]) -> list[Path]:
    """The files that a user names by a file, a folder, or a pattern such as ``talks/**/*.flac``.

    Args:
        source: The file, folder or pattern; ``~`` is the home folder.
        on_bad: Called with the problem of each folder that cannot be read.

    Raises:
        AudioError: The name cannot be a file's.
        CorpusError: A folder or pattern has no recording.
    """
    if not source or "\0" in source:
        raise AudioError(f"{source!r}: not the name of a recording")
    path = Path(source)
    if not os.path.lexists(path):
        path = Path(os.path.expanduser(source))
    if path.is_dir():
        return _inside(path, on_bad)
    if os.path.lexists(path) or not glob.has_magic(source):
        return [path]
    matches = sorted(_matches(path))
    if not matches:
        raise CorpusError(f"{shown(source)}: no file matches this pattern")
    return [file for match in matches for file in (_inside(match, on_bad) if match.is_dir() else [match])]


def _inside(folder: Path, on_bad: Callable[[LhucError], None]) -> list[Path]:
    """The recordings in or below a folder; the log names the other files."""
    files: list[Path] = []
    left_out: list[Path] = []
    refused: list[LhucError] = []

    def noted(problem: LhucError) -> None:
        refused.append(problem)
        on_bad(problem)

    for inside in _folders(folder, noted):
        for entry in sorted(inside.iterdir()):
            if entry.name.startswith(".") or entry.is_dir():
                continue
            # A link that leads nowhere is told as a recording that is not there.
            recording = entry.suffix.lower() in ENDINGS and (entry.is_file() or not entry.exists())
            (files if recording else left_out).append(entry)
    _tell_left_out(folder, left_out)
    if not files and not refused:
        raise CorpusError(
            f"{shown(folder)}: no recording in this folder; expected files in {', '.join(sorted(ENDINGS))}"
        )
    return files


def _folders(folder: Path, on_bad: Callable[[LhucError], None]) -> Iterator[Path]:
    """A folder and all below it, each once however many links lead to it."""
    waiting, seen = [folder], set()
    while waiting:
        inside = waiting.pop()
        try:
            status = inside.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            below = [entry for entry in sorted(inside.iterdir(), reverse=True) if entry.is_dir()]
        except OSError as error:
            on_bad(AudioError(f"{shown(inside)}: the folder cannot be read ({error.strerror}); nothing of it is taken"))
            continue
        waiting += [entry for entry in below if not entry.name.startswith(".")]
        yield inside


def _tell_left_out(folder: Path, left_out: Sequence[Path]) -> None:
    if not left_out:
        return
    names = [shown(path.relative_to(folder)) for path in left_out[:NAMED]]
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    logger.warning(
        "%s: %d files are left out, by their endings not recordings: %s%s",
        shown(folder), len(left_out), ", ".join(names), more,
    )  # fmt: skip
    convertible = next((path for path in left_out if path.suffix.lower() in CONVERTIBLE), None)
    if convertible is not None:
        logger.warning(
            "%s: sound or video that cannot be read; convert it: ffmpeg -i %s %s",
            shown(convertible), shown(convertible), shown(convertible.with_suffix(".wav")),
        )  # fmt: skip


def _matches(pattern: Path) -> Iterator[Path]:
    """The files that match a pattern; its ``**`` stand for any folders, each entered once."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    at = parts.index("**")
    rest = Path(*parts[at + 1 :])
    for base in map(Path, glob.glob(str(Path(*parts[:at])))):
        if not rest.parts:
            yield base
            continue
        for folder in _folders(base, _unread):
            yield from _matches(Path(glob.escape(str(folder))) / rest)


def _unread(problem: LhucError) -> None:
    logger.warning("%s", problem)
