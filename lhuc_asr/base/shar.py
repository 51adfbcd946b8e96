"""Lhotse Shar: cuts in shards of a manifest, and a tar file for each of their fields, read without the library.

A shard of number n is ``cuts.n.jsonl.gz``, a cut on each line, and ``FIELD.n.tar``, the data of the cuts in the same
order: a file ``<cut's id>.<ending>``, and after it ``<cut's id>.json`` with the data's own manifest. A cut without the
field has ``.nodata`` and ``.nometa`` instead. Recordings are audio files, arrays are NumPy files.

Source: https://lhotse.readthedocs.io/en/latest/shar.html, written to Lhotse 1.33.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.foreign import foreign_errors
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.strict_json import parse_json

CUTS = "cuts"
RECORDING = "recording"
# A manifest of a recording, or of features, has some hundred.
MOST_MANIFEST_BYTES = 1 << 20

_NO_DATA, _NO_MANIFEST = ".nodata", ".nometa"
_SHARD_FILE = re.compile(r"([A-Za-z_]\w*)\.(\d+)\.(?:jsonl|jsonl\.gz|tar)")


@dataclass(frozen=True)
class Datum:
    """A field of a cut.

    Attributes:
        id: Id of the cut.
        ending: Ending of the data's file, such as ``.flac`` or ``.npy``.
        data: Content of this file.
        manifest: What the field's own manifest says.
    """

    id: str
    ending: str
    data: bytes
    manifest: Mapping[str, Any]


def shards_in(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The file of each field of each shard, by the shard's number and the field's name; ``cuts`` is one.

    Args:
        names: Names of files in a folder, or keys of a store; others than those of shards, and those below further
            folders, are left out.

    Example:
        >>> shards_in(["recording.000000.tar", "cuts.000000.jsonl.gz", "README"])
        {'000000': {'cuts': 'cuts.000000.jsonl.gz', 'recording': 'recording.000000.tar'}}
    """
    shards: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        if match := _SHARD_FILE.fullmatch(name):
            shards.setdefault(match[2], {})[match[1]] = name
    return dict(sorted(shards.items(), key=lambda shard: int(shard[0])))


def read_field(path: Path, error: type[LhucError]) -> Iterator[tuple[str, Datum | None]]:
    """Ids of the cuts of a shard and their data, None for a cut that has none; one of them is in memory at a time.

    Args:
        path: A tar file of a field. A compressed one is refused: its content may be any size.
        error: Class of the errors.

    Raises:
        LhucError: As ``error``: the file is missing or damaged, or is not one of Shar.
    """

    def damaged(why: str) -> LhucError:
        return error(f"{path}: not a field of Lhotse Shar ({why}); write it again")

    with foreign_errors(error, f"{path}: cannot be read", "copy it again"):
        size = check_plain_file(path)
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
    if packed:
        raise error(f"{path}: is compressed; unpack it with gunzip")
    with foreign_errors(error, f"{path}: cannot be read", "copy it again"):
        tar = tarfile.open(path, "r|")  # noqa: SIM115 (closed below)
    with tar:
        members = iter(tar)

        def member(most: int) -> tuple[str, str, bytes] | None:
            """Id, ending and content of the next file."""
            with foreign_errors(error, f"{path}: cannot be read further", "copy it again"):
                entry = next(members, None)
                if entry is None:
                    return None
                if not entry.isreg() or entry.issparse():
                    raise damaged(f"{entry.name!r} is not a file")
                if entry.size > most:
                    raise damaged(f"{entry.name!r} of {entry.size} bytes, at most {most} are expected")
                file = tar.extractfile(entry)
                content = b"" if file is None else file.read()
                return *os.path.splitext(entry.name), content

        while (data := member(size)) is not None:
            manifest = member(MOST_MANIFEST_BYTES)
            if manifest is None or manifest[0] != data[0]:
                raise damaged(f"{data[0]!r} has no manifest after it")
            if (data[1], manifest[1]) == (_NO_DATA, _NO_MANIFEST):
                yield data[0], None
                continue
            try:
                tree = parse_json(manifest[2])
            except ValueError as problem:
                raise damaged(f"the manifest of {data[0]!r}: {problem}") from problem
            if manifest[1] != ".json" or not isinstance(tree, dict):
                raise damaged(f"{data[0]!r} has no manifest after it")
            yield data[0], Datum(*data, tree)


def array_in(datum: Datum, where: str, error: type[LhucError]) -> np.ndarray:
    """The array of a field.

    Args:
        datum: The field.
        where: What the message names it.
        error: Class of the error.

    Raises:
        LhucError: As ``error``: it is not a NumPy file of numbers.
    """
    remedy = "write it with SharWriter and the field as numpy"
    if datum.ending != ".npy":
        raise error(f"{where}: an array as {datum.ending!r}, expected '.npy'; {remedy}")
    with foreign_errors(error, f"{where}: not a NumPy file", remedy):
        array: np.ndarray = np.load(io.BytesIO(datum.data), allow_pickle=False)
    return array


class ShardWriter:
    """Writes one shard, as a context manager; the same cuts are the same bytes.

    Args:
        folder: Folder that the files are written to.
        number: Number of the shard.
        fields: Names of its fields.
    """

    def __init__(self, folder: Path, number: int, fields: Iterable[str]) -> None:
        self.files = {CUTS: folder / f"{CUTS}.{number:06d}.jsonl.gz"}
        self.files |= {field: folder / f"{field}.{number:06d}.tar" for field in fields}

    def __enter__(self) -> ShardWriter:
        with ExitStack() as stack:
            raw = stack.enter_context(self.files[CUTS].open("wb"))
            # Without a name and a time in its header.
            self._cuts = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
            self._tars = {
                field: stack.enter_context(tarfile.TarFile(path, "w", format=tarfile.GNU_FORMAT))
                for field, path in self.files.items()
                if field != CUTS
            }
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if error is not None:  # what was written ends like a whole shard
            for path in self.files.values():
                path.unlink()

    def write(self, cut: Mapping[str, Any], data: Mapping[str, tuple[str, bytes, Mapping[str, Any]]]) -> None:
        """Write a cut.

        Args:
            cut: Its line of the manifest.
            data: Ending, content and manifest of each of its fields.
        """
        self._cuts.write(_line(cut))
        for field, tar in self._tars.items():
            ending, content, manifest = data[field]
            for suffix, file in ((ending, content), (".json", _line(manifest))):
                entry = tarfile.TarInfo(f"{cut['id']}{suffix}")
                entry.size = len(file)
                tar.addfile(entry, io.BytesIO(file))


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the content of a NumPy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _line(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n").encode()
