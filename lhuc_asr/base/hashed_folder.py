"""Folders of models: files, and a JSON description that says what they are and what their hashes must be.

The description names a format, and the SHA-256 of every other file. A folder is written whole or not at all. On
reading, the format, the description, and the presence and hash of every file are checked, with errors of one line.

A file has a name, and a place: its path relative to the folder. The two are the same unless the description's
``files`` says otherwise, so that the folder of an experiment, which is arranged differently, can be read as a
model's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Self, TypeVar

from pydantic import Field, model_validator

from lhuc_asr.base.atomic import DamagedFileError, atomic_folder, read_json, sha256_of, write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.destinations import stranger_in
from lhuc_asr.base.documents import Name
from lhuc_asr.base.errors import ConfigError, LhucError


class FolderDescription(StrictModel):
    """Base of the descriptions of folders; a kind of folder adds what its files are.

    Attributes:
        format: Format of the folder; a subclass makes it a ``Literal`` with a default.
        made_by: Version of lhuc_asr that wrote the folder.
        files: Place of each file whose place is not its name.
        sha256: SHA-256 of every file, by name.
    """

    format: str
    made_by: Name
    files: dict[str, str] = Field(default_factory=dict)
    sha256: dict[str, str]

    def path(self, folder: Path, name: str) -> Path:
        """The file of a name, in ``folder``."""
        return folder / self.files.get(name, name)

    def content(self) -> dict[str, Any]:
        """The description as it is written: the hashes come last, ``files`` only where a place is not the name."""
        tree = self.model_dump(mode="json")
        hashes, files = tree.pop("sha256"), tree.pop("files")
        return tree | ({"files": files} if files else {}) | {"sha256": hashes}

    @model_validator(mode="after")
    def _files_stay_inside(self) -> Self:
        for place in (*self.sha256, *self.files.values()):
            if not is_inside(place):
                raise ValueError(f"file {place!r} is not a path inside the folder")
        if strangers := self.files.keys() - self.sha256.keys():
            raise ValueError(f"files: {min(strangers)!r} has no hash in sha256")
        return self


DescriptionT = TypeVar("DescriptionT", bound=FolderDescription)


@dataclass(frozen=True)
class FolderKind(Generic[DescriptionT]):
    """A kind of folder: how it is written and read.

    Attributes:
        description: Class of its descriptions.
        file: File name of the description.
        noun: Name of the kind in messages, as "ranker".
        error: Class of the errors.
        renewal: What to do about a folder of another format, for the message.
    """

    description: type[DescriptionT]
    file: str
    noun: str
    error: type[LhucError]
    renewal: str

    @contextmanager
    def replacing(self, folder: Path) -> Iterator[Path]:
        """An empty folder to fill and to describe with ``write``; it takes ``folder``'s place when the block ends well.

        Raises:
            LhucError: As ``error``: there is something else at ``folder``, or a file that is not of its kind.
        """
        if os.path.lexists(folder):
            self._check_replaceable(folder)
        with atomic_folder(folder) as temporary:
            yield temporary

    def write(self, folder: Path, description: DescriptionT) -> None:
        """Write the description, whole or not at all; the files must be there already."""
        write_json(folder / self.file, description.content())

    def read(self, folder: Path, required: Iterable[str] = (), complete: Iterable[str] = ()) -> DescriptionT:
        """Read the description and check every file that it names.

        Args:
            folder: The folder.
            required: Names that the description must have.
            complete: Places of sub-folders in which every file must be one that the description names.

        Raises:
            LhucError: As ``error``: a file is missing, damaged, unknown, or of another version.
        """
        description = self._read_description(folder / self.file)
        for name in dict.fromkeys((*required, *description.sha256)):
            path = description.path(folder, name)
            try:
                sha256 = sha256_of(path)
            except FileNotFoundError as error:
                raise self.error(f"{path}: no such file; copy the folder again") from error
            except OSError as error:
                raise self.error(
                    f"{path}: cannot be read ({error.strerror or error}); copy the folder again"
                ) from error
            if sha256 != description.sha256.get(name):
                raise self.error(f"{path}: not the file that was saved; copy the folder again")
        known = {description.path(folder, name) for name in description.sha256}
        for place in complete:
            strangers = {path for path in (folder / place).rglob("*") if path.is_file()} - known
            if strangers:
                raise self.error(f"{min(strangers)}: not one of the files that were saved; copy the folder again")
        return description

    def _check_replaceable(self, folder: Path) -> None:
        """Refuse to lose what is not a folder of this kind, or a file in one that its description does not name."""
        path = folder / self.file
        if not path.is_file():
            raise self.error(f"{folder}: exists and is not a {self.noun}; choose another folder")
        try:
            tree = read_json(path)
            # The format does not matter: the folder of an earlier version may be replaced.
            stranger = stranger_in(folder, [self.file, *tree["sha256"], *tree.get("files", {}).values()])
        except (DamagedFileError, OSError, KeyError, TypeError, AttributeError) as error:
            raise self.error(f"{path}: damaged ({error}); delete the folder, or choose another") from error
        if stranger is not None:
            raise self.error(
                f"{stranger}: not a part of the {self.noun}, and would be lost; move it, or choose another folder"
            )

    def _read_description(self, path: Path) -> DescriptionT:
        try:
            tree = read_json(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.error(f"{path}: no such file; name the folder of a {self.noun}") from error
        except (DamagedFileError, OSError) as error:
            raise self.error(f"{path}: damaged ({error}); copy the folder again") from error
        form = tree.get("format") if isinstance(tree, dict) else None
        expected = self.description.model_fields["format"].default
        if form != expected:
            raise self.error(f"{path}: expected format {expected!r}, found {form!r}; {self.renewal}")
        try:
            return parse_config(self.description, tree, str(path))
        except ConfigError as error:
            raise self.error(f"{error}; copy the folder again") from error


def hashes(paths: dict[str, Path]) -> dict[str, str]:
    """SHA-256 of files, by name.

    Args:
        paths: The file of each name.

    Raises:
        FileNotFoundError: A file is missing.
    """
    return {name: sha256_of(path) for name, path in paths.items()}


def is_inside(place: str) -> bool:
    """Whether a relative path, with / between its parts, stays in the folder that it starts from.

    Example:
        >>> is_inside("am/si/model.safetensors"), is_inside("../secret"), is_inside("/etc/passwd")
        (True, False, False)
    """
    path = PurePosixPath(place)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(place) & set("\\\0")
