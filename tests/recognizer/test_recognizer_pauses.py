"""Where recordings are cut, on levels that are known by construction."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.audio.levels import levels
from lhuc_asr.recognizer.pauses import SHORTEST_PIECE_SECONDS, between, cut, has_speech, holds

SPEECH, ROOM = 1e-2, 1e-7


def spoken(*seconds: float) -> np.ndarray:
    """Levels of speech and pauses by turns, beginning with speech."""
    return np.concatenate(
        [np.full(round(100 * length), ROOM if number % 2 else SPEECH) for number, length in enumerate(seconds)]
    )


def test_a_recording_that_is_short_enough_stays_whole() -> None:
    assert cut(spoken(2.0, 0.5, 2.0), 5.0) == [(0, 450)]


def test_the_longest_pauses_come_first() -> None:
    """9.4 s with pauses of 0.3, 0.8 and 0.3 s: one cut, in the middle of the long one, makes it short enough."""
    assert cut(spoken(2.0, 0.3, 2.0, 0.8, 2.0, 0.3, 2.0), 5.0) == [(0, 470), (470, 940)]


def test_pieces_that_are_short_enough_are_not_cut_further() -> None:
    level = spoken(1.0, 0.4, 1.0, 0.9, 3.0, 0.5, 3.0)  # 9.8 s; what is behind the longest pause is 6.95 s
    assert cut(level, 5.0) == [(0, 285), (285, 655), (655, 980)]


def test_without_a_pause_the_quietest_moment_is_cut_at() -> None:
    level = np.full(900, SPEECH)
    level[398:405] = 0.6 * SPEECH
    (first, _), *_ = pieces = cut(level, 5.0)
    assert first == 0
    assert pieces[0][1] in range(398, 405)


@given(
    st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=60),
    st.integers(1, 40),
    st.floats(1.5, 20.0),
)
def test_pieces_are_the_whole_recording_and_none_is_too_long(
    values: list[float], repeated: int, longest_seconds: float
) -> None:
    level = np.repeat(values, repeated * 3)
    pieces = cut(level, longest_seconds)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == len(level)
    assert all(end == start for (_, end), (start, _) in pairwise(pieces))
    assert all(end - first <= round(100 * longest_seconds) for first, end in pieces)
    if len(pieces) > 1:
        assert min(end - first for first, end in pieces) >= 100 * SHORTEST_PIECE_SECONDS / 2


def test_an_hour_is_cut_in_no_time_and_deep_recursion() -> None:
    level = np.random.default_rng(0).uniform(ROOM, SPEECH, 360_000)
    assert all(end - first <= 500 for first, end in cut(level, 5.0))


@pytest.mark.parametrize("level", [0.0, 1e-8])
def test_silence_is_no_speech(level: float) -> None:
    assert has_speech(np.full(200, level), [(0, 200)]) == [False]
    assert has_speech(np.full(2000, level), [(0, 1000), (1000, 2000)]) == [False, False]


def test_steady_noise_is_no_speech_in_a_long_recording() -> None:
    noise = np.random.default_rng(0).standard_normal((3000, 160)) * 0.01
    level = np.square(noise).mean(1)
    level[1500:1600] = SPEECH
    assert has_speech(level, [(0, 1000), (1000, 2000), (2000, 3000)]) == [False, True, False]


def test_a_short_recording_may_be_one_vowel() -> None:
    assert has_speech(np.full(30, SPEECH), [(0, 30)]) == [True]


@pytest.mark.parametrize("hertz", [None, 0, 50, 60, 440])
def test_steady_sounds_hide_no_speech_and_are_none(tmp_path: Path, hertz: int | None) -> None:
    """Six seconds of speech, ten of the room, six of speech; beside a tone or offset that is 12 dB louder, or none."""
    generator, rate = np.random.default_rng(0), 16000
    times = np.arange(22 * rate) / rate
    syllables = (np.sin(2 * np.pi * times) > -0.5) & ((times < 6) | (times >= 16))
    samples = generator.normal(0, 0.01, len(times)) * np.where(syllables, 1.0, 0.01)
    if hertz is not None:
        samples += sum(0.04 / n * np.cos(2 * np.pi * n * hertz * times) for n in (1, 2, 3, 4, 5))
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    level = levels(tmp_path / "a.wav")
    pieces = cut(level.power, 5.0)
    spoken = [piece for piece, speech in zip(pieces, has_speech(level.power, pieces), strict=True) if speech]
    kept = np.zeros(len(level.power), dtype=bool)
    for first, end in spoken:
        kept[first:end] = True
    assert kept[:570].all()
    assert kept[1610:2170].all()
    assert not kept[1040:1370].any()


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_a_few_frames_are_no_trouble(frames: int) -> None:
    level = np.full(frames, SPEECH)
    assert cut(level, 5.0) == [(0, frames)]
    assert has_speech(level, [(0, frames)]) == [True]


@pytest.mark.parametrize("longest", [1e-9, 0.01, 0.3, 0.5, 0.51, 0.6])
def test_the_pieces_of_a_model_of_short_words_have_room_for_a_window(longest: float) -> None:
    pieces = cut(np.full(300, SPEECH), longest)
    assert [pieces[0][0], pieces[-1][1]] == [0, 300]
    assert min(end - begin for begin, end in pieces) >= 5
    assert max(end - begin for begin, end in pieces) <= max(20, round(100 * longest))


@pytest.mark.parametrize("gain", [1.0, 1e-4, 3e-6])
def test_quiet_speech_is_speech_as_loud_speech_is(gain: float) -> None:
    """Down to -75 dB, as 24 bits hold it; the room is 50 dB below the speech."""
    short, long = gain * spoken(2.0, 0.5, 1.0), gain * spoken(2.0, 0.5, 1.0, 9.0, 2.0)
    assert has_speech(short, [(0, 350)]) == [True]
    pieces = cut(long, 5.0)
    assert [pair for pair in pieces if pair[0] == 0] == [pair for pair in cut(spoken(2.0, 0.5, 1.0, 9.0, 2.0), 5.0)[:1]]
    assert has_speech(long, pieces) == has_speech(long / gain, pieces)


def test_a_quiet_room_is_no_speech() -> None:
    room = np.square(np.random.default_rng(0).standard_normal((300, 160)) * 4e-4).mean(1)
    assert has_speech(room, [(0, 300)]) == [False]


# Pauses that a detector of voice activity knows.


def test_known_pauses_are_cut_at_the_longest_first() -> None:
    """The levels would cut where somebody whispers."""
    level = spoken(3.0, 1.5, 4.5)
    assert cut(level, 6.0) == [(0, 375), (375, 900)]
    assert cut(level, 6.0, [(100, 140), (500, 600)]) == [(0, 550), (550, 900)]


@given(st.lists(st.integers(1, 50), max_size=20), st.lists(st.integers(1, 50), max_size=20))
def test_parts_and_pauses_are_the_whole_recording(lengths: list[int], cuts: list[int]) -> None:
    """Lengths of pauses and parts by turns; against a mask of frames."""
    ends = np.cumsum([0, *lengths]).tolist()
    parts = list(zip(ends[1::2], ends[2::2], strict=False))
    frames = ends[-1] + 3
    spoken_at = np.zeros(frames, dtype=bool)
    for first, end in parts:
        spoken_at[first:end] = True
    paused_at = np.zeros(frames, dtype=bool)
    for first, end in between(parts, frames):
        assert first < end
        paused_at[first:end] = True
    np.testing.assert_array_equal(paused_at, ~spoken_at)
    borders = [0, *(border for border in np.cumsum(cuts).tolist() if border < frames), frames]
    pieces = list(pairwise(borders))
    assert holds(parts, pieces) == [bool(spoken_at[first:end].any()) for first, end in pieces]
