"""The search finds the warp of synthetic vocal tracts, and its likelihoods are those of their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vocal_tracts import PHONES, spoken

from lhuc_asr.base.errors import AlignmentError, FeatureError, TransformError
from lhuc_asr.base.numerics import DEVIATION_FLOOR
from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.context import splice
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.vtln import warped_features
from lhuc_asr.hmm.feature_space import AsStored, FeatureSpace, SplicedLinear
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.vtln import (
    AlignedRecording,
    WarpModel,
    WarpSearch,
    WarpSearchConfig,
    search_warps,
    speaker_warps,
    warp_transforms,
)

FEATURES = FeatureConfig(kind="mfcc", bins=23, delta_order=2)
WARPS = (0.9, 1.0, 1.08)


def _model(space: FeatureSpace, features: FeatureConfig = FEATURES) -> WarpModel:
    """A Gaussian for each phone, from speakers of the average vocal tract."""
    rows, pdfs = [], []
    for seed in range(4):
        recording = spoken(1.0, seed)
        rows.append(space.apply(torch.from_numpy(_normalised([recording], features, 1.0)[0]), [len(recording.pdfs)]))
        pdfs.append(torch.from_numpy(recording.pdfs))
    flat = DiagonalGmm.flat(torch.zeros(space.dimension), torch.ones(space.dimension), PHONES)
    return WarpModel(flat.update(flat.accumulate(torch.cat(rows), torch.cat(pdfs))), features, space)


def _normalised(recordings: list[AlignedRecording], features: FeatureConfig, warp: float) -> list[np.ndarray]:
    values = [warped_features(each.samples, features, [warp])[:, 0] for each in recordings]
    accumulator = CmvnAccumulator(features.dimension)
    for each in values:
        accumulator.add(each)
    return [accumulator.estimate().apply(each) for each in values]


def _spliced() -> SplicedLinear:
    generator = torch.Generator().manual_seed(1)
    return SplicedLinear(39, 13, 2, torch.randn(12, 13 * 5, generator=generator) / 8)


@pytest.fixture(scope="module")
def model() -> WarpModel:
    return _model(AsStored(39))


@pytest.mark.parametrize("factor", [0.84, 0.92, 1.0, 1.08, 1.15])
def test_the_warp_of_a_vocal_tract_is_found(model, factor):
    """A tract whose formants lie higher by a factor needs a warp of one over it."""
    search = search_warps(model, [spoken(factor, 10), spoken(factor, 11)], WarpSearchConfig().warps)
    assert search.best == pytest.approx(1 / factor, abs=0.021)


@pytest.mark.parametrize("space", [AsStored(39), _spliced()], ids=["as stored", "spliced"])
def test_the_likelihoods_are_those_of_their_definition(space):
    """Weighted log-likelihoods of normalised features, and half the log-determinant of all frames' covariance."""
    model = _model(space)
    generator = np.random.default_rng(5)
    recordings = [spoken(1.1, seed, phones=10) for seed in (20, 21)]
    weights = [generator.choice([0.0, 0.01, 1.0], len(each.pdfs)) for each in recordings]
    recordings = [
        AlignedRecording(each.samples, np.where(weight > 0, each.pdfs, -1), weight)
        for each, weight in zip(recordings, weights, strict=True)
    ]
    search = search_warps(model, recordings, WARPS)
    assert search.count == pytest.approx(sum(weight.sum() for weight in weights))
    for place, warp in enumerate(WARPS):
        total, frames = 0.0, []
        for values, recording in zip(_normalised(recordings, FEATURES, warp), recordings, strict=True):
            rows = torch.from_numpy(values)
            if isinstance(space, SplicedLinear):
                rows = splice(rows[:, :13], space.context) @ space.matrix.T
            scores = model.gmm.log_likelihoods(rows).double().numpy()
            own = scores[np.arange(len(scores)), np.maximum(recording.pdfs, 0)]
            total += (recording.weights * own).sum() / search.count
            frames.append(rows.double().numpy())
        covariance = np.cov(np.concatenate(frames).T, bias=True)
        expected = total + 0.5 * np.linalg.slogdet(covariance).logabsdet
        # Splicing repeats the ends, so that the means are not zero exactly.
        assert search.log_likelihoods[place] == pytest.approx(expected, abs=0.02)


