"""One person's recordings, cut at pauses, and the features of the pieces, normalised together.

Three steps, so that a thousand recordings need not be in memory at once: ``cut_at_pauses`` finds the pieces of each
recording, ``speech_statistics`` goes through all pieces for the mean and deviation of the features, ``read_speech``
computes the features of some of the recordings.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lhuc_asr.audio.levels import Levels, levels
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.audio.voice_activity import VoiceActivity
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.recognizer.condition import Condition
from lhuc_asr.recognizer.model_folder import ModelDescription
from lhuc_asr.recognizer.pauses import between, cut, has_speech, holds
from lhuc_asr.recognizer.recordings import OnBad, Recording, usable
from lhuc_asr.recognizer.transcript import Phone, Span, Transcript, Word

logger = logging.getLogger(__name__)

# Parts without speech that one line of the log names.
NAMED = 10


@dataclass(frozen=True)
class CutRecording:
    """A recording and its pieces.

    Attributes:
        recording: The recording.
        pieces: The pieces that contain speech, each at most as long as ``ModelDescription`` allows, unless the
            recording is left whole.
        left_out: The other parts of the recording, in the order of their times.
        channel: Number of the channel that was taken, from 1; None for the mean of all.
        condition: How loud it is, whether it is clipped, how much of it is speech; of a part, that of its whole file.
    """

    recording: Recording
    pieces: tuple[Utterance, ...]
    left_out: tuple[Span, ...]
    channel: int | None
    condition: Condition

    def transcript(self, words: Iterable[Word], speaker: str, phones: Iterable[Phone] = ()) -> Transcript:
        """The transcript of the recording."""
        recording = self.recording
        return Transcript(
            recording.name,
            Path(recording.source),
            recording.info.seconds,
            tuple(words),
            self.left_out,
            self.channel,
            speaker,
            tuple(phones),
        )


@dataclass(frozen=True)
class Speech:
    """The pieces of some persons' recordings that contain speech.

    Attributes:
        pieces: The pieces, recording after recording.
        recording_of: Name of the recording that each piece comes from, by the piece's id.
        features: Normalised features of the pieces, of each kind that the model's passes take.
    """

    pieces: tuple[Utterance, ...]
    recording_of: dict[str, str]
    features: dict[FeatureConfig, FeatureTable]


def cut_at_pauses(
    recording: Recording,
    model: ModelDescription,
    speaker: str,
    *,
    whole: bool = False,
    channel: int | None = None,
    level: Levels | None = None,
    detector: VoiceActivity | None = None,
) -> CutRecording:
    """Cut a recording into pieces; the log names the seconds that are left out.

    Args:
        recording: The recording.
        model: Description of the model, with the sample rate and the maximum lengths of pieces.
        speaker: Name of the person.
        whole: Whether the recording is left whole, however long it is.
        channel: Number of the channel to take, from 1; None for the mean of all, or for the loudest channel where the
            channels cancel.
        level: Levels of the whole file, where they are known.
        detector: Detector of voice activity, whose pauses a recording that is longer than the model's utterances is cut
            at; None cuts by levels.

    Raises:
        AudioError: The recording is damaged, or lacks the channel.
    """
    level = level or levels(recording.path, channel)
    is_cut = not whole and recording.seconds > model.whole_seconds
    detector = detector if is_cut else None
    pieces, left_out = _pieces(recording, level, speaker, model.piece_seconds if is_cut else None, detector)
    nothing = "silence or steady noise" if detector is None else "sound without speech"
    if channel is None and level.channel is not None:
        logger.warning(
            "%s: its channels cancel when they are mixed; channel %d is taken (--channel takes another)",
            recording.title,
            level.channel,
        )
    if not pieces:
        logger.warning("%s: no speech found, only %s%s", recording.title, nothing, _other(recording, channel))
    elif left_out:
        spans = ", ".join(f"{span.start:.1f}-{span.end:.1f} s" for span in left_out[:NAMED])
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        logger.warning("%s: left out as %s: %s%s", recording.title, nothing, spans, more)
    if recording.info.sample_rate < model.features.sample_rate:
        logger.warning(
            "%s: %d Hz, but the model was trained at %d Hz; the higher frequencies are missing; expect more errors",
            recording.title,
            recording.info.sample_rate,
            model.features.sample_rate,
        )
    return CutRecording(recording, tuple(pieces), tuple(left_out), level.channel, Condition.of(level))


def cut_all(
    recordings: Iterable[Recording],
    model: ModelDescription,
    speaker: str,
    *,
    whole: bool = False,
    channel: int | None = None,
    detector: VoiceActivity | None = None,
    on_bad: OnBad = None,
) -> Iterator[CutRecording]:
    """One person's recordings, cut at pauses when they are asked for, without those that are damaged.

    The levels of a file are found once for parts of it that follow each other. The channel of a recording is the one
    that is asked for; else the one that its corpus names.
    """
    heard, level = None, None
    for recording in recordings:
        with usable(recording.title, on_bad, recording.path):
            taken = recording.channel if channel is None else channel
            if level is None or recording.part is None or (recording.path, taken) != heard:
                heard, level = (recording.path, taken), levels(recording.path, taken)
            part = cut_at_pauses(recording, model, speaker, whole=whole, channel=taken, level=level, detector=detector)
            yield part


def speech_statistics(
    recordings: Sequence[CutRecording], kinds: Collection[FeatureConfig], *, on_bad: OnBad = None
) -> tuple[dict[FeatureConfig, Cmvn] | None, list[CutRecording]]:
    """Mean and deviation of the features of all pieces, of which one is in memory at a time.

    Args:
        recordings: One person's recordings.
        kinds: Kinds of features.
        on_bad: What happens to recordings that are damaged.

    Returns:
        The statistics of each kind, None if no recording contains speech; and the recordings that are not damaged.

    Raises:
        AudioError: A recording is damaged, and ``on_bad`` is None.
    """
    statistics, kept = {kind: CmvnAccumulator(kind.dimension) for kind in kinds}, []
    for each in progress(recordings, "features"):
        extended = copy.deepcopy(statistics)  # the pieces of a recording count all or not at all
        with usable(each.recording.title, on_bad, each.recording.path):
            for piece in each.pieces:
                for kind, accumulator in extended.items():
                    accumulator.add(_features(piece, kind))
            statistics = extended
            kept.append(each)
    if not any(each.pieces for each in kept):
        return None, kept
    return {kind: accumulator.estimate() for kind, accumulator in statistics.items()}, kept


def read_speech(recordings: Sequence[CutRecording], speaker: str, cmvn: Mapping[FeatureConfig, Cmvn]) -> Speech:
    """The features of all pieces of some recordings.

    Args:
        recordings: One person's recordings, with a piece at least.
        speaker: Name of the person.
        cmvn: Kinds of features, each with the mean and deviation to normalise with.

    Raises:
        AudioError: A recording is damaged.
    """
    pieces = tuple(piece for each in recordings for piece in each.pieces)
    recording_of = {piece.id: each.recording.name for each in recordings for piece in each.pieces}
    features = {}
    for kind, statistics in cmvn.items():
        values = {piece.id: statistics.apply(_features(piece, kind)) for piece in pieces}
        features[kind] = feature_table(values, speaker)
    return Speech(pieces, recording_of, features)


def feature_table(values: Mapping[str, np.ndarray], speaker: str) -> FeatureTable:
    """The features of a person's utterances, by their ids, in one table."""
    ends = np.cumsum([len(features) for features in values.values()]).tolist()
    stored = [
        StoredUtterance(name, speaker, end - len(features), len(features))
        for (name, features), end in zip(values.items(), ends, strict=True)
    ]
    return FeatureTable(stored, np.concatenate(list(values.values())))


