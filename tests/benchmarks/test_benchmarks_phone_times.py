"""The comparison of alignments with the synthesizer's times, benchmarks/phone_times.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.espeak import SpokenPhone
from lhuc_asr.corpus.voices import Said
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.transcript import Phone, Transcript, Word

Script = Callable[[str], ModuleType]


def transcript_of(words: list[Word], phones: list[Phone]) -> Transcript:
    return Transcript("x", "x.flac", 1.0, words, [], None, "", phones)


def test_equal_phones_and_the_sides_of_words_are_compared(script: Script) -> None:
    """ "On the" is said as one word; the voice says an L after "the", and a vowel with it, that the lexicon has not."""
    said = Said(
        "ON THE SEA",
        np.zeros(16000, np.float32),
        (
            SpokenPhone("ɔ", 0, 0.10, 0.20),
            SpokenPhone("n", 0, 0.20, 0.25),
            SpokenPhone("ð", 0, 0.25, 0.30),
            SpokenPhone("əl", 0, 0.30, 0.40),
            SpokenPhone("s", 7, 0.45, 0.55),
            SpokenPhone("ˈiː", 7, 0.55, 0.70),
        ),
    )
    aligned = transcript_of(
        [Word("ON", 0.11, 0.22, 1.0), Word("THE", 0.22, 0.41, 1.0), Word("SEA", 0.41, 0.73, 1.0)],
        [
            Phone("AO_B", 0.11, 0.2),
            Phone("N_E", 0.20, 0.22),
            Phone("DH_B", 0.22, 0.3),
            Phone("IY_E", 0.3, 0.41),  # THE as in "the apple": not the vowel that was said
            Phone("S_B", 0.41, 0.6),
            Phone("IY_E", 0.6, 0.73),
        ],
    )
    differences = [(each.what, each.milliseconds) for each in script("phone_times").compared(said, aligned)]
    phones = [("vowels", 10), ("nasals", 0), ("fricatives, affricates", -30), ("fricatives, affricates", -40)]
    words = [("word begins", 10), ("word ends", 10), ("word begins", -40), ("word ends", 30)]
    expected = [*phones, ("vowels", 50), *words]
    assert [what for what, _ in differences] == [what for what, _ in expected]
    assert [ms for _, ms in differences] == pytest.approx([ms for _, ms in expected])


def test_a_lag_is_told_apart_from_the_rest(script: Script) -> None:
    assert script("phone_times").row("x", np.array([-30.0, -10.0, -8.0])) == ["x", "3", "10.0", "67 %", "-10.0", "2.0"]


def test_a_small_model_finds_the_phones_of_its_training_voices(script: Script, finished: Path, tmp_path: Path) -> None:
    phone_times = script("phone_times")
    pairs = list(phone_times.aligned(finished, load(finished), "train", adapted=False))
    assert len(pairs) == 36
    differences = [each for said, transcript in pairs for each in phone_times.compared(said, transcript)]
    title, *rows = phone_times.table_rows("train", differences)
    assert title[0] == "train"
    (phones,) = (row for row in rows if row[0].strip() == "all phones")
    assert int(phones[1]) > 36 * 10
    assert float(phones[2]) < 20
    late = [(replace(said, phones=moved(said.phones, 0.1)), transcript) for said, transcript in pairs]
    wrong = [each.milliseconds for pair in late for each in phone_times.compared(*pair)]
    right = [each.milliseconds for each in differences]
    assert np.array(right) - wrong == pytest.approx(np.full(len(right), 100.0))
    phone_times.draw(*pairs[0], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def moved(phones: tuple[SpokenPhone, ...], seconds: float) -> tuple[SpokenPhone, ...]:
    return tuple(replace(phone, start=phone.start + seconds, end=phone.end + seconds) for phone in phones)


def test_recordings_of_other_voices_are_refused(script: Script, copied: Path) -> None:
    (first, *_) = sorted(copied.glob("voices-*/test/2001/1/*.flac"))
    samples, rate = soundfile.read(first)
    soundfile.write(first, samples[::-1], rate)
    with pytest.raises(CorpusError, match=r"is not what this voice says; make the experiment again"):
        script("phone_times").main(copied, None)