def test_the_scale_of_the_features_does_not_matter():
    """Features that are smaller are likelier by their determinant, and no more."""
    space = _spliced()
    model, scale = _model(space), torch.linspace(0.2, 5.0, space.dimension)
    gmm = model.gmm
    scaled = DiagonalGmm(gmm.pdf, gmm.weight, gmm.mean * scale, gmm.variance * scale**2, gmm.pdf_count)
    stretched = WarpModel(scaled, FEATURES, space.multiplied(torch.diag(scale)))
    speech = [spoken(1.1, 30)]
    one, other = (search_warps(each, speech, WARPS) for each in (model, stretched))
    np.testing.assert_allclose(one.log_likelihoods, other.log_likelihoods, atol=1e-3)


def test_each_speaker_is_searched_alone_and_too_little_speech_keeps_a_warp_of_one(model, caplog):
    config = WarpSearchConfig(min_count=100)
    brief = spoken(1.15, 40, phones=5)
    people = {"tall": [spoken(0.9, 41)], "short": [spoken(1.1, 42)], "brief": [brief], "silent": []}
    warps = speaker_warps(model, people, config)
    assert list(warps) == list(people)
    assert warps["short"] < 0.95 < 1.05 < warps["tall"]
    assert warps["brief"] == warps["silent"] == 1.0
    assert "2 of 4 speakers have fewer than 100 frames of speech and keep a warp of 1: brief, silent" in caplog.text
    assert speaker_warps(model, {"tall": people["tall"]}, config) == {"tall": warps["tall"]}
    assert speaker_warps(model, {"brief": [brief]}, WarpSearchConfig(min_count=10))["brief"] < 0.95


def test_short_noise_has_the_warp_of_exact_sums():
    """Twenty frames in forty dimensions: the determinant is that of what rounding leaves, and of the floor."""
    chosen, exact = [], []
    space = SplicedLinear(39, 13, 2, torch.eye(13 * 5)[:40])
    model = _model(space)
    for seed in range(6):
        samples = np.random.default_rng(seed).normal(0.0, 0.1, 160 * 21).astype(np.float32)
        pdfs = np.zeros(len(warped_features(samples, FEATURES, [1.0])), np.int64)
        recording = AlignedRecording(samples, pdfs, np.ones(len(pdfs)))
        search = search_warps(model, [recording], WarpSearchConfig().warps)
        chosen.append(search.best)
        likelihoods = []
        for warp in search.warps:
            rows = splice(torch.from_numpy(_normalised([recording], FEATURES, warp)[0])[:, :13], 2) @ space.matrix.T
            own = model.gmm.log_likelihoods(rows)[:, 0].double().mean()
            covariance = rows.double().T @ rows.double() / len(rows) + DEVIATION_FLOOR**2 * torch.eye(40)
            likelihoods.append(float(own + 0.5 * torch.linalg.slogdet(covariance).logabsdet))
        exact.append(search.warps[int(np.argmax(likelihoods))])
    assert chosen == exact


def test_of_equally_likely_warps_the_nearest_to_one_is_the_best(model):
    assert WarpSearch(WARPS, np.array([-3.0, -3.0, -3.0]), 1.0).best == 1.0
    assert WarpSearch(WARPS, np.array([-2.0, -3.0, -2.0]), 1.0).best == 1.08
    silence = AlignedRecording(np.zeros(16000, np.float32), np.zeros(98, np.int64), np.ones(98))
    assert search_warps(model, [silence], WARPS).best == 1.0


