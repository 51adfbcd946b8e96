"""Folders of speakers' files: what is in the files, merging and deleting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.base.atomic import write_bytes
from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.speaker import SpeakerState, check_speaker_name, speaker_path


@dataclass(frozen=True)
class LayerSpread:
    """Spread of the amplitudes at a site.

    Attributes:
        site: Name of the site.
        units: Number of units.
        mean, deviation, lowest, highest: Statistics of the amplitudes xi(r).
    """

    site: str
    units: int
    mean: float
    deviation: float
    lowest: float
    highest: float


def speaker_files(paths: Sequence[Path]) -> dict[Path, SpeakerState]:
    """The speakers of files and of folders of files, without speaker-independent rows.

    Raises:
        CheckpointError: A file is missing, damaged, or not a speaker's.
        SpeakerError: A folder has no speaker's file.
    """
    speakers: dict[Path, SpeakerState] = {}
    for path in paths:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        states = {file: SpeakerState.load(file) for file in files}
        if not states:
            raise SpeakerError(f"{path}: no speaker's file (*.safetensors) in this folder")
        speakers |= {file: state for file, state in states.items() if state.speaker}
    return speakers


def spreads(state: SpeakerState) -> list[LayerSpread]:
    """The amplitudes of a speaker, site by site."""
    xi = amplitude(state.amplitude)
    values = [(site.name, xi(state.r[site.name]).double()) for site in state.sites]
    return [
        LayerSpread(name, len(v), float(v.mean()), float(v.std(correction=0)), float(v.min()), float(v.max()))
        for name, v in values
    ]


def merge(into: Path, sources: Sequence[Path]) -> list[str]:
    """Copy speakers' files into one folder. A file may be there already, if it is the same.

    Nothing is copied unless all files can be read and fit together.

    Args:
        into: The folder; it is made if it does not exist.
        sources: Files, and folders of files.

    Returns:
        Names of the speakers whose files were copied.

    Raises:
        CheckpointError: A file is missing, damaged, or not a speaker's.
        ModelMismatchError: The speakers do not all belong to one model.
        SpeakerError: Two different speakers have one name.
    """
    present = speaker_files([into]) if into.is_dir() and any(into.glob("*.safetensors")) else {}
    contents: dict[str, bytes] = {state.speaker: path.read_bytes() for path, state in present.items()}
    first = next(iter(present.values()), None)
    copied: dict[str, bytes] = {}
    for path, state in speaker_files(sources).items():
        first = first or state
        state.check_fits(first.sites, first.amplitude, first.model)
        content = path.read_bytes()
        if contents.setdefault(state.speaker, content) != content:
            raise SpeakerError(f"{path}: there is another speaker {state.speaker!r}; adapt one of them by another name")
        copied[state.speaker] = content
    for speaker, content in copied.items():
        write_bytes(speaker_path(into, speaker), content)
    return sorted(copied)


def delete(folder: Path, speakers: Sequence[str]) -> None:
    """Delete speakers' files from a folder. Nothing is deleted unless all files are there.

    Raises:
        SpeakerError: A speaker is not there, or the name cannot be a speaker's.
    """
    for speaker in speakers:
        check_speaker_name(speaker)
        if not speaker_path(folder, speaker).is_file():
            names = ", ".join(state.speaker for state in speaker_files([folder]).values())
            raise SpeakerError(f"{folder}: no speaker {speaker!r}; the folder has {names}")
    for speaker in speakers:
        speaker_path(folder, speaker).unlink()
