"""Features of a split: a row per frame, at every speed, whatever the number of processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.features.extraction import extract
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.features.store import FeatureStore

RATE = 8000
CONFIG = FeatureConfig(sample_rate=RATE, bins=20)


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    recordings = []
    for number, speaker in enumerate(("alice", "alice", "bob")):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).uniform(-0.3, 0.3, RATE), RATE)
        recordings.append(Utterance(f"{speaker}-{number}", speaker, "", path, 0.0, 1.0, ""))
    return recordings


def test_the_features_of_a_speaker_are_normalised(tmp_path: Path, utterances: list[Utterance]) -> None:
    store = extract(tmp_path / "store", utterances, CONFIG, processes=1)
    assert [u.id for u in store.utterances] == ["alice-0", "alice-1", "bob-2"]
    raw = compute_features(read_audio(utterances[2], RATE), CONFIG)
    np.testing.assert_allclose(store["bob-2"], (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-4)


def test_the_features_are_those_of_the_channel_that_an_utterance_names(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    """Two people on the channels of one recording are not one mixture."""
    left, right = (soundfile.read(each.audio, dtype="float32")[0] for each in utterances[1:])
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], axis=1), RATE)
    apart = [replace(each, audio=tmp_path / "both.wav", channel=n) for n, each in enumerate(utterances[1:], start=1)]
    alone, there = (extract(tmp_path / name, of, CONFIG, 1) for name, of in (("a", utterances[1:]), ("b", apart)))
    for each in apart:
        np.testing.assert_array_equal(there[each.id], alone[each.id])


@pytest.mark.parametrize("by_environment", [True, False])
def test_each_speaker_in_each_environment_has_mean_0_and_variance_1(
    tmp_path: Path, utterances: list[Utterance], by_environment: bool
) -> None:
    """At every speed. Quiet recordings stay below loud ones where a speaker's are normalised together."""
    placed = []
    for utterance, environment in zip(utterances, ("loud", "quiet", "loud"), strict=True):
        samples, _ = soundfile.read(utterance.audio)
        soundfile.write(utterance.audio, samples * (1.0 if environment == "loud" else 0.1), RATE)
        placed.append(replace(utterance, environment=environment))
    arguments = placed, CONFIG, 1, (1.0, 0.9)
    store = extract(tmp_path / "store", *arguments, by_environment=by_environment)
    assert len(store.utterances) == 6
    for utterance in store.utterances:  # one of each speaker in each environment
        values = np.asarray(store[utterance.id], np.float64)
        alone = by_environment or utterance.speaker.endswith("bob")
        assert (np.abs(values.mean(axis=0)).max() < 1e-4) == alone, utterance.id
        assert (np.abs(values.std(axis=0) - 1.0).max() < 1e-4) == alone, utterance.id


def test_an_utterance_without_an_environment_is_not_normalised_in_one(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    placed = [replace(utterances[0], environment="loud"), *utterances[1:]]
    with pytest.raises(CorpusError, match=r"utterance alice-1: it has no environment.*leave out normalised_by"):
        extract(tmp_path / "store", placed, CONFIG, processes=1, by_environment=True)


def test_another_speed_is_another_speaker(tmp_path: Path, utterances: list[Utterance]) -> None:
    store = extract(tmp_path / "store", utterances, CONFIG, processes=1, speeds=(1.0, 0.9))
    assert list(store.speakers) == ["alice", "bob", "sp0.9-alice", "sp0.9-bob"]
    assert store.by_id["sp0.9-bob-2"].frames > store.by_id["bob-2"].frames


def test_the_features_do_not_depend_on_the_number_of_workers(tmp_path: Path, utterances: list[Utterance]) -> None:
    for processes in (1, 2):
        extract(tmp_path / str(processes), utterances, CONFIG, processes)
    one, two = (FeatureStore(tmp_path / str(processes)) for processes in (1, 2))
    assert one.utterances == two.utterances
    np.testing.assert_array_equal(one.array, two.array)


def test_a_recording_that_is_gone_leaves_no_store(tmp_path: Path, utterances: list[Utterance]) -> None:
    utterances[1].audio.unlink()
    with pytest.raises(AudioError, match="no such recording"):
        extract(tmp_path / "store", utterances, CONFIG, processes=1)
    assert not (tmp_path / "store").exists()
