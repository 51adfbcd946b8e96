"""Speech as it comes: the words that stand are a transcript's, whatever the blocks; words come before the end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, SearchError
from lhuc_asr.decode.search import RunningSearch
from lhuc_asr.features.filterbank import compute_features
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.nnet.tdnn import TdnnConfig
from lhuc_asr.recognizer.decoding import Decoding
from lhuc_asr.recognizer.live import STEP_FRAMES, UNKNOWN_SECONDS, Heard, Live
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


def test_the_search_waits_for_the_frames_after_and_has_those_before(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of random weights that reads 20 and 10 frames before a frame, and 2 after it."""
    assert alice.cmvn is not None
    model, first = copy.copy(recognizer._model), recognizer._model.description.passes[0]
    network = TdnnConfig(offsets=((-20, -10, 2), (0,))).make(first.features.dimension, model.network.pdf_count)
    network.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.output.weight, generator=torch.Generator().manual_seed(1))
    object.__setattr__(model, "models", {first.network: network.eval()})
    searched: list[np.ndarray] = []
    monkeypatch.setattr(RunningSearch, "advance", lambda _, scores: searched.append(scores))
    live = Live(model, Decoding(first, alice.cmvn), known=True, final_words=lambda *_: pytest.fail("no pause"))
    samples = recordings[0][: RATE // 2]  # shorter than a pause
    for start in range(0, len(samples), 160):
        live._sound.add(samples[start : start + 160])
        while live._step(ending=False):
            pass
        there = min(live._sound.frames - 2, live._sound.known_frames)
        assert live._searched == max(0, there // STEP_FRAMES * STEP_FRAMES)
    whole = score_utterance(network, alice.cmvn.apply(compute_features(samples, first.features)))
    assert live._searched > 30
    np.testing.assert_allclose(np.concatenate(searched), whole[: live._searched], rtol=1e-4, atol=1e-4)


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
    for number in range(200):
        assert live.hear(quiet(0.2)) == Heard((), ())
        assert len(live._sound._samples) < 15 * RATE
        assert live._sound.frames < 100, number
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


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 2)), "expected one channel"),
        (np.zeros(9, complex), "expected one channel"),
        (np.zeros(9, np.int8), "expected one channel"),
        ("abc", "expected one channel"),
        (np.array([0.0, np.nan]), "not finite, or beyond 100"),
        (np.full(1600, 1e20, np.float32), "not finite, or beyond 100"),
    ],
)
def test_other_samples_are_refused_and_not_taken(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], samples: object, message: str
) -> None:
    live = recognizer.listen(alice)
    with pytest.raises(AudioError, match=message):
        live.hear(samples)  # type: ignore[arg-type]
    words = standing([live.hear(recordings[0]), live.end()])
    assert words == standing(heard(recognizer, alice, recordings[0], 1600))
    assert words


@pytest.mark.parametrize("dtype", ["int16", "int32", "float64"])
def test_integers_are_on_their_own_scale(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], dtype: str
) -> None:
    scale = 1.0 if dtype == "float64" else -float(np.iinfo(dtype).min)
    samples = (recordings[0].astype(np.float64) * scale).astype(dtype)
    expected = standing(heard(recognizer, alice, recordings[0], 1600))
    assert [word.word for word in standing(heard(recognizer, alice, samples, 1600))] == [w.word for w in expected]


def spoken_text(recognizer: Recognizer, speaker: Speaker | None, samples: np.ndarray, block: int = 1600) -> list[str]:
    return [word.word for word in standing(heard(recognizer, speaker, samples.astype(np.float32), block))]


def test_an_offset_costs_no_word(recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray]) -> None:
    """Levels, like features, leave a DC offset out."""
    samples = np.concatenate([recordings[0], quiet(1.0), recordings[1], quiet(1.0)])
    expected = spoken_text(recognizer, alice, samples)
    assert len(expected) > 4
    for offset in (0.01, 0.1):
        assert spoken_text(recognizer, alice, samples + offset) == expected


def test_noise_that_has_stopped_does_not_hide_what_is_said(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray]
) -> None:
    """A second after it; a model of so few voices takes noise itself for what it likes."""
    samples = np.concatenate([recordings[0], quiet(1.0), recordings[1], quiet(1.0)])
    noise = 1000.0 * quiet(20.0)
    after = spoken_text(recognizer, alice, np.concatenate([noise, quiet(1.5), samples]))
    expected = spoken_text(recognizer, alice, samples)
    assert len(expected) > 4
    assert after[-len(expected) + 2 :] == expected[2:]


def test_steady_noise_has_no_words(recognizer: Recognizer, alice: Speaker) -> None:
    for loudness in (100.0, 300.0):
        assert spoken_text(recognizer, alice, loudness * quiet(8.0)) == []


@pytest.mark.parametrize("silence", [0.0, 20.0])
def test_an_unknown_persons_words_do_not_depend_on_blocks_or_on_silence_before_them(
    recognizer: Recognizer, recordings: list[np.ndarray], silence: float
) -> None:
    samples = np.concatenate([quiet(silence), *recordings, quiet(1.0)])
    texts = [spoken_text(recognizer, None, samples, block) for block in (160, 1600, 10**7)]
    assert texts[0]
    assert texts[0] == texts[1] == texts[2]
    live = recognizer.listen(None)
    live.hear(samples)
    live.end()
    # The statistics are of speech and of the half pauses around it.
    assert live._of_pieces.frames <= (sum(map(len, recordings)) / RATE + 2.0) * 100


def test_a_fault_in_the_middle_of_a_block_costs_no_line_that_stood(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes right after the first line has ended, while the rest of the block is searched."""
    samples = np.concatenate([recordings[0], quiet(1.5), recordings[1]])
    expected = spoken_text(recognizer, alice, np.concatenate([recordings[0], quiet(1.5)]))
    live = recognizer.listen(alice)
    step = Live._step

    def interrupted(self: Live, ending: bool) -> bool:
        if self._standing:
            raise KeyboardInterrupt
        return step(self, ending)

    with monkeypatch.context() as patch:
        patch.setattr(Live, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            live.hear(samples)
    words = [word.word for word in live.end().finished]
    assert expected
    assert words[: len(expected)] == expected


def test_a_piece_that_cannot_be_searched_is_left_out_and_the_next_one_heard(
    recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    samples = np.concatenate([recordings[1], quiet(1.5)])
    expected = spoken_text(recognizer, alice, samples)
    live = recognizer.listen(alice)

    def lost(self: Live, end: int) -> None:
        raise SearchError("the search lost every path")

    with monkeypatch.context() as patch:
        patch.setattr(Live, "_keep_words", lost)
        assert live.hear(np.concatenate([recordings[0], quiet(1.5)])).lines == ()
    assert "what was said is left out: the search lost every path" in caplog.text
    words = [word.word for part in (live.hear(samples), live.end()) for word in part.finished]
    assert len(expected) > 2
    assert words[-2:] == expected[-2:]  # the piece begins with what was left of the pause


def test_lines_are_those_of_the_pauses(recognizer: Recognizer, alice: Speaker, recordings: list[np.ndarray]) -> None:
    samples = np.concatenate([part for each in recordings[:2] for part in (each, quiet(1.5))])
    live = recognizer.listen(alice)
    parts = [live.hear(samples), live.end()]
    lines = [line for part in parts for line in part.lines]
    assert len(lines) == 2
    assert lines[0][-1].end <= len(recordings[0]) / RATE + 1.5 <= lines[1][0].start + 0.75
