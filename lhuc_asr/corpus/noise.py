"""Copies of utterances in acoustic environments: clean, or with noise of a class at a random level.

A folder of noise has the table ``noise.tsv``, one line per clip, with at least the columns ``path`` and ``class``. Each
class is an environment. Training, held-out and test utterances get different recordings of a class. The copy of an
utterance is called ``<id>.<environment>``, also in the clean environment.

The signal-to-noise ratio of a copy is 10 log10 of the mean power of the utterance, including pauses, over that of the
noise added to it, as in the Aurora corpora but without weighting by frequency.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import soundfile
from pydantic import Field, model_validator

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import is_silent, read_audio, read_native
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.foreign import foreign_errors
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.validate import unsafe_name
from lhuc_asr.lang.lines import read_lines

# The environment without noise.
CLEAN = "clean"
TABLE_FILE = "noise.tsv"

Part = Literal["training", "heldout", "test"]
# Fraction of the clips of each class.
PART_SHARES: dict[Part, float] = {"training": 1 / 2, "test": 1 / 3, "heldout": 1 / 6}
# Names in ESC end in the take: 1-172649-A and -B are parts of one recording, and must stay together.
_TAKE = re.compile(r"-[A-Z]$")

# Peak to which a mixture is scaled down, speech and noise alike, if it would exceed full scale.
HIGHEST_PEAK = 0.99

# Beyond these the noise, or the speech, is below the steps of 16-bit samples.
Decibels = Annotated[float, Field(ge=-100.0, le=100.0)]

# No dot: an id ends in a dot and the environment.
NoiseClass = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=100)]


class NoiseConfig(StrictModel):
    """The environments that a corpus is put into.

    Attributes:
        dir: Folder with ``noise.tsv``.
        classes: Classes of noise; each is an environment, besides the clean one.
        snr_decibels: Lowest and highest signal-to-noise ratio; uniformly distributed over the copies.
        training_conditions: Number of environments that each training utterance is put into. Held-out and test
            utterances are put into all.
    """

    dir: InputFolder
    classes: tuple[NoiseClass, ...] = Field(min_length=1)
    snr_decibels: tuple[Decibels, Decibels] = (5.0, 15.0)
    training_conditions: int = Field(2, ge=1, le=1000)

    @model_validator(mode="after")
    def _possible(self) -> NoiseConfig:
        if len(set(self.environments)) != len(self.environments):
            raise ValueError(f"classes {', '.join(self.classes)}: expected each once, and none called {CLEAN!r}")
        low, high = self.snr_decibels
        if low > high:
            raise ValueError(f"snr_decibels: the range {low:g} to {high:g} is empty")
        if self.training_conditions > len(self.environments):
            raise ValueError(
                f"training_conditions: {self.training_conditions}, but with the clean one there are only "
                f"{len(self.environments)}"
            )
        return self

    @property
    def environments(self) -> tuple[str, ...]:
        """Names of the environments: the clean one, then the classes."""
        return (CLEAN, *self.classes)


@dataclass(frozen=True)
class _Mixture:
    """An utterance, the clips that its noise is chosen from, and the file of the copy, relative to a folder."""

    utterance: Utterance
    environment: str
    clips: tuple[Path, ...]
    snr_decibels: tuple[float, float]
    file: str


def put_into_environments(
    splits: Mapping[str, tuple[Part, Sequence[Utterance]]], config: NoiseConfig, folder: Path, seed: int, processes: int
) -> dict[str, list[Utterance]]:
    """Copy utterances into their environments; noisy copies are written as FLAC, all or none.

    The clip of a copy, the position in the clip and the level depend only on the utterance's id and the environment:
    test recordings do not depend on the recipe's seed. Clean copies are the recordings themselves.

    Args:
        splits: For each split, the part of the clips that it gets, and its utterances.
        config: The environments.
        folder: Folder of the noisy copies; an existing one is replaced.
        seed: Seed of the choice of environments for training utterances.
        processes: Number of processes; the copies do not depend on it.

    Returns:
        The copies of each split.

    Raises:
        CorpusError: ``noise.tsv``, a class or a clip cannot be used, a class has too few clips, an utterance already
            has an environment, or the id of a copy is too long for a file name.
        AudioError: An utterance cannot be read, or it or its part of the noise is digital silence.
    """
    clips = {name: part_clips(name, paths) for name, paths in read_clips(config).items()}
    folder = folder.absolute()
    copies: dict[str, list[Utterance]] = {split: [] for split in splits}
    mixtures: list[_Mixture] = []
    for split, (part, utterances) in splits.items():
        for utterance in utterances:
            for environment in _environments_of(utterance, part, config, seed):
                copy = _copy_of(utterance, environment)
                if environment != CLEAN:
                    file = f"{split}/{utterance.speaker}/{copy.id}.flac"
                    own = tuple(clips[environment][part])
                    mixtures.append(_Mixture(utterance, environment, own, config.snr_decibels, file))
                    copy = replace(copy, audio=folder / file, start=0.0, channel=None)
                copies[split].append(copy)
    with atomic_folder(folder) as temporary, Executor(processes) as executor:
        written = executor.map(partial(_record, temporary), mixtures)
        for _ in progress(written, "adding noise", len(mixtures)):
            pass
    return copies


def check_clips(config: NoiseConfig) -> None:
    """Refuse noises that cannot be used, as far as that is seen without opening clips.

    Raises:
        CorpusError: ``noise.tsv`` is missing or malformed, a class or a clip is missing, or a class has too few clips.
    """
    for name, paths in _clips_by_class(config).items():
        missing = [path for path in paths if not path.is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise CorpusError(
                f"{config.dir / TABLE_FILE}: clip of {name}: {missing[0]}{more}: no such file; correct the table"
            )
        part_clips(name, paths)


def clip_paths(config: NoiseConfig) -> list[Path]:
    """The clips of all classes that the configuration names, not opened.

    Raises:
        CorpusError: ``noise.tsv`` is missing or malformed, or a class is not in it.
    """
    return [path for paths in _clips_by_class(config).values() for path in paths]


def read_clips(config: NoiseConfig) -> dict[str, list[Path]]:
    """The clips of each class that the configuration names, sorted, every one decoded once.

    Raises:
        CorpusError: ``noise.tsv`` is missing or malformed, a class is not in it, or a clip cannot be used.
    """
    table = config.dir.absolute() / TABLE_FILE
    clips = _clips_by_class(config)
    for name, paths in clips.items():
        for path in paths:
            try:
                silent = is_silent(read_native(_whole(path))[0])
            except AudioError as error:
                raise CorpusError(f"{table}: clip of {name}: {error}; or take its line out") from error
            if silent:
                raise CorpusError(f"{table}: clip of {name}: {path}: digital silence; take its line out")
    return clips


def part_clips(name: str, clips: Sequence[Path]) -> dict[Part, list[Path]]:
    """Divide the clips of a class among training (a half), test (a third) and held-out utterances (a sixth).

    Takes of one recording stay together. Recordings with the most takes come first; each goes to the part with the
    fewest clips relative to its fraction. The result depends only on the names.

    Args:
        name: Name of the class, for the message.
        clips: Clips of the class.

    Raises:
        CorpusError: Fewer recordings than parts.
    """
    recordings: dict[str, list[Path]] = {}
    for path in sorted(clips):
        recordings.setdefault(_TAKE.sub("", path.stem), []).append(path)
    if len(recordings) < len(PART_SHARES):
        raise CorpusError(
            f"noise class {name}: {len(clips)} clips of {len(recordings)} recordings, expected three recordings at "
            "least, since training, held-out and test utterances must not share any; add clips, or leave the class out"
        )
    parts: dict[Part, list[Path]] = {part: [] for part in PART_SHARES}
    for takes in sorted(recordings.values(), key=lambda takes: (-len(takes), takes[0])):
        # An empty part is the least full, so that none stays empty.
        parts[min(parts, key=lambda part: len(parts[part]) / PART_SHARES[part])] += takes
    return parts


def mix(speech: np.ndarray, noise: np.ndarray, snr_decibels: float) -> np.ndarray:
    """Speech with noise at a signal-to-noise ratio, scaled down together if it would clip.

    Args:
        speech: Samples, shape (N,).
        noise: Samples, shape (N,).
        snr_decibels: Signal-to-noise ratio of the result.

    Returns:
        float32 (N,), within -0.99 to 0.99.

    Raises:
        AudioError: One of the two is digital silence.
    """
    speech_power, noise_power = (float(np.mean(np.square(part, dtype=np.float64))) for part in (speech, noise))
    if not speech_power or not noise_power:
        raise AudioError(f"the {'noise' if speech_power else 'speech'} is digital silence, it has no level")
    scale = np.sqrt(speech_power / noise_power / 10 ** (snr_decibels / 10))
    mixture = speech + scale * noise
    peak = float(np.abs(mixture).max())
    return np.asarray(mixture * min(1.0, HIGHEST_PEAK / peak), np.float32)


def stretch(noise: np.ndarray, samples: int, position: float) -> np.ndarray:
    """A number of samples of a clip: cut from a longer clip, repeated from a shorter one.

    Args:
        noise: Samples of the clip, shape (M,).
        samples: Number of samples, N.
        position: Position of the first sample, from 0 to below 1, as a fraction of the possible ones.

    Returns:
        Shape (N,).
    """
    if samples <= len(noise):
        first = int(position * (len(noise) - samples + 1))
        return noise[first : first + samples]
    return np.take(noise, int(position * len(noise)) + np.arange(samples), mode="wrap")


def _clips_by_class(config: NoiseConfig) -> dict[str, list[Path]]:
    """The rows of ``noise.tsv`` for the configured classes; each class sorted."""
    table = config.dir.absolute() / TABLE_FILE
    rows = [line.split("\t") for _, line in read_lines(table)]
    if not rows or not {"path", "class"} <= set(rows[0]):
        raise CorpusError(f"{table}:1: expected a line of column names, path and class among them")
    path_column, class_column = rows[0].index("path"), rows[0].index("class")
    clips: dict[str, list[Path]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(path_column, class_column):
            raise CorpusError(f"{table}:{number}: expected {len(rows[0])} fields, found {len(row)}")
        clips.setdefault(row[class_column], []).append(table.parent / row[path_column])
    missing = [name for name in config.classes if name not in clips]
    if missing:
        raise CorpusError(f"{table}: no class {', '.join(missing)}; it has {', '.join(sorted(clips))}")
    return {name: sorted(clips[name]) for name in config.classes}


def _environments_of(utterance: Utterance, part: Part, config: NoiseConfig, seed: int) -> Sequence[str]:
    if part != "training":
        return config.environments
    drawn = random.Random(f"{seed} {utterance.id}").sample(config.environments, config.training_conditions)
    return sorted(drawn, key=config.environments.index)


def _copy_of(utterance: Utterance, environment: str) -> Utterance:
    if utterance.environment:
        raise CorpusError(
            f"utterance {utterance.id} was recorded in the environment {utterance.environment!r}, it cannot be put "
            "into others; leave out noise:, or the corpus's own environments"
        )
    name = f"{utterance.id}.{environment}"
    if reason := unsafe_name(name):
        raise CorpusError(f"the utterance id {name!r} cannot become a file name: {reason}; shorten {utterance.id!r}")
    return replace(utterance, id=name, environment=environment)


def _record(folder: Path, mixture: _Mixture) -> None:
    """Write one noisy copy."""
    utterance, path = mixture.utterance, folder / mixture.file
    generator = random.Random(f"{utterance.id} {mixture.environment}")
    clip = generator.choice(mixture.clips)
    position, decibels = generator.random(), generator.uniform(*mixture.snr_decibels)
    sample_rate = probe(utterance.audio).sample_rate
    speech = read_audio(utterance, sample_rate)
    noise = stretch(read_audio(_whole(clip), sample_rate), len(speech), position)
    try:
        samples = mix(speech, noise, decibels)
    except AudioError as error:
        raise AudioError(
            f"{utterance.audio} with {clip}: {error}; leave the utterance out, or take the clip out of {TABLE_FILE}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    # Through memory, since libsndfile does not say that a disk is full.
    encoded = io.BytesIO()
    what = f"{utterance.audio}: cannot be copied as FLAC at {sample_rate} Hz"
    with foreign_errors(AudioError, what, "leave the utterance out, or convert it to 16 kHz"):
        soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16")
    path.write_bytes(encoded.getvalue())


def _whole(clip: Path) -> Utterance:
    return Utterance(clip.stem, "", "", clip, 0.0, probe(clip).seconds, "")
