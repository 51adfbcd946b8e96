"""fMLLR as a method: known transforms are found again, few frames change nothing, and others build on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scaled_speakers import PDFS, WIDTH, small_dnn

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.controls import another, others_mean
from lhuc_asr.adapt.fmllr import Fmllr, FmllrConfig
from lhuc_asr.adapt.gaussian_model import GaussianModel, SpeakerAdaptiveGaussians
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.stacked import Stacked, StackedMethod
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.base.errors import (
    AlignmentError,
    CheckpointError,
    CorpusError,
    ModelMismatchError,
    SiteError,
    SpeakerError,
)
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.fmllr import FmllrEstimation
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.speaker_estimation import Targets, first_estimate, next_estimate
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms

GENERATOR = torch.Generator().manual_seed(0)
ADAPTED = DiagonalGmm(
    torch.arange(PDFS).repeat_interleave(2),
    torch.full((2 * PDFS,), 0.5),
    2.0 * torch.randn(2 * PDFS, WIDTH, generator=GENERATOR),
    0.5 + torch.rand(2 * PDFS, WIDTH, generator=GENERATOR),
    PDFS,
)
UNADAPTED = replace(ADAPTED, mean=ADAPTED.mean + 0.3, variance=1.5 * ADAPTED.variance)
# Frames in 30 seconds.
HALF_A_MINUTE = 3000


@pytest.fixture
def mixtures(tmp_path: Path) -> AlignmentModel:
    ADAPTED.save(tmp_path / "adapted.safetensors")
    UNADAPTED.save(tmp_path / "unadapted.safetensors")
    return AlignmentModel(tmp_path / "adapted.safetensors", tmp_path / "unadapted.safetensors", PDFS)


@pytest.fixture
def gaussians() -> SpeakerAdaptiveGaussians:
    return SpeakerAdaptiveGaussians(UNADAPTED, ADAPTED)


def transform_of(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    change = 0.12 * torch.randn(WIDTH, WIDTH + 1, dtype=torch.float64, generator=generator)
    return torch.eye(WIDTH, WIDTH + 1, dtype=torch.float64) + change


def spoken(mixtures: AlignmentModel | None, transform: torch.Tensor, frames: int, seed: int = 0) -> SpeakerData:
    """Frames that ``transform`` turns into such as the adapted mixtures make, with their pdfs."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randint(len(ADAPTED.pdf), (frames,), generator=generator)
    noise = torch.randn(frames, WIDTH, generator=generator)
    made = (ADAPTED.mean[gaussian] + ADAPTED.variance[gaussian].sqrt() * noise).double()
    features = torch.linalg.solve(transform[:, :-1], (made - transform[:, -1]).T).T.float().contiguous()
    pdfs = ADAPTED.pdf[gaussian].numpy().astype(np.int32)
    targets = FrameTargets.certain(pdfs, np.ones(frames, np.float32))
    return SpeakerData(features.numpy(), (frames,), targets, (), mixtures)


def estimated(
    model: SpeakerAdaptiveGaussians, speakers: Mapping[str, SpeakerData], **options: object
) -> TransformedSpeakers:
    return Fmllr(FmllrConfig.model_validate(options)).estimate(model, speakers, seed=1)


def test_a_known_transform_is_found_again(gaussians, mixtures):
    true = {name: transform_of(seed) for seed, name in enumerate(("ann", "bob"))}
    people = {name: spoken(mixtures, transform, HALF_A_MINUTE, 5) for name, transform in true.items()}
    speakers = estimated(gaussians, people, estimates=4)
    for name, transform in true.items():
        error = (speakers.transforms.of(name) - transform).norm() / transform.norm()
        assert error < 0.05
        assert (transform - torch.eye(WIDTH, WIDTH + 1)).norm() > 0.2 * transform.norm()
    # The scores are those of the adapted mixtures, at the transformed features.
    features = people["ann"].features[:50]
    moved = torch.from_numpy(features).double() @ speakers.transforms.of("ann")[:, :-1].T
    moved = (moved + speakers.transforms.of("ann")[:, -1]).float()
    expected = ADAPTED.log_likelihoods(moved).numpy()
    np.testing.assert_allclose(speakers.log_likelihoods("ann", [features]), expected, rtol=0, atol=1e-3)


