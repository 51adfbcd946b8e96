"""Features of a split: a row per frame, at every speed, whatever the number of processes."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError
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
