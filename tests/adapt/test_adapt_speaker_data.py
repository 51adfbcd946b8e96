"""A speaker's recordings, as many frames as there are features, and the Gaussian mixtures of the ladder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.targets import no_targets
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AlignmentError, CheckpointError, CorpusError
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.hmm.gmm import DiagonalGmm

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


def data_of(lengths: tuple[int, ...], recordings: list[Utterance]) -> SpeakerData:
    utterances = [(np.zeros((frames, 3), np.float32), no_targets(frames)) for frames in lengths]
    return SpeakerData.of(utterances, recordings)


@pytest.mark.parametrize("used", [(1.0, 1.0), (1.0, 0.4), (0.1, 0.0)])
def test_waveforms_are_cut_to_the_frames_that_are_used(recordings, used):
    whole = [compute_features(read_audio(utterance, RATE), CONFIG) for utterance in recordings]
    lengths = tuple(int(fraction * len(features)) for fraction, features in zip(used, whole, strict=True))
    chosen = [(frames, u, x) for frames, u, x in zip(lengths, recordings, whole, strict=True) if frames]
    data = data_of(tuple(frames for frames, _, _ in chosen), [u for _, u, _ in chosen])
    waveforms = list(data.waveforms(RATE))
    assert [samples.dtype for samples in waveforms] == [np.float32] * len(chosen)
    for samples, (frames, _, features) in zip(waveforms, chosen, strict=True):
        np.testing.assert_allclose(compute_features(samples, CONFIG), features[:frames], atol=1e-5)


def test_a_speaker_without_utterances_has_no_waveforms():
    data = SpeakerData(np.zeros((0, 3), np.float32), (), no_targets(0))
    assert list(data.waveforms(RATE)) == []


def test_the_mixtures_of_unadapted_and_of_adapted_features_are_read(tmp_path):
    adapted = DiagonalGmm.flat(torch.ones(4), torch.ones(4), 5)
    unadapted = replace(adapted, mean=adapted.mean + 1)
    files = AlignmentModel(tmp_path / "adapted.safetensors", tmp_path / "unadapted.safetensors", 5)
    adapted.save(tmp_path / "adapted.safetensors")
    alone = replace(files, unadapted=None)
    assert [torch.equal(gmm.mean, adapted.mean) for gmm in alone.gmms] == [True, True]
    unadapted.save(tmp_path / "unadapted.safetensors")
    assert [torch.equal(gmm.mean, adapted.mean) for gmm in files.gmms] == [False, True]
    assert torch.equal(files.gmms[0].mean, unadapted.mean)


def test_mixtures_that_do_not_belong_together_are_refused(tmp_path):
    adapted = DiagonalGmm.flat(torch.ones(4), torch.ones(4), 5)
    paths = tmp_path / "adapted.safetensors", tmp_path / "unadapted.safetensors"
    adapted.save(paths[0])
    with pytest.raises(CheckpointError, match="unadapted"):
        _ = AlignmentModel(*paths, 5).gmms
    grown = adapted.grown(15, torch.full((5,), 1000.0), torch.Generator())
    for other, message in (
        (grown, r"unadapted.safetensors: its Gaussians are not those of .*adapted.safetensors; delete both"),
        (DiagonalGmm.flat(torch.ones(4), torch.ones(4), 6), "mixtures of 6 pdfs, expected 5"),
        (DiagonalGmm.flat(torch.ones(3), torch.ones(3), 5), r"unadapted.safetensors: .*\[5, 4\]"),
    ):
        other.save(paths[1])
        with pytest.raises(CheckpointError, match=message):
            _ = AlignmentModel(*paths, 5).gmms
    adapted.save(paths[1])
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"unadapted\.safetensors"):
        _ = AlignmentModel(*paths, 5).gmms


def test_what_is_unknown_is_an_error(recordings):
    with pytest.raises(CorpusError, match="has features only; this method needs the recordings too"):
        list(data_of((3, 2), []).waveforms(RATE))
    with pytest.raises(AlignmentError, match="1 utterances with 2 recordings"):
        data_of((3,), recordings)
