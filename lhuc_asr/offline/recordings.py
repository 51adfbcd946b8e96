"""From what a user names to recordings: files, folders, globs, standard input."""

from __future__ import annotations

import glob
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS
from lhuc_asr.corpus.audio import AudioInfo, probe

STANDARD_INPUT = "-"
# The files of a folder that are taken for recordings; a file that is named itself may be called anything.
ENDINGS = frozenset({".wav", ".flac", ".ogg", ".oga", ".sph"})


@dataclass(frozen=True)
class Recording:
    """A recording that can be opened.

    Attributes:
        name: Unique among those of a call: the file's name without ending, or with its folders where two are alike.
        path: Where it is.
        info: What its header says.
    """

    name: str
    path: Path
    info: AudioInfo


@contextmanager
def recordings(sources: Sequence[str | Path]) -> Iterator[list[Recording]]:
    """Open what a user names, as a context in which standard input lies in a temporary file.

    Args:
        sources: Files; folders, of which the files with a recording's ending are taken, those in folders below too;
            patterns such as ``talks/*.flac``; ``-`` for standard input, one WAV, FLAC or Ogg stream.

    Yields:
        The recordings by name, each once however often it was named.

    Raises:
        AudioError: A recording cannot be used.
        CorpusError: A folder or pattern has no recording, or none was named.
    """
    named = [str(source) for source in sources]
    paths = {path.resolve(): path for source in named if source != STANDARD_INPUT for path in _paths(source)}
    names = _names(list(paths.values()))
    with tempfile.TemporaryDirectory(prefix="lhuc-asr-") as folder:
        if STANDARD_INPUT in named:
            spooled = Path(folder) / "standard-input"
            spooled.write_bytes(sys.stdin.buffer.read())
            names["standard-input"] = spooled
        if not names:
            raise CorpusError("no recording was named; give files, folders, patterns, or - for standard input")
        yield [Recording(name, path, _probed(path)) for name, path in sorted(names.items())]


def _paths(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        if not found:
            raise CorpusError(f"{path}: no recording in this folder (files ending in {', '.join(sorted(ENDINGS))})")
        return found
    if path.exists() or not glob.has_magic(source):
        return [path]
    found = [Path(match) for match in sorted(glob.glob(source, recursive=True))]
    if not found:
        raise CorpusError(f"{source}: no file matches this pattern")
    return [file for match in found for file in (_paths(str(match)) if match.is_dir() else [match])]


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each, by which results are told apart."""
    stems = [path.stem for path in paths]
    whole = [path.with_suffix("").as_posix().strip("/.").replace("/", "-") for path in paths]
    names = [stem if stems.count(stem) == 1 else long for stem, long in zip(stems, whole, strict=True)]
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1:
            raise CorpusError(f"{path}: another recording has the name {name!r} too; rename one of them")
    return {"_".join(name.split()): path for name, path in zip(names, paths, strict=True)}


def _probed(path: Path) -> AudioInfo:
    info = probe(path)
    if info.seconds < FRAME_LENGTH_SECONDS:
        raise AudioError(f"{path}: {1000 * info.seconds:.0f} ms are less than one window of features; leave it out")
    return info