def test_frames_without_weight_say_nothing(model):
    recording = spoken(1.1, 50)
    half = np.arange(len(recording.pdfs)) % 2
    kept = AlignedRecording(recording.samples, recording.pdfs, half)
    wrong = AlignedRecording(recording.samples, np.where(half, recording.pdfs, 10**6), half)
    one, other = (search_warps(model, [each], WARPS).log_likelihoods for each in (kept, wrong))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("features", "space", "unexplained"),
    [(FeatureConfig(), AsStored(40), 0.1), (FEATURES, AsStored(39), 0.35), (FEATURES, _spliced(), 0.35)],
    ids=["fbank", "mfcc", "spliced"],
)
def test_a_linear_transform_does_what_the_warp_does(features, space, unexplained):
    """On other recordings of the speaker, it leaves a part of the difference that the warp makes, in square."""
    heard, new = [spoken(1.1, seed) for seed in (70, 71, 72)], [spoken(1.1, seed) for seed in (73, 74)]
    transforms = warp_transforms({"ann": [each.samples for each in heard]}, {"ann": 0.9}, features, space)
    lengths = [len(each.pdfs) for each in new]
    before, wanted = (
        space.apply(torch.from_numpy(np.concatenate(_normalised(new, features, warp))), lengths) for warp in (1.0, 0.9)
    )
    moved = transforms.apply(before, lengths, ["ann", "ann"])
    assert (moved - wanted).square().mean() < unexplained * (before - wanted).square().mean()


def test_linear_transforms_are_the_identity_without_a_warp_or_speech_and_each_is_its_speakers_own():
    people = {"ann": [spoken(1.0, 80).samples], "bob": [spoken(0.9, 81).samples], "cat": []}
    warps = {"ann": 1.0, "bob": 1.1, "cat": 1.2}
    together = warp_transforms(people, warps, FEATURES, AsStored(39))
    identity = torch.eye(39, 40, dtype=torch.float64)
    assert torch.equal(together.of("ann"), identity)
    assert torch.equal(together.of("cat"), identity)
    assert not torch.equal(together.of("bob"), identity)
    alone = warp_transforms({"bob": people["bob"]}, {"bob": 1.1}, FEATURES, AsStored(39))
    assert torch.equal(alone.of("bob"), together.of("bob"))


def test_the_warps_are_kaldis_and_one_is_among_them():
    warps = WarpSearchConfig().warps
    assert len(warps) == 41
    np.testing.assert_allclose(warps, np.arange(85, 126) / 100)
    assert WarpSearchConfig(lowest=0.87, highest=1.1, step=0.05).warps == (0.9, 0.95, 1.0, 1.05, 1.1)
    assert WarpSearchConfig(lowest=1.0, highest=1.0).warps == (1.0,)


def test_bad_input_is_refused(model):
    recording = spoken(1.0, 60, phones=10)
    frames = len(recording.pdfs)

    def search(samples=recording.samples, pdfs=recording.pdfs, weights=recording.weights):
        return search_warps(model, [AlignedRecording(samples, pdfs, weights)], WARPS)

    with pytest.raises(AlignmentError, match=rf"{frames - 1} pdfs and {frames} weights for {frames} frames; align"):
        search(pdfs=recording.pdfs[1:])
    with pytest.raises(AlignmentError, match="pdfs 3 to 8, but the mixtures have pdfs 0 to 7"):
        search(pdfs=np.where(np.arange(frames) % 2, 3, PHONES))
    with pytest.raises(AlignmentError, match="no frame of the recordings has weight"):
        search(weights=np.zeros(frames))
    with pytest.raises(FeatureError, match="399 samples"):
        search(samples=np.zeros(399, np.float32))
    with pytest.raises(AlignmentError, match="likelihoods of the recordings are not finite"):
        search(
            samples=np.where(np.arange(len(recording.samples)) == 5000, np.nan, recording.samples).astype(np.float32)
        )
    with pytest.raises(AlignmentError, match="likelihoods of the recordings are not finite"):
        search(weights=np.where(np.arange(frames) == 3, np.inf, 1.0))
    with pytest.raises(TransformError, match="mixtures of 39 features in a space of 12; use the space"):
        WarpModel(model.gmm, FEATURES, _spliced())
