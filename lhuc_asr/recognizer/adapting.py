"""Adaptation to the speakers of a corpus: some at a time, each normalised and adapted on their own recordings.

Speakers who adapt together get the parameters that each gets alone, to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.audio.voice_activity import VoiceActivity
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lang.coverage import warn_of_unknown_words
from lhuc_asr.lhuc.speaker import check_speaker_name
from lhuc_asr.recognizer.condition import faults
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.matching import with_transcripts
from lhuc_asr.recognizer.passes import Passes
from lhuc_asr.recognizer.recordings import OnBad, Recording, usable
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speaker_corpus import transcripts_of
from lhuc_asr.recognizer.speech import CutRecording, Speech, cut_all, joined, read_speech, speech_statistics
from lhuc_asr.recognizer.verdict import Verdict, unadapted, verdicts

logger = logging.getLogger(__name__)

# Speech of the speakers who adapt together: half an hour has 30 MB of features.
SECONDS_TOGETHER = 1800.0

Transcripts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Adaptation:
    """A speaker, and what their parameters were estimated on.

    Attributes:
        speaker: The speaker.
        recordings: Recordings that were used.
        seconds: Length of their pieces with speech.
        words: Number of words of the first pass, or of the transcripts.
        believed: Number of these words whose confidence is enough to adapt to them.
        moved: Root mean square of xi(r) - xi(r_0) over the hidden units, where r_0 is the speaker-independent row; None
            for methods without amplitudes.
        verdict: Whether adaptation hurts the speaker, who has the unadapted parameters if it does; None where that was
            not asked for, or cannot be told.
    """

    speaker: Speaker
    recordings: int
    seconds: float
    words: int
    believed: int
    moved: float | None
    verdict: Verdict | None = None

    @property
    def kept_unadapted(self) -> bool:
        """Whether the speaker has the unadapted parameters, since adaptation hurts."""
        return self.verdict is not None and self.verdict.hurts


@dataclass(frozen=True)
class _Heard:
    """A speaker's recordings without those that cannot be used, and their features' statistics."""

    parts: Sequence[CutRecording]
    cmvn: Mapping[FeatureConfig, Cmvn]

    @property
    def seconds(self) -> float:
        return sum(piece.seconds for part in self.parts for piece in part.pieces)


def adaptations(
    model: LoadedModel,
    speakers: Mapping[str, Sequence[Recording]],
    transcripts: Transcripts | None,
    channel: int | None,
    detector: VoiceActivity | None,
    on_bad: OnBad,
    on_bad_speaker: OnBad,
    pool: SearchPool,
    *,
    judged: bool = False,
) -> Iterator[Adaptation]:
    """Adapt to speakers, in groups whose features fit into memory.

    Args:
        model: The model.
        speakers: Recordings of each speaker.
        transcripts: Words of each recording as the lexicon spells them; None for a first pass.
        channel: Number of the recordings' channel to take; None for the mean of all.
        detector: Detector of voice activity that finds pauses; None finds them by levels.
        on_bad: What happens to recordings that cannot be used.
        on_bad_speaker: What happens to speakers of whom nothing can be used.
        pool: Pool that searches the decoding graph.
        judged: Whether a speaker whom adaptation hurts is kept unadapted.
    """
    group: dict[str, _Heard] = {}
    for name, named in speakers.items():
        heard = None
        with usable(f"speaker {name!r}", on_bad_speaker):
            theirs = transcripts if transcripts is None or len(speakers) == 1 else transcripts_of(transcripts, named)
            heard = _heard(model, name, named, theirs, channel, detector, on_bad)
        if heard is None:
            continue
        if group and sum(each.seconds for each in group.values()) + heard.seconds > SECONDS_TOGETHER:
            yield from _adapted(model, group, transcripts, on_bad, on_bad_speaker, pool, judged=judged)
            group = {}
        group[name] = heard
    if group:
        yield from _adapted(model, group, transcripts, on_bad, on_bad_speaker, pool, judged=judged)


def _heard(
    model: LoadedModel,
    name: str,
    named: Sequence[Recording],
    transcripts: Transcripts | None,
    channel: int | None,
    detector: VoiceActivity | None,
    on_bad: OnBad,
) -> _Heard:
    check_speaker_name(name)
    kept, options, whole = list(named), model.description, transcripts is not None
    if transcripts is not None:
        kept = with_transcripts(named, transcripts, on_bad)
        warn_of_unknown_words("transcripts", (transcripts[each.name] for each in kept), model.lexicon)
    parts = list(cut_all(kept, options, name, whole=whole, channel=channel, detector=detector, on_bad=on_bad))
    kinds = {each.features for each in options.chain(options.with_speaker)}
    cmvn, parts = speech_statistics(parts, kinds, on_bad=on_bad)
    if not parts:
        raise CorpusError(
            f"speaker {name!r}: none of {len(named)} recordings can be used; the log has the reason of each"
        )
    for fault in faults({part.recording.title: part.condition for part in parts if part.pieces}):
        logger.warning("%s", fault)
    if cmvn is None:
        raise AudioError(f"speaker {name!r}: no speech found in the recordings; there is nothing to adapt to")
    return _Heard(parts, cmvn)


def _adapted(
    model: LoadedModel,
    group: Mapping[str, _Heard],
    transcripts: Transcripts | None,
    on_bad: OnBad,
    on_bad_speaker: OnBad,
    pool: SearchPool,
    *,
    judged: bool,
) -> Iterator[Adaptation]:
    """Adapt to the speakers of a group together."""
    speeches = {name: read_speech(heard.parts, name, heard.cmvn) for name, heard in group.items()}
    last = model.description.with_speaker
    passes = Passes(model, joined(list(speeches.values())), pool, transcripts, on_bad)
    made = passes[last.name]
    adapted = made.adapted
    confidences = {} if made.source is None else made.source.words.confidences
    told = verdicts(passes, made) if judged else {}
    neutral = unadapted(model.description, adapted) if any(verdict.hurts for verdict in told.values()) else adapted
    for name, heard in group.items():
        adaptation, verdict = None, told.get(name)
        with usable(f"speaker {name!r}", on_bad_speaker):
            of_pieces = {piece.id: confidences[piece.id] for piece in speeches[name].pieces if piece.id in confidences}
            _check_words(name, of_pieces, transcripts)
            kept = neutral if verdict is not None and verdict.hurts else adapted
            speaker = Speaker(name, model.description.network, kept, heard.cmvn[last.features])
            adaptation = _summary(speaker, speeches[name], of_pieces, made.targets.min_confidence, verdict)
        if adaptation is not None:
            yield adaptation


def _check_words(name: str, confidences: Mapping[str, Sequence[float]], transcripts: Transcripts | None) -> None:
    """Refuse a speaker without a word to adapt to, so that no earlier file of theirs is lost for it."""
    if transcripts is not None and not confidences:
        raise CorpusError(
            f"speaker {name!r}: no recording fits its transcript; give the transcripts of these recordings"
        )
    # A method that learns from features alone does not ask for the words, and has none.
    if confidences and not any(confidences.values()):
        raise AudioError(f"speaker {name!r}: no word found in the recordings; there is nothing to adapt to")


def _summary(
    speaker: Speaker,
    speech: Speech,
    confidences: Mapping[str, Sequence[float]],
    enough: float,
    verdict: Verdict | None,
) -> Adaptation:
    """A speaker, and the pieces that were adapted to: all, or those whose words are known."""
    pieces = [piece for piece in speech.pieces if not confidences or piece.id in confidences]
    of_words = [confidence for piece in pieces for confidence in confidences.get(piece.id, ())]
    believed = sum(confidence >= enough for confidence in of_words)
    recordings = len({speech.recording_of[piece.id] for piece in pieces})
    seconds = sum(piece.seconds for piece in pieces)
    moved = amplitude_change(speaker.adapted, speaker.name)
    return Adaptation(speaker, recordings, seconds, len(of_words), believed, moved, verdict)


def amplitude_change(adapted: AdaptedSpeakers, speaker: str) -> float | None:
    """Root mean square of xi(r) - xi(r_0) over the hidden units; None for methods without amplitudes."""
    if isinstance(adapted, Stacked):
        return amplitude_change(adapted.above, speaker)
    if not isinstance(adapted, Amplitudes):
        return None
    bank = adapted.bank
    row = bank.rows_of([speaker])
    with torch.no_grad():
        changes = [bank.xi(site.name, row)[0] - bank.xi(site.name, 0 * row)[0] for site in bank.sites]
    return float(torch.cat(changes).double().square().mean().sqrt())
