"""What is left of an enrolment if the person wants that: their file, and their recordings if they ask for them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.errors import OutputError
from lhuc_asr.base.outputs import named
from lhuc_asr.lhuc.speaker import speaker_path
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.web.enrolment import Take


@dataclass(frozen=True)
class Kept:
    """What was written.

    Attributes:
        file: The person's file.
        recordings: Folder of the recordings; None where they are not kept.
    """

    file: Path
    recordings: Path | None

    def delete(self) -> None:
        """Delete it; what is gone already is no error.

        Raises:
            OutputError: Something cannot be deleted.
        """
        with named(self.file):
            self.file.unlink(missing_ok=True)
        if self.recordings is not None and self.recordings.is_dir():
            with named(self.recordings):
                shutil.rmtree(self.recordings)


def keep(
    recognizer: Recognizer,
    person: Speaker,
    takes: Sequence[Take],
    rate: int,
    folder: Path,
    *,
    recordings: bool,
    replace: bool,
) -> Kept:
    """Write a person's file, and their recordings if they are wanted, so that ``adapt`` and ``align`` read the folder.

    Args:
        recognizer: The recognizer.
        person: The person.
        takes: Their recordings.
        rate: Sample rate of these, hertz.
        folder: Folder for ``NAME.safetensors``, and ``NAME/`` with the recordings.
        recordings: Whether recordings are written.
        replace: Whether an earlier file of a person of this name is replaced.

    Raises:
        OutputError: A file is there that is not to be replaced, or cannot be written.
    """
    file, sounds = speaker_path(folder, person.name), folder / person.name
    recognizer.check_output(file, person.name)
    if file.exists() and not replace:
        raise OutputError(f"{file}: is there already; replace it, or enrol under another name")
    if recordings and sounds.exists():
        raise OutputError(f"{sounds}: is there already, and recordings are not mixed; move it, or do not keep these")
    if recordings:
        with atomic_folder(sounds) as new:
            for take in takes:
                soundfile.write(new / f"{take.name}.wav", take.samples, rate, "PCM_16")
                if take.words is not None:
                    (new / f"{take.name}.txt").write_text(" ".join(take.words) + "\n", encoding="utf-8")
    person.save(file)
    return Kept(file, sounds if recordings else None)
