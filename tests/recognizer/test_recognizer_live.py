"""Speech as it comes: the words that stand are a transcript's, whatever the blocks; words come before the end."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError
from lhuc_asr.recognizer.live import UNKNOWN_SECONDS, Heard
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.transcript import Word

RATE = 16_000


@pytest.fixture(scope="module")
def recordings(said: list[Utterance]) -> list[np.ndarray]:
    return [soundfile.read(utterance.audio, dtype="float32")[0] for utterance in said]


def quiet(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)


def heard(recognizer: Recognizer, speaker: Speaker | None, samples: np.ndarray, block: int) -> list[Heard]:
    live = recognizer.listen(speaker)
    assert live.sample_rate == RATE
    parts = [live.hear(samples[first : first + block]) for first in range(0, len(samples), block)]
    return [*parts, live.end()]


def standing(parts: list[Heard]) -> list[Word]:
    return [word for part in parts for word in part.finished]


@pytest.mark.parametrize("block", [480, 1600, 10**6])
def test_a_recording_without_pauses_has_the_words_of_its_transcript(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], block: int
) -> None:
    for samples in recordings:
        (transcript,) = recognizer.transcribe([(samples, RATE)], alice)
        words = standing(heard(recognizer, alice, samples, block))
        assert [word.word for word in words] == [word.word for word in transcript.words]
        for word, expected in zip(words, transcript.words, strict=True):
            assert (word.start, word.end) == pytest.approx((expected.start, expected.end), abs=0.05)
            assert word.confidence == pytest.approx(expected.confidence, abs=0.05)


def test_words_come_while_one_speaks_and_stand_after_a_pause(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray]
) -> None:
    parts = [recordings[0], quiet(1.5), recordings[1], quiet(1.5)]
    samples = np.concatenate(parts)
    blocks_heard = heard(recognizer, alice, samples, 1600)
    first_end = len(recordings[0]) // 1600
    assert any(part.unfinished for part in blocks_heard[:first_end])
    assert not any(part.finished for part in blocks_heard[: first_end - 2])
    pieces = [part.finished for part in blocks_heard if part.finished]
    assert len(pieces) >= 2
    # Both sentences stand before the end is said.
    assert standing(blocks_heard[:-1]) == standing(blocks_heard)
    seconds = [len(part) / RATE for part in parts]
    assert all(word.end <= sum(seconds[:2]) for word in pieces[0])
    last = pieces[-1][0]
    assert seconds[0] <= last.start <= sum(seconds[:3])
    starts = [word.start for word in standing(blocks_heard)]
    assert starts == sorted(starts)
    blocks = [480, 7777, 10**6]
    expected = [word.word for word in standing(blocks_heard)]
    for block in blocks:
        assert [word.word for word in standing(heard(recognizer, alice, samples, block))] == expected


def test_an_unknown_speaker_is_heard_after_some_seconds(recognizer: Recognizer, recordings: list[np.ndarray]) -> None:
    samples = np.concatenate(recordings)
    assert len(samples) > 1.5 * UNKNOWN_SECONDS * RATE
    blocks_heard = heard(recognizer, None, samples, 1600)
    waited = int(UNKNOWN_SECONDS * RATE / 1600) - 1
    assert not any(part.unfinished or part.finished for part in blocks_heard[:waited])
    assert any(part.unfinished for part in blocks_heard[waited : waited + 20])
    assert standing(blocks_heard)
    short = standing(heard(recognizer, None, recordings[0], 1600))
    (transcript,) = recognizer.transcribe([(recordings[0], RATE)])
    assert [word.word for word in short] == [word.word for word in transcript.words]


def test_silence_has_no_words_and_does_not_grow(recognizer: Recognizer, alice: Speaker) -> None:
    live = recognizer.listen(alice)
    for _ in range(100):
        live.hear(quiet(0.2))
        assert len(live._samples) < 2 * RATE
    assert live.end() == Heard((), ())


def test_longer_speech_than_the_longest_piece_is_cut(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray]
) -> None:
    samples = np.tile(np.concatenate([each[2000:-2000] for each in recordings]), 4)
    longest = recognizer.description.piece_seconds
    assert len(samples) / RATE > 2 * longest
    blocks_heard = heard(recognizer, alice, samples, 4000)
    pieces = [part.finished for part in blocks_heard if part.finished]
    assert len(pieces) > 2
    assert all(piece[-1].end - piece[0].start <= longest + 0.01 for piece in pieces)


@pytest.mark.parametrize("samples", [np.zeros((2, 2)), np.array([np.nan])])
def test_other_samples_are_refused(recognizer: Recognizer, alice: Speaker, samples: np.ndarray) -> None:
    with pytest.raises(AudioError, match="expected one channel of finite numbers"):
        recognizer.listen(alice).hear(samples)
