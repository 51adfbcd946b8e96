"""One person's recordings, cut at pauses, and the features of the pieces, normalised together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.audio.levels import Levels, levels
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.features.filterbank import compute_features
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.recognizer.model_folder import ModelDescription
from lhuc_asr.recognizer.pauses import cut, has_speech
from lhuc_asr.recognizer.recordings import Recording

logger = logging.getLogger(__name__)


Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Speech:
    """The pieces of one person's recordings that contain speech.

    Attributes:
        pieces: The pieces, recording after recording, each at most as long as ``ModelDescription`` allows, unless
            recordings are left whole.
        recording_of: Name of the recording that each piece comes from, by the piece's id.
        features: Normalised features of the pieces.
        cmvn: Mean and deviation that the features were normalised with.
        left_out: Beginning and end in seconds of what was left out of each recording as silence or steady noise, by
            the recording's name; () where nothing was.
    """

    pieces: tuple[Utterance, ...]
    recording_of: dict[str, str]
    features: FeatureTable
    cmvn: Cmvn
    left_out: dict[str, Spans]


def read_speech(
    recordings: Sequence[Recording],
    model: ModelDescription,
    speaker: str,
    cmvn: Cmvn | None = None,
    *,
    whole: bool = False,
    channel: int | None = None,
) -> Speech | None:
    """Cut recordings and compute their features.

    Args:
        recordings: Recordings of one person.
        model: Description of the model, with the options of the features and the maximum lengths of pieces.
        speaker: Name of the person.
        cmvn: Mean and deviation to normalise with; None to estimate them from these recordings.
        whole: Whether recordings are left whole, however long they are.
        channel: Number of the channel to take, from 1; None for the mean of all, or for the loudest channel where the
            channels cancel.

    Returns:
        The speech; None if no recording contains any.

    Raises:
        AudioError: A recording is damaged, or lacks the channel.
    """
    pieces: list[tuple[Utterance, int | None]] = []
    recording_of: dict[str, str] = {}
    left_out: dict[str, Spans] = {}
    for recording in recordings:
        level = levels(recording.path, channel)
        spoken, silent = _pieces(recording, level, model, speaker, whole)
        left_out[recording.name] = silent
        _warn(recording, level.channel if channel is None else None, bool(spoken), silent)
        if recording.info.sample_rate < model.features.sample_rate:
            logger.warning(
                "%s: %d Hz, but the model was trained at %d Hz; the higher frequencies are missing; expect more errors",
                recording.path,
                recording.info.sample_rate,
                model.features.sample_rate,
            )
        pieces += [(piece, level.channel) for piece in spoken]
        recording_of |= {piece.id: recording.name for piece in spoken}
    if not pieces:
        return None
    values = [
        compute_features(read_audio(piece, model.features.sample_rate, taken), model.features)
        for piece, taken in progress(pieces, "features")
    ]
    if cmvn is None:
        statistics = CmvnAccumulator(model.features.dimension)
        for features in values:
            statistics.add(features)
        cmvn = statistics.estimate()
    ends = np.cumsum([len(features) for features in values]).tolist()
    stored = [
        StoredUtterance(piece.id, speaker, end - len(features), len(features))
        for (piece, _), features, end in zip(pieces, values, ends, strict=True)
    ]
    table = FeatureTable(stored, np.concatenate([cmvn.apply(features) for features in values]))
    return Speech(tuple(piece for piece, _ in pieces), recording_of, table, cmvn, left_out)


def _pieces(
    recording: Recording, level: Levels, model: ModelDescription, speaker: str, whole: bool
) -> tuple[list[Utterance], Spans]:
    """The pieces of a recording that contain speech, and the beginnings and ends of what does not, in seconds."""
    cuts = [(0, len(level.power))]
    if not whole and recording.info.seconds > model.whole_seconds:
        cuts = cut(level.power, model.piece_seconds)
    pieces: list[Utterance] = []
    silent: list[tuple[float, float]] = []
    for number, ((first, end), spoken) in enumerate(zip(cuts, has_speech(level.power, cuts), strict=True), start=1):
        start, stop = first * level.seconds, min(end * level.seconds, recording.info.seconds)
        if spoken:
            name = recording.name if len(cuts) == 1 else f"{recording.name} {number}"
            pieces.append(Utterance(name, speaker, "", recording.path, start, stop - start, ""))
        elif silent and silent[-1][1] == start:
            silent[-1] = (silent[-1][0], stop)
        else:
            silent.append((start, stop))
    return pieces, tuple(silent)


def _warn(recording: Recording, taken: int | None, spoken: bool, silent: Spans) -> None:
    """Say what of a recording is not used."""
    if taken is not None:
        logger.warning(
            "%s: its channels cancel when they are mixed; channel %d is taken (--channel takes another)",
            recording.path,
            taken,
        )
    if not spoken:
        logger.warning("%s: no speech found, only silence or steady noise", recording.path)
    elif silent:
        logger.warning(
            "%s: left out as silence or steady noise: %s",
            recording.path,
            ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in silent),
        )
