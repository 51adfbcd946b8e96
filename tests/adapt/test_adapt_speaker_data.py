"""A speaker's recordings and alignment features: as many frames as there are features, also where data is limited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.targets import no_targets
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AlignmentError, CorpusError
from lhuc_asr.features.filterbank import FeatureConfig, compute_features

RATE = 8_000
CONFIG = FeatureConfig(sample_rate=RATE)


@pytest.fixture
def recordings(tmp_path: Path) -> list[Utterance]:
    """Two recordings of noise, 0.8 s and 0.5 s."""
    generator = np.random.default_rng(0)
    utterances = []
    for name, seconds in (("a", 0.8), ("b", 0.5)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.1 * generator.standard_normal(int(RATE * seconds)), RATE)
        utterances.append(Utterance(name, "ann", "", path, 0.0, seconds, ""))
    return utterances


def data_of(lengths: tuple[int, ...], recordings: list[Utterance], model: AlignmentModel | None = None) -> SpeakerData:
    utterances = [(np.zeros((frames, 3), np.float32), no_targets(frames)) for frames in lengths]
    return SpeakerData.of(utterances, recordings, model)


@pytest.mark.parametrize("used", [(1.0, 1.0), (1.0, 0.4), (0.1, 0.0)])
def test_waveforms_are_cut_to_the_frames_that_are_used(recordings, used, tmp_path):
    whole = [compute_features(read_audio(utterance, RATE), CONFIG) for utterance in recordings]
    lengths = tuple(int(fraction * len(features)) for fraction, features in zip(used, whole, strict=True))
    chosen = [(frames, u, x) for frames, u, x in zip(lengths, recordings, whole, strict=True) if frames]
    model = AlignmentModel(tmp_path / "gmm.safetensors", 5, CONFIG)
    data = data_of(tuple(frames for frames, _, _ in chosen), [u for _, u, _ in chosen], model)
    waveforms = list(data.waveforms(RATE))
    assert [samples.dtype for samples in waveforms] == [np.float32] * len(chosen)
    for samples, (frames, _, features) in zip(waveforms, chosen, strict=True):
        np.testing.assert_allclose(compute_features(samples, CONFIG), features[:frames], atol=1e-5)
    expected = np.concatenate([features[:frames] for frames, _, features in chosen])
    expected = (expected - expected.mean(0)) / expected.std(0)
    np.testing.assert_allclose(data.alignment_features(), expected, atol=1e-3)


def test_a_speaker_without_utterances_has_no_waveforms_and_no_alignment_features(tmp_path):
    model = AlignmentModel(tmp_path / "gmm.safetensors", 5, CONFIG)
    data = SpeakerData(np.zeros((0, 3), np.float32), (), no_targets(0), (), model)
    assert list(data.waveforms(RATE)) == []
    assert data.alignment_features().shape == (0, CONFIG.dimension)


def test_what_is_unknown_is_an_error(recordings, tmp_path):
    model = AlignmentModel(tmp_path / "gmm.safetensors", 5, CONFIG)
    with pytest.raises(CorpusError, match="has features only; this method needs the recordings too"):
        list(data_of((3, 2), [], model).waveforms(RATE))
    with pytest.raises(CorpusError, match="has no alignment model; this method needs one"):
        data_of((3, 2), recordings).alignment_features()
    with pytest.raises(AlignmentError, match="1 utterances with 2 recordings"):
        data_of((3,), recordings)
