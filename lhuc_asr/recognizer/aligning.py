"""Forced alignment of one person's recordings: the words that a user knows, and their phones, with times.

The pass that transcribes aligns, with the person's parameters if there are any. A word that the lexicon lacks is
aligned as ``<unk>`` where the lexicon has that, and keeps its spelling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lhuc_asr.base.errors import AudioError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import seconds_of
from lhuc_asr.lang.coverage import warn_of_unknown_words
from lhuc_asr.recognizer.decoding import Decoding, decoding_by, decoding_of
from lhuc_asr.recognizer.known_words import place_transcript
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.matching import with_transcripts
from lhuc_asr.recognizer.recordings import OnBad, Recording, usable
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speech import CutRecording, cut_all
from lhuc_asr.recognizer.transcript import Phone, Transcript, Word


def aligned(
    model: LoadedModel,
    named: Sequence[Recording],
    transcripts: Mapping[str, Sequence[str]],
    person: Speaker | None,
    channel: int | None,
    on_bad: OnBad,
) -> Iterator[Transcript]:
    """The words and the phones of each recording, with times; see ``Recognizer.alignments``."""
    spelled = model.spelled(transcripts)
    kept = with_transcripts(named, spelled, on_bad)
    warn_of_unknown_words("transcripts", (spelled[each.name] for each in kept), model.lexicon)
    name, decoding = "" if person is None else person.name, decoding_by(model, person)
    parts = list(cut_all(kept, model.description, name, whole=True, channel=channel, on_bad=on_bad))
    if decoding is None:
        decoding, parts = decoding_of(model, person, parts, spelled, on_bad)
    for part in progress(parts, "alignment") if len(parts) > 1 else parts:
        transcript = None
        with usable(part.recording.title, on_bad, part.recording.path):
            transcript = _aligned(model, part, spelled[part.recording.name], decoding, name)
        if transcript is not None:
            yield transcript


def _aligned(
    model: LoadedModel, part: CutRecording, transcript: Sequence[str], decoding: Decoding | None, speaker: str
) -> Transcript:
    title = part.recording.title
    if not part.pieces or decoding is None:  # nothing but silence has no decoding
        raise AudioError(f"{title}: no speech found, only silence or steady noise; leave the recording out")
    start, ((_, scores),) = part.pieces[0].start, decoding.scores(model, decoding.read(part))
    placed_words, placed = place_transcript(title, transcript, scores, model.lexicon, model.topology)
    times = [(start + seconds_of(first), start + seconds_of(end)) for first, end in placed.spans]
    phones = [
        Phone(phone.phone, start + seconds_of(phone.first), start + seconds_of(phone.end))
        for each in placed.phones
        for phone in each
    ]
    words = [Word(word, *span, 1.0) for word, span in zip(placed_words, times, strict=True)]
    return part.transcript(words, speaker, phones)
