"""Folders of speakers' files: found by a name, listed, merged, deleted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from lhuc_asr.base.atomic import atomic_additions
from lhuc_asr.base.errors import CheckpointError, SpeakerError
from lhuc_asr.base.outputs import named
from lhuc_asr.base.tensors import read_format
from lhuc_asr.lhuc.archive import FORMAT as ARCHIVE
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.lhuc.speaker import SpeakerState, check_speaker_name, speaker_path
from lhuc_asr.recognizer.speaker_file import SpeakerFile

# Ending of a speaker's file, and the folder where a name is looked for after this one.
SUFFIX, DEFAULT_FOLDER = ".safetensors", "speakers"


def files_of_speakers(paths: Sequence[Path]) -> list[SpeakerFile]:
    """The speakers' files among files and in folders, without those of speaker-independent rows.

    Raises:
        CheckpointError: A file is missing, damaged, or not a speaker's.
        SpeakerError: A folder has no speaker's file.
    """
    of_speakers: dict[Path, SpeakerFile] = {}
    for path in paths:
        files = [SpeakerFile.load(file) for file in (_files_in(path) if path.is_dir() else [path])]
        if not files:
            raise SpeakerError(f"{path}: no speaker's file (*.safetensors) in this folder")
        of_speakers |= {file.path: file for file in files if file.speaker}
    return list(of_speakers.values())


def speaker_file(given: str | Path) -> Path:
    """The file of a speaker whom a user names.

    Args:
        given: A file; or the name of a speaker whose ``NAME.safetensors`` is in this folder or in ``speakers/``.

    Raises:
        SpeakerError: The file is missing, or is another speaker's.
        CheckpointError: The file is damaged, or not a speaker's.
    """
    path, name = Path(given), str(given)
    is_there = os.path.lexists(path) and not path.is_dir()  # a folder may have the speaker's recordings
    if is_there or path.suffix == SUFFIX or path.name != name:
        return path
    check_speaker_name(name)
    places = [speaker_path(folder, name) for folder in (Path(), Path(DEFAULT_FOLDER))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise SpeakerError(
            f"{name}: neither a file nor a speaker in {places[0]} or {places[1]}; name the file that adapt wrote, or "
            f"adapt: lhuc-asr adapt MODEL --speaker {name}"
        )
    holder = SpeakerFile.load(file).speaker
    if holder != name:
        raise SpeakerError(f"{file}: holds the speaker {holder!r}, not {name!r}; name the file itself")
    return file


def merge(into: Path, sources: Sequence[Path]) -> list[str]:
    """Copy speakers' files into one folder. A speaker may be there already, if the file is the same.

    All files are copied or none, and none takes the place of another file.

    Args:
        into: The folder; it is made if it does not exist.
        sources: Files, and folders of files.

    Returns:
        Names of the speakers of the sources; the folder has them all.

    Raises:
        CheckpointError: A file is missing, damaged, or not a speaker's.
        ModelMismatchError: The speakers do not all belong to one model and one method.
        OutputError: The folder cannot be written to.
        SpeakerError: Two different speakers have one name, the file of a new speaker would take another file's place,
            or the sources have no speaker.
    """
    present = {path: SpeakerFile.load(path) for path in (_files_in(into) if into.is_dir() else [])}
    files = {file.path: file for file in (*present.values(), *files_of_speakers(sources)) if file.speaker}
    contents: dict[str, bytes] = {}
    for path, file in files.items():
        file.check_beside(next(iter(files.values())))
        content = path.read_bytes()
        if contents.setdefault(file.speaker, content) != content:
            raise SpeakerError(f"{path}: there is another speaker {file.speaker!r}; adapt one of them by another name")
    there = {file.speaker for file in present.values()}
    copied = {file.speaker: path for path, file in files.items() if file.speaker not in there}
    for speaker in copied:
        path = speaker_path(into, speaker)
        if os.path.lexists(path):
            holder = f"the speaker {present[path].speaker!r}" if path in present else "something else"
            raise SpeakerError(f"{path}: holds {holder}, and {speaker!r} would take its place; rename that file")
    if copied:
        with atomic_additions(into) as temporary:
            for speaker, source in copied.items():
                _copy(contents[speaker], source, speaker_path(temporary, speaker))
    merged = {file.speaker for path, file in files.items() if path not in present}
    if not merged:
        raise SpeakerError(f"{', '.join(map(str, sources))}: no speaker to copy; name files that adapt wrote")
    return sorted(merged)


def pack(path: Path, sources: Sequence[Path]) -> int:
    """Write speakers' files into one archive (``lhuc/archive.py``), whole or not at all; one is in memory at a time.

    Args:
        path: The archive.
        sources: Files of amplitudes, archives, and folders of files.

    Returns:
        The number of speakers.

    Raises:
        CheckpointError: A file is missing, damaged, or does not hold a speaker's amplitudes.
        ModelMismatchError: The speakers do not all belong to one model.
        OutputError: The archive cannot be written.
        SpeakerError: Two files hold one speaker, or there is none.
    """
    files = [file for source in sources for file in (_files_in(source) if source.is_dir() else [source])]
    return write_archive(path, (state for file in files for state in _states_in(file)))


def _states_in(path: Path) -> Iterator[SpeakerState]:
    if read_format(path, "a speaker's file, or an archive") == ARCHIVE:
        yield from SpeakerArchive(path).states()
    else:
        yield SpeakerState.load(path)


def delete(folder: Path, speakers: Sequence[str]) -> list[Path]:
    """Delete the files that hold speakers, whatever the files are called, from a folder.

    Nothing is deleted unless all speakers are there.

    Args:
        folder: The folder. A file in it that is not a speaker's stays.
        speakers: Names of the speakers.

    Returns:
        The deleted files.

    Raises:
        OutputError: A file cannot be deleted.
        SpeakerError: A speaker is not there, two different files hold them, or the name cannot be a speaker's.
    """
    for speaker in speakers:
        check_speaker_name(speaker)
    holders: dict[str, list[Path]] = {}
    unreadable: list[str] = []
    for path in _files_in(folder):
        try:
            holders.setdefault(SpeakerFile.load(path).speaker, []).append(path)
        except (CheckpointError, SpeakerError) as error:
            unreadable.append(str(error))
    for speaker in speakers:
        if speaker not in holders:
            names = ", ".join(sorted(name for name in holders if name)) or "none"
            rest = f"; a file cannot be read: {unreadable[0]}" if unreadable else ""
            raise SpeakerError(f"{folder}: no speaker {speaker!r}; the folder has {names}{rest}")
        if len({path.read_bytes() for path in holders[speaker]}) > 1:
            paths = " and ".join(map(str, holders[speaker]))
            raise SpeakerError(f"{paths}: hold different speakers {speaker!r}; delete the file of one of them yourself")
    deleted = [path for speaker in dict.fromkeys(speakers) for path in holders[speaker]]
    for path in deleted:
        with named(path):
            path.unlink()
    return deleted


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder that may be speakers'; other programs put hidden ones (``._alice.safetensors``) beside."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _copy(content: bytes, source: Path, target: Path) -> None:
    """Write a file that at most the people may read who may read its source."""
    target.write_bytes(content)
    target.chmod(target.stat().st_mode & (source.stat().st_mode | stat.S_IWUSR))
