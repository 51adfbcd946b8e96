"""Alignment of known words: the recipe's own, and what it says of words that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.errors import AudioError, CorpusError, LhucError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.phones import SILENCE
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.transcripts import reference_pdfs
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker

Interval = tuple[str, int, int]


def phones_of(pdfs: np.ndarray, topology: MonophoneTopology) -> Iterator[Interval]:
    """The phones of an alignment without silence, with their first frame and the frame after their last.

    Every state of a monophone has a pdf of its own, and every phone begins with its first one.
    """
    first_of = topology.first_pdf
    starts = [0, *(t for t in range(1, len(pdfs)) if pdfs[t] != pdfs[t - 1] and pdfs[t] in first_of.values())]
    for start, end in zip(starts, [*starts[1:], len(pdfs)], strict=True):
        phone = next(phone for phone, first in first_of.items() if first == pdfs[start])
        if phone != SILENCE:
            yield phone, start, end


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_it_is_the_recipes_own_alignment(split: str, finished: Path, recognizer: Recognizer) -> None:
    """By the same network, for every frame of every recording, each speaker's recordings given at once."""
    _, experiment = read_experiment(finished)
    expected = reference_pdfs(experiment, split, ModelPlace(), experiment.network("si"), 0.0)
    topology = experiment.topology
    assert isinstance(topology, MonophoneTopology)
    speakers: dict[str, list[Utterance]] = {}
    for utterance in read_manifest(finished / "corpus" / f"{split}.jsonl"):
        speakers.setdefault(utterance.speaker, []).append(utterance)
    compared = 0
    for said in speakers.values():
        words = {u.audio.stem: u.words for u in said}
        ids = {u.audio.stem: u.id for u in said}
        for aligned in recognizer.align([u.audio for u in said], words):
            phones = [
                (each.phone, round(each.start / FRAME_SHIFT_SECONDS), round(each.end / FRAME_SHIFT_SECONDS))
                for each in aligned.phones
            ]
            assert phones == list(phones_of(expected[ids[aligned.recording]], topology))
            assert tuple(word.word for word in aligned.words) == words[aligned.recording]
            compared += 1
    assert compared == len(expected) > 0


def test_words_are_made_of_their_phones(
    finished: Path, recognizer: Recognizer, alice: Speaker, audio: Path, known: dict[str, tuple[str, ...]]
) -> None:
    for person in (None, alice):
        spoken = {name: words for name, words in known.items() if words}
        (first, *_) = recognizer.align(audio, spoken, person, on_bad=[].append)
        phones = list(first.phones)
        for word in first.words:
            said = []
            while phones and phones[0].end <= word.end + 1e-6:
                said.append(phones.pop(0))
            assert (said[0].start, said[-1].end) == pytest.approx((word.start, word.end))
            assert tuple(phone.phone for phone in said) in recognizer._model.lexicon.pronunciations[word.word]
            assert word.confidence == 1.0
        assert not phones
        assert first.speaker == ("" if person is None else "2001")


def test_a_speakers_alignment_is_with_their_amplitudes(
    recognizer: Recognizer, alice: Speaker, audio: Path, known: dict[str, tuple[str, ...]]
) -> None:
    name = max(known, key=lambda each: len(known[each]))
    path = next(path for path in audio.iterdir() if path.stem == name)
    (plain,), (adapted,) = (list(recognizer.align(path, {name: known[name]}, person)) for person in (None, alice))
    assert [word.word for word in plain.words] == [word.word for word in adapted.words]
    assert plain.phones != adapted.phones


def test_what_cannot_be_aligned_is_told(recognizer: Recognizer, audio: Path) -> None:
    path, other = sorted(audio.iterdir())[:2]
    word = min(recognizer.vocabulary)
    for words, error, message in (
        ("XYZZY", CorpusError, "not in the lexicon"),
        ("", CorpusError, "its transcript has no words"),
        (" ".join([word] * 500), CorpusError, "too short for its transcript"),
    ):
        with pytest.raises(error, match=message):
            list(recognizer.align(path, {path.stem: words}))
    problems: list[LhucError] = []
    (aligned,) = recognizer.align([path, other], {path.stem: word, other.stem: "XYZZY"}, on_bad=problems.append)
    assert aligned.recording == path.stem
    assert [str(problem).split(":")[0] for problem in problems] == [str(other)]


def test_silence_has_no_words_in_it(recognizer: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000), 16000)
    with pytest.raises(AudioError, match=r"quiet\.wav: no speech found"):
        list(recognizer.align(tmp_path / "quiet.wav", {"quiet": min(recognizer.vocabulary)}))
