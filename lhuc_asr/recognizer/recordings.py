"""Recordings that a user names: files, folders, patterns, standard input."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS

STANDARD_INPUT, STANDARD_INPUT_NAME = "-", "standard-input"
# Endings by which recordings in a folder are recognised; a file that the user names may have any ending.
ENDINGS = frozenset({".wav", ".flac", ".ogg", ".oga", ".sph"})


@dataclass(frozen=True)
class Recording:
    """A recording that can be opened.

    Attributes:
        name: Name of the file without its ending, or its path if several files have that name; without white space.
        path: The file.
        info: Content of the file's header.
    """

    name: str
    path: Path
    info: AudioInfo


@contextmanager
def recordings(sources: Sequence[str | Path]) -> Iterator[list[Recording]]:
    """A context with the recordings that a user names; within it, standard input is in a temporary file.

    Args:
        sources: Files; folders, for all files in or below them that have a recording's ending; patterns such as
            ``talks/*.flac``; ``-`` for standard input, one WAV, FLAC or Ogg stream.

    Yields:
        The recordings, ordered by name; a recording that is named several times appears once.

    Raises:
        AudioError: A recording cannot be used.
        CorpusError: A folder or pattern has no recording, or none was named.
    """
    named = [str(source) for source in sources]
    paths = {path.resolve(): path for source in named if source != STANDARD_INPUT for path in _paths(source)}
    named_paths = dict(zip(_names(list(paths.values())), paths.values(), strict=True))
    with tempfile.TemporaryDirectory(prefix="lhuc-asr-") as folder:
        if STANDARD_INPUT in named:
            named_paths[STANDARD_INPUT_NAME] = Path(folder) / STANDARD_INPUT_NAME
            with named_paths[STANDARD_INPUT_NAME].open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        if not named_paths:
            raise CorpusError("no recording was named; give files, folders, patterns, or - for standard input")
        yield [Recording(name, path, _probed(path)) for name, path in sorted(named_paths.items())]


def _paths(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        if not inside:
            raise CorpusError(f"{path}: no recording in this folder; expected files in {', '.join(sorted(ENDINGS))}")
        return inside
    if path.exists() or not glob.has_magic(source):
        return [path]
    matches = sorted(glob.glob(source, recursive=True))
    if not matches:
        raise CorpusError(f"{source}: no file matches this pattern")
    return [file for match in matches for file in (_paths(match) if Path(match).is_dir() else [Path(match)])]


def _names(paths: Sequence[Path]) -> list[str]:
    stems = [path.stem for path in paths]
    names = [
        "_".join((stem if stems.count(stem) == 1 else str(path.with_suffix("")).strip("./").replace("/", "-")).split())
        for stem, path in zip(stems, paths, strict=True)
    ]
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1 or name == STANDARD_INPUT_NAME:
            raise CorpusError(f"{path}: another recording has the name {name!r} too; rename one of them")
    return names


def _probed(path: Path) -> AudioInfo:
    info = probe(path)
    if info.seconds < FRAME_LENGTH_SECONDS:
        raise AudioError(
            f"{path}: {1000 * info.seconds:.0f} ms are shorter than one window of features; leave the recording out"
        )
    return info
