"""Places that a user wants results in: what must not be replaced there, and how a path is shown.

An output that is one of the inputs would destroy it, so it is refused before any work is done. Files are compared by
their place on the disk: a link, a hard link or another spelling of the path is the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lhuc_asr.base.errors import ExperimentError, OutputError
from lhuc_asr.base.outputs import behind_links, is_stream, state_of

# Device and number of a file or folder.
_Place = tuple[int, int]


class Inputs:
    """The files and folders of a command that its output may not replace.

    Args:
        files: Files.
        folders: Folders, such as a model's; nothing may be written in or below them. A file that a link in them leads
            to may not be replaced either.
    """

    def __init__(self, files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
        folders = tuple(folders)
        linked = (entry for folder in folders for entry in folder.rglob("*") if entry.is_symlink())
        self._files = {_place(path): path for path in (*files, *linked)}
        self._folders = {_place(path): path for path in folders}

    def refuse(self, output: Path) -> None:
        """Refuse an output that would replace an input.

        Raises:
            OutputError: The output is one of the files, or in or below one of the folders.
        """
        place = _place(output)
        if place is not None and (path := self._files.get(place)):
            raise OutputError(f"{shown(output)}: this is an input, {shown(path)}; choose another output")
        real = Path(os.path.realpath(output))
        for folder in (real, *real.parents):
            place = _place(folder)
            if place is not None and (path := self._folders.get(place)):
                raise OutputError(f"{shown(output)}: is inside the model, {shown(path)}; choose another output")


def refuse_to_lose(folder: Path, known: Iterable[str]) -> None:
    """Refuse to replace a folder of a run in which somebody keeps files of their own, such as predictions.

    Args:
        folder: The folder; it need not be there.
        known: Paths of the files that a run makes there, relative to the folder.

    Raises:
        ExperimentError: The folder has another file.
    """
    if stranger := stranger_in(folder, known):
        raise ExperimentError(f"{stranger}: no run made this file, and it would be lost; move it elsewhere")


def stranger_in(folder: Path, known: Iterable[str]) -> Path | None:
    """A file or link in or below a folder that would be lost with it; None if there is none.

    Args:
        folder: The folder, which is to be replaced; it need not be there.
        known: Paths of the files that may go, relative to the folder.
    """
    expected = {folder / place for place in known}
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return min((path for path in files if path not in expected), default=None)


def check_writable(output: Path) -> None:
    """Refuse an output file that cannot be written, before the work is done whose result it would hold.

    Raises:
        OutputError: It is a folder or a disk, its folder is a file or write-protected, it is a link into a folder that
            is not there, or its name is too long.
    """
    folder = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise OutputError(f"{shown(output)}: {shown(folder)} is not a folder; choose another output")
    try:
        if output.is_symlink() and not (folder := behind_links(output).parent).is_dir():
            raise OutputError(f"{shown(output)}: leads to {shown(folder)}, which is not a folder; make it first")
        if leads_to_stream(output):
            if output.is_block_device() or output.is_socket():
                raise OutputError(f"{shown(output)}: is a disk or a socket; give the name of a file")
            return
        is_dir = output.is_dir()
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{shown(output)}: cannot be written ({error.strerror}); choose another output") from error
    if is_dir:
        raise OutputError(f"{shown(output)}: is a folder; give the name of a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{shown(output)}: the folder {shown(folder)} is write-protected; choose another output")


def output_of(given: str, name: str) -> Path:
    """The file that a user wants a result in.

    Args:
        given: A file; a folder, which is there or whose name ends in ``/``; or ``-`` for standard output.
        name: Name of the file in a folder.

    Raises:
        OutputError: The name cannot be a file's.
    """
    if given == "-":
        return Path("/dev/stdout")
    return Path(given) / name if is_folder(given) else Path(given)


def is_folder(given: str) -> bool:
    """Whether a user names a folder, which is there or whose name ends in ``/``.

    Raises:
        OutputError: The name cannot be a file's or folder's.
    """
    if not given or "\0" in given:
        raise OutputError(f"{given!r}: not the name of a file or folder; choose another output")
    try:
        return Path(given).is_dir() or given.endswith("/")
    except OSError as error:
        raise OutputError(f"{shown(given)}: cannot be written ({error.strerror}); choose another output") from error


def leads_to_stream(output: Path) -> bool:
    """Whether an output is one of this process's streams, a device or a pipe: it is written to, and nothing is lost."""
    return is_stream(behind_links(output), state_of(output))


def shown(path: str | Path) -> str:
    r"""A path as text that every encoding of Unicode takes: bytes that are not UTF-8 become ``\xe9``.

    Example:
        >>> shown("caf\udce9.wav")
        'caf\\xe9.wav'
    """
    try:
        content = os.fsencode(path)
    except UnicodeEncodeError:  # not from a file system
        content = str(path).encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")


def _place(path: Path) -> _Place | None:
    """Device and number of what is at a path, links followed; None if nothing is there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