def test_the_estimates_are_those_of_the_training_speakers_on_the_same_targets(gaussians, mixtures):
    """Silence has weight 0.01; the posteriors of the first estimate are those of the unadapted mixtures."""
    data = spoken(mixtures, transform_of(3), 900)
    pdfs = data.targets.pdf[:, 0]
    weights = np.where(pdfs < 2, 0.01, 1.0).astype(np.float32)
    data = replace(data, targets=FrameTargets.certain(pdfs, weights))
    utterances = [StoredUtterance("u", "ann", 0, 900)]
    targets = Targets({"u": pdfs}, np.array([0, 1]), 0.01)

    class Features:
        dimension = WIDTH

        def of(self, block: object) -> torch.Tensor:
            return torch.from_numpy(data.features)

    config = FmllrEstimation(min_counts={"full": 100.0})
    first = first_estimate(Features(), utterances, targets, UNADAPTED, ADAPTED, config)
    second = next_estimate(Features(), utterances, targets, first, ADAPTED, config)
    for estimates, expected in ((1, first), (2, second)):
        speakers = estimated(gaussians, {"ann": data}, estimates=estimates, min_counts={"full": 100.0})
        torch.testing.assert_close(speakers.transforms.of("ann"), expected.of("ann"), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(first.of("ann"), second.of("ann"), atol=1e-3)


def test_posteriors_over_pdfs_are_split_frames(gaussians, mixtures):
    """A frame with two likely pdfs counts as two frames of these weights."""
    data = spoken(mixtures, transform_of(3), 600)
    pdfs = data.targets.pdf[:, 0]
    others = (pdfs + 1) % PDFS
    shared = FrameTargets(np.stack([pdfs, others], 1), np.tile(np.float32([0.75, 0.25]), (600, 1)), data.targets.weight)
    twice = SpeakerData(
        np.concatenate([data.features, data.features]),
        (600, 600),
        FrameTargets.certain(np.concatenate([pdfs, others]), np.repeat(np.float32([0.75, 0.25]), 600)),
        (),
        mixtures,
    )
    one, two = (
        estimated(gaussians, {"ann": each}, estimates=1).transforms.of("ann")
        for each in (replace(data, targets=shared), twice)
    )
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [0, 10])
def test_few_frames_leave_the_features_bit_for_bit(gaussians, mixtures, frames, caplog):
    people = {"few": spoken(mixtures, transform_of(0), frames), "many": spoken(mixtures, transform_of(1), 800)}
    speakers = estimated(gaussians, people)
    assert torch.equal(speakers.transforms.of("few"), torch.eye(WIDTH, WIDTH + 1, dtype=torch.float64))
    features = people["many"].features[:40]
    scores = speakers.log_likelihoods("few", [features])
    np.testing.assert_array_equal(scores, ADAPTED.log_likelihoods(torch.from_numpy(features)).numpy())
    warning = (
        f"1 of 2 speakers have fewer than 500 frames of speech and keep their features as they are: few ({frames})"
    )
    assert caplog.text.count(warning) == 1
    assert not np.allclose(speakers.log_likelihoods("many", [features]), scores, atol=0.1)


def test_frames_that_are_all_alike_leave_the_others_as_they_are(gaussians, mixtures, caplog):
    dead = spoken(mixtures, transform_of(0), 700)
    dead.features[:] = 1.0
    people = {"dead": dead, "ann": spoken(mixtures, transform_of(1), 700)}
    speakers, alone = (estimated(gaussians, each) for each in (people, {"ann": people["ann"]}))
    assert torch.equal(speakers.transforms.of("dead"), torch.eye(WIDTH, WIDTH + 1, dtype=torch.float64))
    assert torch.equal(speakers.transforms.of("ann"), alone.transforms.of("ann"))
    assert "1 of 2 speakers stay unadapted, their frames are too much alike, or not finite: dead" in caplog.text


def test_gaussians_score_first_passes_without_transforms(gaussians):
    features = torch.randn(7, WIDTH)
    assert torch.equal(gaussians.log_likelihoods(features), UNADAPTED.log_likelihoods(features))
    assert torch.equal(gaussians.adapted.log_likelihoods(features), ADAPTED.log_likelihoods(features))
    assert gaussians.hidden_layers() == {}
    with pytest.raises(SiteError, match="no hidden units to scale; adapt a network, or adapt by fmllr"):
        gaussians.scaled([])


def test_speakers_belong_to_both_mixtures(gaussians, mixtures, tmp_path):
    """Another twin is another model; so are other Gaussians of adapted features."""
    estimated(gaussians, {"ann": spoken(mixtures, transform_of(0), 700)}).save_speaker(
        "ann", tmp_path / "ann.safetensors", {}
    )
    same = load_speakers(SpeakerAdaptiveGaussians(UNADAPTED, ADAPTED), tmp_path / "ann.safetensors")
    assert same.speakers == ("ann",)
    changed = replace(ADAPTED, mean=ADAPTED.mean + 0.01)
    for other in (
        SpeakerAdaptiveGaussians(changed, ADAPTED),
        SpeakerAdaptiveGaussians(UNADAPTED, changed),
        GaussianModel(UNADAPTED),
    ):
        with pytest.raises(ModelMismatchError):
            load_speakers(other, tmp_path / "ann.safetensors")