def joined(speeches: Sequence[Speech]) -> Speech:
    """The speech of several persons together; the names of all recordings differ."""
    recording_of = {piece: name for speech in speeches for piece, name in speech.recording_of.items()}
    pieces = tuple(piece for speech in speeches for piece in speech.pieces)
    kinds = speeches[0].features
    return Speech(pieces, recording_of, {kind: _joined([each.features[kind] for each in speeches]) for kind in kinds})


def _joined(tables: Sequence[FeatureTable]) -> FeatureTable:
    utterances: list[StoredUtterance] = []
    frames = 0
    for table in tables:
        utterances += [replace(stored, first=frames + stored.first) for stored in table.utterances]
        frames += table.frames
    return FeatureTable(utterances, np.concatenate([table.array for table in tables]))


def _other(recording: Recording, channel: int | None) -> str:
    """What may help where no speech is found."""
    count = recording.info.channels
    return f"; --channel takes one of its {count} channels" if count > 1 and channel is None else ""


def _features(piece: Utterance, kind: FeatureConfig) -> np.ndarray:
    """Features of a piece, shape (T, D), not normalised."""
    return compute_features(read_audio(piece, kind.sample_rate), kind)


def _pieces(
    recording: Recording,
    level: Levels,
    speaker: str,
    longest_seconds: float | None,
    detector: VoiceActivity | None,
) -> tuple[list[Utterance], list[Span]]:
    """The pieces of a recording that contain speech, and the parts that do not; cut if a longest length is given."""
    begin, finish = recording.span.start, recording.span.end
    power = level.power[math.floor(begin / level.seconds) : math.ceil(finish / level.seconds)]
    if longest_seconds is not None and detector is not None:
        heard = detector.parts(recording.path, begin, recording.seconds, level.channel)
        frames = [(math.floor(first / level.seconds), math.ceil(end / level.seconds)) for first, end in heard]
        parts = [(first, min(end, len(power))) for first, end in frames]
        cuts = cut(power, longest_seconds, between(parts, len(power)))
        with_speech = holds(parts, cuts)
    else:
        cuts = [(0, len(power))] if longest_seconds is None else cut(power, longest_seconds)
        with_speech = has_speech(power, cuts)
    pieces: list[Utterance] = []
    silent: list[Span] = []
    for number, ((first, end), spoken) in enumerate(zip(cuts, with_speech, strict=True), start=1):
        start = begin + first * level.seconds
        stop = min(begin + end * level.seconds, finish) if number < len(cuts) else finish
        if spoken:
            name = recording.name if len(cuts) == 1 else f"{recording.name} {number}"
            pieces.append(Utterance(name, speaker, "", recording.path, start, stop - start, "", level.channel))
        elif silent and silent[-1].end == start:
            silent[-1] = Span(silent[-1].start, stop)
        else:
            silent.append(Span(start, stop))
    return pieces, silent
