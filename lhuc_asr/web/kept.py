"""What is left of an enrolment if the person wants that: their file, and their recordings if they ask for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.errors import OutputError
from lhuc_asr.base.outputs import behind_links, named
from lhuc_asr.lhuc.speaker import speaker_path
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.web.enrolment import Take


@dataclass(frozen=True)
class Written:
    """A file or folder that was written, and what tells it from one that was put in its place since.

    Attributes:
        path: The path, without links.
        mark: Numbers of its disk and there, when it was written, nanoseconds, and its size.
    """

    path: Path
    mark: tuple[int, int, int, int]

    @classmethod
    def at(cls, path: Path) -> Written:
        """What is at a path now."""
        path = behind_links(path)
        status = os.lstat(path)
        # The number alone is given to another file as soon as it is free.
        return cls(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))

    @property
    def is_there(self) -> bool:
        """Whether it is still there, and not something else."""
        return os.path.lexists(self.path) and Written.at(self.path) == self


@dataclass(frozen=True)
class Kept:
    """What an enrolment has written.

    Attributes:
        file: The person's file.
        recordings: Folder of the recordings; None where they are not kept.
    """

    file: Written
    recordings: Written | None = None

    def delete(self) -> None:
        """Delete what was written, unless it is gone already or something else has taken its place.

        Raises:
            OutputError: Something cannot be deleted.
        """
        if self.file.is_there:
            with named(self.file.path):
                self.file.path.unlink()
        if self.recordings is not None and self.recordings.is_there:
            with named(self.recordings.path):
                shutil.rmtree(self.recordings.path)


def keep(
    recognizer: Recognizer,
    person: Speaker,
    takes: Sequence[Take],
    rate: int,
    folder: Path,
    *,
    replace: bool,
    before: Kept | None = None,
) -> Kept:
    """Write a person's file, and recordings so that ``adapt`` and ``align`` read their folder.

    Args:
        recognizer: The recognizer.
        person: The person.
        takes: Recordings to write; empty for none.
        rate: Sample rate of these, hertz.
        folder: Folder for ``NAME.safetensors``, and ``NAME/`` with the recordings.
        replace: Whether an earlier file of a person of this name is replaced.
        before: What this enrolment has written already, which is not written again.

    Raises:
        OutputError: Something is there that is not to be replaced, or cannot be written.
    """
    file, sounds = speaker_path(folder, person.name), folder / person.name
    written = None if before is None else before.file
    recordings = None if before is None else before.recordings
    has_file, has_recordings = (each is not None and each.is_there for each in (written, recordings))
    if not has_file:
        recognizer.check_output(file, person.name)
        if os.path.lexists(file) and not replace:
            raise OutputError(f"{file}: is there already; replace it, or enrol under another name")
    if takes and not has_recordings and os.path.lexists(sounds):
        raise OutputError(f"{sounds}: is there already, and recordings are not mixed; move it, or keep the file alone")
    if not has_file or written is None:
        person.save(file)
        written = Written.at(file)
    if takes and not has_recordings:
        try:
            _write(takes, rate, sounds)
        except OutputError:
            if not has_file:
                Kept(written).delete()  # both or nothing
            raise
        recordings = Written.at(sounds)
    return Kept(written, recordings)


def _write(takes: Sequence[Take], rate: int, folder: Path) -> None:
    with atomic_folder(folder) as new:
        for take in takes:
            try:
                soundfile.write(new / f"{take.name}.wav", take.samples, rate, "PCM_16")
            except soundfile.LibsndfileError as error:
                raise OutputError(f"{folder}: recordings cannot be written ({error}); free some space") from error
            if take.words is not None:
                (new / f"{take.name}.txt").write_text(" ".join(take.words) + "\n", encoding="utf-8")
