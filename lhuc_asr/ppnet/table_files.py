"""Files of examples: what a path names, how each file is to be read, and whether its content is the same as before.

    path          a file; a folder, for all files below it; or a pattern, such as days/*.csv.gz
      -> files    .csv and .tsv, plain or packed (.gz, .bz2, .zst), and .parquet

In a folder, names that begin with a dot or an underscore are not data (``_SUCCESS``, ``._part.csv``).
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.atomic import sha256_of
from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.base.fingerprint import files_below

logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
COMPRESSIONS = {"": None, ".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
KINDS = ".csv, .tsv (also .gz, .bz2 or .zst of them) or .parquet files"

# Number of names that a message lists, and of characters of another library's message.
NAMES_IN_MESSAGE = 8
LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class TableFile:
    """A file of examples.

    Attributes:
        path: Path of the file.
        delimiter: Character between the cells of a line; None for Parquet.
        compression: Name of the compression, as pyarrow calls it; None for a plain file.
        named: Whether the user named the file itself; one of a folder or of a pattern may have no rows.
    """

    path: Path
    delimiter: str | None
    compression: str | None
    named: bool


def table_files(paths: Iterable[Path]) -> list[TableFile]:
    """The files that paths name, in their order; those of a folder or a pattern in the order of their names.

    Raises:
        ExamplesError: No path is given; a path leads to no file, or to a file of another kind.
    """
    files = [file for path in paths for file in _files_of(path)]
    if not files:
        raise ExamplesError("no file of examples is given, expected at least one")
    return files


def one_line(error: Exception | str) -> str:
    """The message of another library as one line; it may quote whole rows."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


def listed(names: Sequence[str | Path]) -> str:
    """Names for a message, quoted, the first of them where they are many."""
    more = f" and {len(names) - NAMES_IN_MESSAGE} more" if len(names) > NAMES_IN_MESSAGE else ""
    return ", ".join(one_line(repr(str(name))) for name in names[:NAMES_IN_MESSAGE]) + more


@dataclass(frozen=True)
class Contents:
    """Contents of files at the time when they were hashed.

    Attributes:
        paths: The files.
        hashes: SHA-256 of each file.
        states: Size in bytes and modification time in nanoseconds of each file.
    """

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    states: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Contents:
        """Read and hash files.

        Raises:
            ExamplesError: A file is missing.
        """
        paths = tuple(paths)
        states = tuple(_state(path) for path in paths)
        return cls(paths, tuple(sha256_of(path) for path in paths), states)

    def check_unchanged(self) -> None:
        """Make sure that the files are still those that were hashed, as after a training that read them for hours.

        Raises:
            ExamplesError: A file has changed.
        """
        for path, digest, state in zip(self.paths, self.hashes, self.states, strict=True):
            if _state(path) != state and sha256_of(path) != digest:
                raise ExamplesError(f"{path}: changed while it was in use; give the same command again")


def _state(path: Path) -> tuple[int, int]:
    if not path.is_file():
        raise ExamplesError(f"{path}: no such file; name files of examples")
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _files_of(path: Path) -> Iterator[TableFile]:
    if path.parts[:1] == ("~",) and not path.exists():
        path = path.expanduser()
    if path.is_file():
        file = _table_file(path, named=True)
        if file is None:
            raise ExamplesError(f"{path}: cannot read examples from such a file; give {KINDS}")
        yield file
    elif path.is_dir():

        def refuse(folder: Path) -> None:
            if _is_data(folder, path):
                raise ExamplesError(
                    f"{folder}: the folder cannot be read (Permission denied), and its examples would be missing; "
                    "change its permissions, or name the other files"
                )

        yield from _chosen(path, [file for file in files_below(path, refuse) if _is_data(file, path)])
    elif glob.has_magic(str(path)):
        places = (Path(place) for place in sorted(glob.glob(str(path), recursive=True)))
        yield from _chosen(path, [place for place in places if place.is_file()])
    else:
        raise ExamplesError(f"{path}: no such file; name files of examples")


def _is_data(file: Path, folder: Path) -> bool:
    return not any(part[0] in "._" for part in file.relative_to(folder).parts)


def _chosen(path: Path, files: Sequence[Path]) -> Iterator[TableFile]:
    """The tables among the files of a folder or a pattern; the others are named in the log."""
    tables = {file: _table_file(file, named=False) for file in files}
    others = [str(file) for file, table in tables.items() if table is None]
    if len(others) == len(tables):
        raise ExamplesError(f"{path}: has no file of examples; give {KINDS}")
    if others:
        logger.warning("%s: left out, not examples: %s", path, listed(others))
    yield from (table for table in tables.values() if table is not None)


def _table_file(path: Path, named: bool) -> TableFile | None:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return TableFile(path, None, None, named)
    for ending, delimiter in DELIMITERS.items():
        for packing, compression in COMPRESSIONS.items():
            if name.endswith(ending + packing):
                return TableFile(path, delimiter, compression, named)
    return None