def test_data_without_mixtures_or_of_other_features_is_refused(gaussians, mixtures):
    data = spoken(mixtures, transform_of(0), 30)
    with pytest.raises(CorpusError, match=r"'ann': the data has no Gaussian mixtures, which fMLLR needs; .*aligners="):
        estimated(gaussians, {"ann": replace(data, alignment_model=None)})
    DiagonalGmm.flat(torch.zeros(4), torch.ones(4), PDFS).save(mixtures.adapted)
    other = replace(mixtures, unadapted=None)
    with pytest.raises(
        AlignmentError, match=r"'ann': 6 features per frame, but the Gaussian mixtures model 4; fMLLR is"
    ):
        estimated(gaussians, {"ann": replace(data, alignment_model=other)})


@pytest.mark.parametrize("options", [{"min_counts": {"full": 0}}, {"min_counts": {}}, {"estimates": 0}])
def test_options_that_estimate_nothing_are_refused(options):
    with pytest.raises(ValidationError):
        FmllrConfig.model_validate(options)


# On top of transforms


@pytest.fixture
def stacked(mixtures) -> Stacked:
    network = small_dnn()
    people = {name: spoken(mixtures, transform_of(seed), 700, seed) for seed, name in enumerate(("ann", "bob"))}
    below = Fmllr(FmllrConfig()).estimate(network, people, seed=1)
    method = StackedMethod(below, LhucConfig(optimizer="adam", learning_rate=0.1).make(None))
    return method.estimate(network, people, seed=1)


def test_the_method_above_sees_and_scores_moved_features(stacked):
    features = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    moved = stacked.below.transformed("bob", features)
    assert not np.allclose(moved, features, atol=0.05)
    np.testing.assert_array_equal(
        stacked.log_likelihoods("bob", [features]), stacked.above.log_likelihoods("bob", [moved])
    )


def test_another_speakers_amplitudes_are_lent_without_their_transform(stacked):
    features = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    sets = [AdaptationSet(name, "", 0, (), (StoredUtterance(f"{name}1", name, 0, 9),)) for name in ("ann", "bob")]
    moved = stacked.below.transformed("ann", features)
    np.testing.assert_allclose(
        another(stacked, sets, by_environment=False, seed=1).log_likelihoods("ann", [features]),
        stacked.above.log_likelihoods("bob", [moved]),
        rtol=0,
        atol=1e-6,
    )


def test_the_control_of_a_stacked_method_keeps_the_speakers_own_transform(stacked):
    features = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    control = stacked.pooled(["ann"], ["bob"])
    moved = stacked.below.transformed("ann", features)
    expected = stacked.above.pooled(["ann"], ["bob"]).log_likelihoods("ann", [moved])
    np.testing.assert_array_equal(control.log_likelihoods("ann", [features]), expected)
    assert control.speakers == ("ann",)


def test_the_control_of_both_takes_the_others_mean_transform_too(stacked):
    features = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    sets = [AdaptationSet(name, "", 0, (), (StoredUtterance(f"{name}1", name, 0, 9),)) for name in ("ann", "bob")]
    control = others_mean(replace(stacked, pools_below=True), sets, by_environment=False)
    np.testing.assert_allclose(
        control.log_likelihoods("ann", [features]), stacked.log_likelihoods("bob", [features]), rtol=0, atol=1e-6
    )


def test_stacked_files_are_whole_or_refused(stacked, tmp_path):
    network, folder = stacked.below.model, tmp_path / "speakers"
    folder.mkdir()
    stacked.save(folder)
    loaded = load_speakers(network, folder)
    assert isinstance(loaded, Stacked)
    assert torch.equal(loaded.below.transforms.matrices, stacked.below.transforms.matrices)
    path = folder / "ann.safetensors"
    tensors, description = load_tensors(path)
    for damaged, message in (
        (torch.eye(WIDTH), r"ann.safetensors.*below.transform.*\[6, 7\]"),
        (torch.zeros(WIDTH, WIDTH + 1, dtype=torch.float64), "ann.safetensors: its transform is singular or damaged"),
        (torch.full((WIDTH, WIDTH + 1), torch.nan, dtype=torch.float64), "ann.safetensors"),
    ):
        save_tensors(path, {**tensors, "below.transform": damaged}, description)
        with pytest.raises(CheckpointError, match=message):
            load_speakers(network, folder)
    stacked.above.save_speaker("ann", path, {})
    with pytest.raises(
        CheckpointError,
        match=r"ann\.safetensors: has no transform below its method .speakers that have one: 1.; adapt all",
    ):
        load_speakers(network, folder)


def test_a_speaker_without_a_transform_below_is_refused(stacked, mixtures):
    below = replace(stacked.below, transforms=SpeakerTransforms.identity(["bob"], WIDTH))
    method = StackedMethod(below, LhucConfig().make(None))
    with pytest.raises(SpeakerError, match=r"'ann' has no transform of the features \(speakers that have one: 1\);"):
        method.estimate(small_dnn(), {"ann": spoken(mixtures, transform_of(0), 30)}, seed=1)
