"""VTLN as a method: maps learned from recordings do what warps do, and the network finds each vocal tract's warp."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from vocal_tracts import PHONES, RATE, spoken

from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.adapt.vtln import WARPS_FILE, Vtln, VtlnConfig, save_warps
from lhuc_asr.adapt.warp_maps import warp_maps
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CheckpointError, CorpusError, FeatureError
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.context import splice
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.features.vtln import warped_features
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

FBANK, MFCC = FeatureConfig(), FeatureConfig(kind="mfcc", cepstra=40)
OPTIONS = {"lowest": 0.86, "highest": 1.16, "step": 0.02}


def speaker(
    folder: Path, name: str, factor: float, seed: int, features: FeatureConfig = FBANK, phones: int = 80
) -> SpeakerData:
    """A speaker with a vocal tract and one recording, aligned."""
    recording, path = spoken(factor, seed, phones), folder / f"{name}.wav"
    soundfile.write(path, recording.samples, RATE, subtype="FLOAT")
    values, statistics = compute_features(recording.samples, features), CmvnAccumulator(features.dimension)
    statistics.add(values)
    targets = FrameTargets.certain(recording.pdfs.astype(np.int32), recording.weights)
    utterance = Utterance(name, name, "", path, 0.0, len(recording.samples) / RATE, "")
    return SpeakerData.of([(statistics.estimate().apply(values), targets)], [utterance])


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SpeakerData]:
    folder = tmp_path_factory.mktemp("training")
    return {f"t{n}": speaker(folder, f"t{n}", factor, n) for n, factor in enumerate((0.95, 1.0, 1.0, 1.05))}


@pytest.fixture(scope="module")
def model(training: dict[str, SpeakerData]) -> Dnn:
    """A network that knows the phones of vocal tracts near the average."""
    made = Dnn(DnnConfig(hidden_layers=1, hidden_units=32, context=1, dropout=0.0), 40, PHONES)
    made.initialise(torch.Generator().manual_seed(1))
    spliced = torch.cat([splice(torch.from_numpy(data.features), 1) for data in training.values()])
    pdfs = torch.cat([torch.from_numpy(data.targets.pdf[:, 0]).long() for data in training.values()])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(made(spliced), pdfs).backward()
        optimizer.step()
    return made.eval()


@pytest.fixture(scope="module")
def method(model: Dnn, training: dict[str, SpeakerData], tmp_path_factory: pytest.TempPathFactory) -> Vtln:
    made = Vtln(VtlnConfig.model_validate(OPTIONS), tmp_path_factory.mktemp("prepared"))
    made.prepare(model, training, seed=1)
    return made


def chosen(method: Vtln, transform: torch.Tensor) -> float:
    """The warp whose map a transform is."""
    tensors, _ = load_tensors(method._path, "")
    same = [torch.equal(each, transform) for each in tensors["maps"]]
    return float(tensors["warps"][same.index(True)])


@pytest.mark.parametrize("factor", [0.88, 0.94, 1.0, 1.08, 1.14])
def test_the_network_finds_the_warp_of_a_vocal_tract(method, model, tmp_path, factor):
    """A tract whose formants lie higher by a factor needs a warp of one over it."""
    found = method.estimate(model, {"ann": speaker(tmp_path, "ann", factor, 20)}, seed=1)
    assert chosen(method, found.transforms.of("ann")) == pytest.approx(1 / factor, abs=0.031)


def test_the_map_of_a_warp_does_what_the_warp_does_to_a_new_speaker(method, tmp_path):
    tensors, _ = load_tensors(method._path, "")
    place = tensors["warps"].tolist().index(0.9)
    before = torch.from_numpy(speaker(tmp_path, "ann", 1.02, 30).features).double()
    warped = warped_features(spoken(1.02, 30, 80).samples, FBANK, [0.9])[:, 0]
    wanted = torch.from_numpy((warped - warped.mean(0)) / warped.std(0)).double()
    moved = before @ tensors["maps"][place, :, :-1].T + tensors["maps"][place, :, -1]
    assert (moved - wanted).square().mean() < 0.35 * (before - wanted).square().mean()


def test_the_file_of_a_speaker_with_an_extreme_warp_is_read(model, tmp_path):
    """The warp leaves the upper end of the band empty, so that its map is all but singular."""
    voices = ((0.95, 0), (1.0, 10), (1.05, 20))
    maps = warp_maps([[spoken(factor, seed + n).samples for n in range(3)] for factor, seed in voices], [1.25], FBANK)
    assert torch.linalg.svdvals(maps[0, :, :-1])[-1] < 0.001
    speakers = TransformedSpeakers(model, SpeakerTransforms(("ann",), maps))
    speakers.save(tmp_path)
    read = load_speakers(model, tmp_path / "ann.safetensors")
    assert torch.equal(read.transforms.of("ann"), maps[0])


def test_a_warp_of_one_is_the_identity_and_the_choice_is_the_smallest_cross_entropy(model, tmp_path):
    maps = torch.eye(40, 41, dtype=torch.float64).repeat(3, 1, 1)
    maps[0, :, -1], maps[2, :, -1] = 0.3, -0.3
    made = Vtln(VtlnConfig(lowest=0.9, highest=1.1, step=0.1), tmp_path)
    save_warps(tmp_path / WARPS_FILE, made.config.warps, maps)
    data = speaker(tmp_path, "ann", 1.0, 40)
    for offset, place in ((-0.3, 0), (0.0, 1), (0.3, 2)):
        off = replace(data, features=data.features + np.float32(offset))
        assert torch.equal(made.estimate(model, {"ann": off}, seed=1).transforms.of("ann"), maps[place])


def test_frames_without_weight_say_nothing_and_too_few_keep_the_identity(method, model, tmp_path, caplog):
    data = speaker(tmp_path, "short", 1.12, 50)
    half = (np.arange(len(data.features)) % 2).astype(np.float32)
    wrong = np.where(half[:, None] > 0, data.targets.pdf, (data.targets.pdf + 1) % PHONES)
    kept, lied = (
        replace(data, targets=replace(data.targets, pdf=pdf, weight=half)) for pdf in (data.targets.pdf, wrong)
    )
    found = method.estimate(model, {"kept": kept, "lied": lied}, seed=1).transforms
    assert torch.equal(found.of("kept"), found.of("lied"))
    assert not caplog.text
    brief = replace(data, targets=replace(data.targets, weight=half * 0.1))
    found = method.estimate(model, {"brief": brief}, seed=1).transforms
    assert torch.equal(found.of("brief"), torch.eye(40, 41, dtype=torch.float64))
    assert "1 of 1 speakers stay unadapted, they have fewer than 100 frames: brief" in caplog.text


def test_the_warps_are_kaldis_and_one_is_among_them():
    warps = VtlnConfig(step=0.01).warps
    assert len(warps) == 41
    np.testing.assert_allclose(warps, np.arange(85, 126) / 100)
    assert VtlnConfig(lowest=0.87, highest=1.1, step=0.05).warps == (0.9, 0.95, 1.0, 1.05, 1.1)
    assert VtlnConfig(lowest=1.0, highest=1.0).warps == (1.0,)


def test_other_features_unknown_recordings_and_other_warps_are_refused(method, model, training, tmp_path):
    made = Vtln(VtlnConfig(), tmp_path / "prepared")
    with pytest.raises(FeatureError, match=r"'ann': the network's 40 features are not the log mel .* at 16000 Hz"):
        made.prepare(model, {"ann": speaker(tmp_path, "ann", 1.0, 60, MFCC)}, seed=1)
    with pytest.raises(CorpusError, match="features only; this method needs the recordings too"):
        made.prepare(model, {"t0": replace(training["t0"], recordings=())}, seed=1)
    with pytest.raises(FeatureError, match="none of 0 training speakers has a recording"):
        made.prepare(model, {}, seed=1)
    assert not (tmp_path / "prepared").exists()
    with pytest.raises(CheckpointError, match=r"warps\.safetensors: no such maps of warps"):
        made.estimate(model, training, seed=1)
    other = Vtln(VtlnConfig.model_validate(OPTIONS | {"lowest": 0.84}), method._path.parent)
    with pytest.raises(CheckpointError, match=r"warps\.safetensors: .* has shape \[16"):
        other.estimate(model, training, seed=1)
    shifted = Vtln(VtlnConfig.model_validate(OPTIONS | {"lowest": 0.84, "highest": 1.14}), method._path.parent)
    with pytest.raises(CheckpointError, match=r"other warps than 0\.84 to 1\.14"):
        shifted.estimate(model, training, seed=1)
