"""Samples that a program has in memory are a recording like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.base.errors import AudioError, ConfigError, CorpusError, LhucError
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.transcript import Transcript


def words(transcripts: list[Transcript]) -> list[object]:
    return [replace(each, recording="", path=Path()) for each in transcripts]


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "int32"])
def test_samples_are_transcribed_as_their_file_is(kind: str, recognizer: Recognizer, audio: Path) -> None:
    path = min(audio.iterdir())
    samples, rate = soundfile.read(path, dtype=kind)
    heard = recognizer.transcribe((samples, rate))
    assert [each.recording for each in heard] == ["array"]
    assert heard[0].words
    assert words(heard) == words(recognizer.transcribe(path))


def test_several_arrays_are_one_persons(recognizer: Recognizer, audio: Path) -> None:
    paths = sorted(audio.iterdir())
    arrays = [(torch.from_numpy(soundfile.read(path, dtype="float32")[0]), 16000) for path in paths]
    assert [each.recording for each in recognizer.transcribe(arrays)] == ["array-1", "array-2", "array-3"]
    assert words(recognizer.transcribe(arrays)) == words(recognizer.transcribe(paths))
    alice, other = recognizer.adapt(arrays, "alice"), recognizer.adapt(paths, "alice")
    assert words(recognizer.transcribe(arrays, alice)) == words(recognizer.transcribe(paths, other))
    (aligned, *_) = recognizer.align(arrays[0], {"array": min(recognizer.vocabulary)})
    assert aligned.phones


def test_channels_and_rates_are_those_of_the_array(recognizer: Recognizer, audio: Path) -> None:
    samples, _ = soundfile.read(min(audio.iterdir()), dtype="float32")
    two = np.stack([np.zeros_like(samples), samples], axis=1)
    (mono,), (second,) = recognizer.transcribe((samples, 16000)), recognizer.transcribe((two, 16000), channel=2)
    assert [word.word for word in mono.words] == [word.word for word in second.words]
    assert recognizer.transcribe((samples, 8000))[0].seconds == pytest.approx(2 * mono.seconds)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(16000, np.complex64), 16000, "array: samples of type complex64; expected one of float32"),
        (np.zeros((2, 16000), np.float32), 16000, r"array: samples of shape \(2, 16000\); expected"),
        (np.zeros((), np.float32), 16000, r"array: samples of shape \(\); expected"),
        (np.zeros(16000, np.float32), 16000.5, "array: a sample rate of 16000.5; expected a whole number"),
        (np.zeros(16000, np.float32), 0, "array: a sample rate of 0; expected"),
        (np.zeros(10, np.float32), 16000, "array: 10 samples are shorter than one window"),
        (np.full(16000, np.nan, np.float32), 16000, "array: "),
    ],
)
def test_what_is_not_sound_is_told(samples: np.ndarray, rate: object, message: str, recognizer: Recognizer) -> None:
    with pytest.raises(AudioError, match=message):
        recognizer.transcribe((samples, rate))  # type: ignore[arg-type]
    problems: list[LhucError] = []
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    heard = list(recognizer.transcripts([(samples, rate), (noise, 16000)], on_bad=problems.append))  # type: ignore[list-item]
    assert [each.recording for each in heard] == ["array-2"]
    assert str(problems[0]).startswith("array-1: ")


def test_files_and_arrays_are_not_mixed(recognizer: Recognizer, audio: Path) -> None:
    with pytest.raises(CorpusError, match="recordings of different kinds"):
        recognizer.transcribe([min(audio.iterdir()), (np.zeros(16000), 16000)])


def test_a_device_that_is_not_there_is_told(exported: Path) -> None:
    with pytest.raises(ConfigError, match="--device cuda:99: not available"):
        load(exported, device="cuda:99")


@pytest.mark.gpu
def test_a_gpu_finds_the_same_words(exported: Path, recognizer: Recognizer, audio: Path) -> None:
    on_gpu = load(exported, device="cuda")
    alice, other = on_gpu.adapt(audio, "alice"), recognizer.adapt(audio, "alice")
    for person, same in ((None, None), (alice, other)):
        texts = [transcript.text for transcript in on_gpu.transcribe(audio, person)]
        assert texts == [transcript.text for transcript in recognizer.transcribe(audio, same)]
