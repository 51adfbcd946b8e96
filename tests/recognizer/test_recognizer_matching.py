"""Known transcripts find their recordings, in whatever case and form they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from saved_speakers import state

from lhuc_asr.base.errors import (
    AudioError,
    CorpusError,
    LhucError,
)
from lhuc_asr.recognizer.recognizer import Recognizer

Words = dict[str, str]


def test_transcripts_must_belong_to_the_recordings(
    recognizer: Recognizer,
    audio: Path,
    known: dict[str, tuple[str, ...]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = min(known)
    with pytest.raises(CorpusError, match=f"no transcript for '{missing}'; add a line"):
        recognizer.adapt(audio, "x", {name: words for name, words in known.items() if name != missing})
    with pytest.raises(CorpusError, match="no recording fits its transcript; give the transcripts of these recordings"):
        recognizer.adapt(audio, "x", dict.fromkeys(known, ("XYZZY",)), on_bad=[].append)
    strangers = dict.fromkeys(("nobody", "somebody"), ("GO",))
    with pytest.raises(CorpusError, match="no transcript belongs to a recording: there are transcripts of nobody, som"):
        recognizer.adapt(audio, "x", strangers)
    bad: list[LhucError] = []
    recognizer.adapt(audio, "x", {missing: known[missing]} | strangers, on_bad=bad.append)
    assert "2 transcripts belong to no recording: nobody, somebody" in caplog.text
    assert len(bad) == len(known) - 1
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 16000), 16000)
    with pytest.raises(AudioError, match=r"long.wav: 61 s are too long for a transcript"):
        recognizer.adapt(tmp_path, "x", {"long": ("GO",)})


def test_a_recording_that_fits_its_transcript_is_enough(
    recognizer: Recognizer,
    audio: Path,
    known: dict[str, tuple[str, ...]],
    tmp_path: Path,
) -> None:
    first, second, third = sorted(known)
    partly = {first: known[first], second: ("XYZZY", *known[second]), third: ()}
    bad: list[LhucError] = []
    adapted = recognizer.adapt(audio, "x", partly, on_bad=bad.append)
    assert any(bool(r.any()) for r in state(adapted, tmp_path).r.values())
    assert list(map(str, bad)) == [
        f"{second}: 1 word not in the lexicon: XYZZY; correct the transcript",
        f"{third}: its transcript has no words; write them, or leave the recording out",
    ]
    with pytest.raises(CorpusError, match=f"{second}: 1 word not in the lexicon: XYZZY"):
        recognizer.adapt(audio, "x", partly)
    with pytest.raises(CorpusError, match=f"{first}: too short for its transcript"):
        recognizer.adapt(audio, "x", {name: 100 * words for name, words in known.items()})


def test_transcripts_in_another_case_with_tags_are_the_same_words(
    recognizer: Recognizer, audio: Path, known: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    """The model has no phone of a noise, which is therefore left to silence."""
    expected = state(recognizer.adapt(audio, "x", known), tmp_path).r
    written = {name: [*(f"{word.lower()}\u200b" for word in words), "[noise]"] for name, words in known.items()}
    spoken = state(recognizer.adapt(audio, "x", written), tmp_path).r
    assert all(torch.equal(r, expected[site]) for site, r in spoken.items())
    with pytest.raises(CorpusError, match="unknown tag '<DOOR>'"):
        recognizer.adapt(audio, "x", {name: ("<door>",) for name in known})


def test_transcripts_outside_the_vocabulary_are_a_warning(
    recognizer: Recognizer, audio: Path, known: dict[str, tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CorpusError, match="XYZZY"):
        recognizer.adapt(audio, "x", dict.fromkeys(known, ("XYZZY",)))
    assert f"transcripts: only 0 of {len(known)} words (0.0 %) are in the vocabulary" in caplog.text
