"""One person's recordings, cut at pauses, and the features of the pieces, normalised together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.audio.levels import levels
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


@dataclass(frozen=True)
class Speech:
    """The pieces of one person's recordings that contain speech.

    Attributes:
        pieces: The pieces, recording after recording, each at most as long as ``ModelDescription`` allows, unless
            recordings are left whole.
        recording_of: Name of the recording that each piece comes from, by the piece's id.
        features: Normalised features of the pieces.
        cmvn: Mean and deviation that the features were normalised with.
    """

    pieces: tuple[Utterance, ...]
    recording_of: dict[str, str]
    features: FeatureTable
    cmvn: Cmvn


def read_speech(
    recordings: Sequence[Recording],
    model: ModelDescription,
    speaker: str,
    cmvn: Cmvn | None = None,
    *,
    whole: bool = False,
) -> Speech | None:
    """Cut recordings and compute their features.

    Args:
        recordings: Recordings of one person.
        model: Description of the model, with the options of the features and the maximum lengths of pieces.
        speaker: Name of the person.
        cmvn: Mean and deviation to normalise with; None to estimate them from these recordings.
        whole: Whether recordings are left whole, however long they are.

    Returns:
        The speech; None if no recording contains any.

    Raises:
        AudioError: A recording is damaged.
    """
    pieces: list[Utterance] = []
    recording_of: dict[str, str] = {}
    for recording in recordings:
        spoken = _pieces(recording, model, speaker, whole)
        if not spoken:
            logger.warning("%s: no speech found, only silence or steady noise", recording.path)
        if recording.info.sample_rate < model.features.sample_rate:
            logger.warning(
                "%s: %d Hz, but the model was trained at %d Hz; the higher frequencies are missing; expect more errors",
                recording.path,
                recording.info.sample_rate,
                model.features.sample_rate,
            )
        pieces += spoken
        recording_of |= {piece.id: recording.name for piece in spoken}
    if not pieces:
        return None
    values = [
        compute_features(read_audio(piece, model.features.sample_rate), model.features)
        for piece in progress(pieces, "features")
    ]
    if cmvn is None:
        statistics = CmvnAccumulator(model.features.dimension)
        for features in values:
            statistics.add(features)
        cmvn = statistics.estimate()
    ends = np.cumsum([len(features) for features in values]).tolist()
    stored = [
        StoredUtterance(piece.id, speaker, end - len(features), len(features))
        for piece, features, end in zip(pieces, values, ends, strict=True)
    ]
    table = FeatureTable(stored, np.concatenate([cmvn.apply(features) for features in values]))
    return Speech(tuple(pieces), recording_of, table, cmvn)


def _pieces(recording: Recording, model: ModelDescription, speaker: str, whole: bool) -> list[Utterance]:
    """The pieces of a recording that contain speech."""
    level, seconds = levels(recording.path)
    cuts = [(0, len(level))]
    if not whole and recording.info.seconds > model.whole_seconds:
        cuts = cut(level, model.piece_seconds)
    spoken = has_speech(level, cuts)
    pieces = []
    for number, (first, end) in enumerate(cuts, start=1):
        if spoken[number - 1]:
            start = first * seconds
            length = min(end * seconds, recording.info.seconds) - start
            name = recording.name if len(cuts) == 1 else f"{recording.name} {number}"
            pieces.append(Utterance(name, speaker, "", recording.path, start, length, ""))
    return pieces
