"""Folders of archives: very many speakers, about a thousand in a file, so that adding some writes few files again.

    speakers-00003-of-00100.archive     the speakers whose number is 3: SHA-256 of the name, divided by 100, leaves 3

Whoever has a name has the file. The files are archives of their own (``lhuc/archive.py``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError
from lhuc_asr.lhuc.archive import SpeakerArchive
from lhuc_asr.lhuc.speaker import SpeakerState

# Speakers in a file, about.
SPEAKERS_A_FILE = 1000
_NAME = re.compile(r"speakers-\d{5}-of-(?!00000)\d{5}\.archive")


def archive_name(number: int, count: int) -> str:
    """Name of an archive among ``count``."""
    return f"speakers-{number:05d}-of-{count:05d}.archive"


def number_of(speaker: str, count: int) -> int:
    """Number of the archive among ``count`` that a speaker is in."""
    return int.from_bytes(hashlib.sha256(speaker.encode(errors="replace")).digest()) % count


class ArchiveFolder:
    """A folder of archives, open for reading; each archive is opened when a speaker of it is needed.

    Args:
        path: The folder.
        opened: Opens the first archive, and refuses it where it does not fit; the others have to be like the first.

    Attributes:
        path: The folder.
        first: The first of the archives.

    Raises:
        CheckpointError: The folder has no archives, some are missing, or the first is damaged.
    """

    def __init__(self, path: Path, opened: Callable[[Path], SpeakerArchive] = SpeakerArchive) -> None:
        self.path = path
        names = archives_in(path)
        if not names:
            raise CheckpointError(f"{path}: no archive of speakers, such as {archive_name(0, 1)}, in this folder")
        self._count = int(names[0].partition("-of-")[2].partition(".")[0])
        missing = sorted({archive_name(number, self._count) for number in range(self._count)} - set(names))
        if missing or len(names) != self._count:
            what = f"{missing[0]} is missing" if missing else "there are archives of several sets"
            raise CheckpointError(f"{path}: {what}; copy the folder again")
        self.first = opened(path / archive_name(0, self._count))
        self._archives = {0: self.first}

    def __len__(self) -> int:
        """Number of speakers; opens all archives."""
        return sum(len(self._archive(number)) for number in range(self._count))

    def __contains__(self, speaker: object) -> bool:
        """Whether a speaker is in one of the archives."""
        return isinstance(speaker, str) and speaker in self._archive(number_of(speaker, self._count))

    def state(self, speaker: str) -> SpeakerState:
        """Read one speaker.

        Raises:
            SpeakerError: The speaker's archive does not have the speaker.
            CheckpointError: The archive, or the speaker's row, is damaged.
            ModelMismatchError: The archive is not like the first.
        """
        return self._archive(number_of(speaker, self._count)).state(speaker)

    def _archive(self, number: int) -> SpeakerArchive:
        if number not in self._archives:
            archive = SpeakerArchive(self.path / archive_name(number, self._count))
            ours, theirs = (
                (each.model, each.amplitude, [site.width for site in each.sites]) for each in (self.first, archive)
            )
            if ours != theirs:
                raise ModelMismatchError(f"{archive.path}: of another model than {self.first.path}; keep one set")
            archive.sites = self.first.sites
            self._archives[number] = archive
        return self._archives[number]


def archives_in(folder: Path) -> list[str]:
    """Names of the archives in a folder, in order."""
    return sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name))
