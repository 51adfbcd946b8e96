"""Folders of archives: very many speakers, about a thousand in a file, which is chosen by a hash of the name.

    speakers-00003-of-00100.archive     those whose name's SHA-256, read as a number, is 3 modulo 100

The files are archives of their own (``lhuc/archive.py``).
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
    """A folder of archives, open for reading.

    All archives are opened at once, which takes less than a millisecond for each: what is wrong with one is an error
    now, and a folder that is replaced meanwhile stays as it was for who has it open.

    Args:
        path: The folder.
        opened: Opens the first archive, and refuses it where it does not fit; the others have to be like the first.

    Attributes:
        path: The folder.

    Raises:
        CheckpointError: The folder has no archives, some are missing, or one is damaged.
        ModelMismatchError: The archives are not of one model.
    """

    def __init__(self, path: Path, opened: Callable[[Path], SpeakerArchive] = SpeakerArchive) -> None:
        self.path = path
        names = archives_in(path)
        if not names:
            raise CheckpointError(
                f"{path}: no archive of speakers, such as {archive_name(0, 1)}, in this folder; make one of speakers' "
                "files: lhuc-asr speakers pack"
            )
        count = int(names[0].partition("-of-")[2].partition(".")[0])
        missing = sorted({archive_name(number, count) for number in range(count)} - set(names))
        if missing or len(names) != count:
            what = f"{missing[0]} is missing" if missing else "there are archives of several sets"
            raise CheckpointError(f"{path}: {what}; copy the folder again")
        self._archives = [opened(path / names[0]), *(SpeakerArchive(path / name) for name in names[1:])]
        for archive in self._archives:
            ours, theirs = (
                (each.model, each.amplitude, [site.width for site in each.sites]) for each in (self.first, archive)
            )
            if ours != theirs:
                raise ModelMismatchError(f"{archive.path}: of another model than {self.first.path}; keep one set")
            archive.sites = self.first.sites

    @property
    def first(self) -> SpeakerArchive:
        """The first of the archives."""
        return self._archives[0]

    def __len__(self) -> int:
        """Number of speakers."""
        return sum(map(len, self._archives))

    def __contains__(self, speaker: object) -> bool:
        """Whether a speaker is in one of the archives."""
        return isinstance(speaker, str) and speaker in self._of(speaker)

    def state(self, speaker: str) -> SpeakerState:
        """Read one speaker.

        Raises:
            SpeakerError: The speaker's archive does not have the speaker.
            CheckpointError: The speaker's row is damaged.
        """
        return self._of(speaker).state(speaker)

    def _of(self, speaker: str) -> SpeakerArchive:
        return self._archives[number_of(speaker, len(self._archives))]


def archives_in(folder: Path) -> list[str]:
    """Names of the archives in a folder, in order."""
    return sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name))
