"""The i-vector extractor: its estimates against dense Gaussians, ridge regression and a world that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lhuc_asr.base.errors import CheckpointError, FeatureError, SingularError
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.ivector import FORMAT, ExtractorConfig, IvectorExtractor, VoiceStatistics, train_extractor
from lhuc_asr.hmm.ubm import BackgroundConfig, train_background

GAUSSIANS, FEATURES, DIMENSION = 4, 3, 2


def background(gaussians: int = GAUSSIANS, features: int = FEATURES, apart: float = 8.0) -> DiagonalGmm:
    generator = torch.Generator().manual_seed(5)
    mean = apart * torch.randn(gaussians, features, generator=generator)
    variance = 0.5 + torch.rand(gaussians, features, generator=generator)
    weight = torch.full((gaussians,), 1.0 / gaussians)
    return DiagonalGmm(torch.zeros(gaussians, dtype=torch.int64), weight, mean, variance, 1)


def known_world(speakers: int, frames: int, seed: int = 0) -> tuple[IvectorExtractor, torch.Tensor, VoiceStatistics]:
    """An extractor, the speakers' vectors, and statistics of frames whose Gaussians are known."""
    generator = torch.Generator().manual_seed(seed)
    extractor = IvectorExtractor.random(background(), ExtractorConfig(dimension=DIMENSION), seed)
    extractor = replace(extractor, loading=(10.0 * extractor.loading).float().double())
    vectors = torch.randn(speakers, DIMENSION, generator=generator, dtype=torch.float64)
    shape = (speakers, GAUSSIANS, frames, FEATURES)
    noise = extractor.background.variance.double().sqrt()[:, None] * torch.randn(
        shape, generator=generator, dtype=torch.float64
    )
    moved = torch.einsum("kdr,sr->skd", extractor.loading, vectors)
    differences = moved[:, :, None] + noise
    count = torch.full((speakers, GAUSSIANS), float(frames), dtype=torch.float64)
    return extractor, vectors, VoiceStatistics(count, differences.sum(2))


def log_evidence(extractor: IvectorExtractor, statistics: VoiceStatistics) -> float:
    """Log-likelihood of all frames, posteriors of Gaussians fixed, up to what does not depend on the extractor.

    The mean of the n frames of each Gaussian is N(m, S / n + T T') over all speakers, all Gaussians and features at
    once; what is left of the frames does not depend on T.
    """
    loading, variance = extractor.loading.flatten(0, 1), extractor.background.variance.double().flatten()
    total = 0.0
    for count, first in zip(statistics.count, statistics.first, strict=True):
        frames = count.repeat_interleave(first.shape[1])
        covariance = torch.diag(variance / frames) + loading @ loading.T
        normal = torch.distributions.MultivariateNormal(torch.zeros_like(variance), covariance)
        total += float(normal.log_prob(first.flatten() / frames))
    return total


def test_a_vector_is_a_ridge_regression() -> None:
    extractor, _, statistics = known_world(3, 7)
    posterior = extractor.posterior(statistics)
    for speaker in range(3):
        # One row a Gaussian and feature, weighted by the square root of frames over variance.
        weight = (statistics.count[speaker][:, None] / extractor.background.variance.double()).sqrt().flatten()
        mean = (statistics.first[speaker] / statistics.count[speaker][:, None]).flatten()
        rows = torch.cat([weight[:, None] * extractor.loading.flatten(0, 1), torch.eye(DIMENSION, dtype=torch.float64)])
        target = torch.cat([weight * mean, torch.zeros(DIMENSION, dtype=torch.float64)])
        expected = torch.linalg.lstsq(rows, target.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(posterior.mean[speaker], expected)
        torch.testing.assert_close(torch.cholesky_inverse(posterior.factor[speaker]), torch.linalg.inv(rows.T @ rows))


def test_the_likelihood_rises_with_every_iteration() -> None:
    _, _, statistics = known_world(30, 5)
    extractor = IvectorExtractor.random(background(), ExtractorConfig(dimension=DIMENSION), 9)
    likelihoods = []
    for _ in range(12):
        likelihoods.append(log_evidence(extractor, statistics))
        extractor = extractor.estimated(statistics)
    steps = np.diff(likelihoods)
    assert (steps >= -1e-9).all()
    assert steps[0] > 1.0
    moment = extractor.posterior(statistics).second_moment.mean(0)
    torch.testing.assert_close(moment, torch.eye(DIMENSION, dtype=torch.float64), atol=0.05, rtol=0)


def test_a_known_space_is_found_again_and_its_vectors_with_it() -> None:
    truth, vectors, statistics = known_world(400, 40)
    extractor = train_extractor(
        truth.background, statistics, ExtractorConfig(dimension=DIMENSION, iterations=30), seed=3
    )
    whitened = [
        each.loading.flatten(0, 1) / truth.background.variance.double().sqrt().reshape(-1, 1)
        for each in (truth, extractor)
    ]
    angles = torch.linalg.svdvals(torch.linalg.qr(whitened[0])[0].T @ torch.linalg.qr(whitened[1])[0])
    assert float(angles.min()) > 0.999, "cosines of the angles between the subspaces"
    estimated = extractor.posterior(statistics).mean
    # Directions of the space are free to turn: the best linear map explains the vectors.
    mapped = estimated @ torch.linalg.lstsq(estimated, vectors).solution
    assert float((mapped - vectors).square().mean()) < 0.01 * float(vectors.square().mean())
    wrong = train_extractor(truth.background, statistics, ExtractorConfig(dimension=1, iterations=30), seed=3)
    assert log_evidence(wrong, statistics) < log_evidence(extractor, statistics)


def test_frames_one_by_one_sum_to_all_and_nobody_is_zero() -> None:
    extractor, _, _ = known_world(1, 1)
    features = extractor.background.mean[torch.tensor([0, 1, 2, 3, 0, 1])] + 0.3
    whole, part = (VoiceStatistics.of(extractor.background, each) for each in (features, features[:2]))
    groups = VoiceStatistics.of_groups(extractor.background, [iter(features.split(2)), [features[:2]], []])
    assert groups.count.shape == (3, GAUSSIANS)
    for group, alone in enumerate((whole, part)):
        torch.testing.assert_close(groups.count[group], alone.count[0])
        torch.testing.assert_close(groups.first[group], alone.first[0])
    vectors = extractor.vectors(groups)
    torch.testing.assert_close(vectors[:2], torch.cat([extractor.vectors(each) for each in (whole, part)]))
    nobody = extractor.vectors(VoiceStatistics.of(extractor.background, features[:0]))
    assert torch.equal(nobody, torch.zeros(1, DIMENSION))
    assert torch.equal(vectors[2], nobody[0])
    # Few frames stay near nobody; the more there are the farther away.
    more = [features.repeat(times, 1) for times in (1, 10, 100)]
    lengths = [float(extractor.vectors(VoiceStatistics.of(extractor.background, each)).norm()) for each in more]
    assert 0 < lengths[0] < lengths[1] < lengths[2]


def test_a_frame_of_weight_zero_says_nothing_and_one_of_half_counts_half() -> None:
    extractor, _, _ = known_world(1, 1)
    features = extractor.background.mean[torch.tensor([0, 1, 2, 3])] + 0.3
    weighted = VoiceStatistics.of(extractor.background, features, torch.tensor([1.0, 0.0, 0.5, 0.0]))
    first, third = (VoiceStatistics.of(extractor.background, features[row : row + 1]) for row in (0, 2))
    torch.testing.assert_close(weighted.count, first.count + 0.5 * third.count)
    torch.testing.assert_close(weighted.first, first.first + 0.5 * third.first)


def test_frames_count_as_much_as_they_may() -> None:
    _, _, statistics = known_world(2, 500)
    few = VoiceStatistics(statistics.count / 100, statistics.first / 100)
    torch.testing.assert_close(few.weighted(0.1, 50.0).count, 0.1 * few.count)
    many = statistics.weighted(0.1, 50.0)
    torch.testing.assert_close(many.count.sum(1), torch.full((2,), 50.0, dtype=torch.float64))
    torch.testing.assert_close(
        many.first / many.count[:, :, None],
        statistics.first / statistics.count[:, :, None],
    )


def test_the_first_space_moves_means_by_a_share_of_their_deviations() -> None:
    model = background(gaussians=50, features=20)
    extractor = IvectorExtractor.random(model, ExtractorConfig(dimension=10), 1)
    shares = extractor.loading / model.variance.double().sqrt().unsqueeze(2)
    # 10,000 draws of a deviation of 0.1: theirs is off by 0.1 / sqrt(20,000) = 0.0007, their mean by 0.001.
    assert float(shares.std()) == pytest.approx(0.1, abs=0.003)
    assert abs(float(shares.mean())) < 0.004
    assert torch.equal(IvectorExtractor.random(model, ExtractorConfig(dimension=10), 1).loading, extractor.loading)
    assert not torch.equal(IvectorExtractor.random(model, ExtractorConfig(dimension=10), 2).loading, extractor.loading)


def test_a_gaussian_without_frames_keeps_its_directions() -> None:
    """They only turn and stretch with the space, by the root of the vectors' second moment."""
    extractor, _, statistics = known_world(20, 5)
    statistics.count[:, 1] = 0
    statistics.first[:, 1] = 0
    moment = extractor.posterior(statistics).second_moment.mean(0)
    new = extractor.estimated(statistics)
    torch.testing.assert_close(
        new.loading[1] @ new.loading[1].T, extractor.loading[1] @ moment @ extractor.loading[1].T
    )
    assert float(new.loading[1].norm()) > 0.1


@pytest.mark.parametrize("silent", [0, 3])
def test_too_few_speakers_are_refused(silent: int) -> None:
    """Those without frames do not count."""
    extractor, _, statistics = known_world(6 + silent, 50)
    statistics.count[:silent] = 0
    statistics.first[:silent] = 0
    train_extractor(extractor.background, statistics, ExtractorConfig(dimension=6, iterations=2), seed=1)
    expected = "i-vectors: 6 training speakers cannot determine 7 dimensions; lower extractor.dimension to at most 6"
    with pytest.raises(SingularError, match=expected):
        train_extractor(extractor.background, statistics, ExtractorConfig(dimension=7), seed=1)


def test_speakers_who_are_all_the_same_are_refused() -> None:
    """The covariance of their vectors is that of one speaker, 1 / frames, beside vectors of length about 1."""
    extractor, _, statistics = known_world(1, 50)
    alike = VoiceStatistics(1e20 * statistics.count.repeat(5, 1), 1e20 * statistics.first.repeat(5, 1, 1))
    with pytest.raises(SingularError, match="the vectors of 5 training speakers do not spread over 2 dimensions"):
        train_extractor(extractor.background, alike, ExtractorConfig(dimension=DIMENSION), seed=1)


def test_numbers_that_are_too_large_are_told_and_leave_other_speakers_alone() -> None:
    extractor, _, statistics = known_world(2, 3)
    with pytest.raises(FeatureError, match="not finite"):
        VoiceStatistics.of(extractor.background, torch.full((2, FEATURES), torch.nan))
    # Squares are infinite in float32.
    large = VoiceStatistics.of(extractor.background, torch.full((2, FEATURES), 1e20))
    both = [torch.cat([own, other]) for own, other in zip(_parts(statistics), _parts(large), strict=True)]
    vectors = extractor.vectors(VoiceStatistics(*both))
    assert torch.equal(vectors[:2], extractor.vectors(statistics))
    assert not vectors[2].isfinite().any()
    with pytest.raises(FeatureError, match="features of training speakers are too large; compute them again"):
        train_extractor(extractor.background, VoiceStatistics(*both), ExtractorConfig(dimension=DIMENSION), seed=1)
    # All directions are one, and so long that the precision is singular beside the identity that is added to it.
    steep = replace(extractor, loading=1e30 * torch.ones_like(extractor.loading))
    assert not steep.vectors(statistics).isfinite().any()


def _parts(statistics: VoiceStatistics) -> tuple[torch.Tensor, torch.Tensor]:
    return statistics.count, statistics.first


def test_a_background_model_finds_the_mixture_that_made_its_frames() -> None:
    truth = background(apart=20.0)
    generator = torch.Generator().manual_seed(2)
    owners = torch.randint(GAUSSIANS, (4000,), generator=generator)
    features = truth.mean[owners] + truth.variance[owners].sqrt() * torch.randn(4000, FEATURES, generator=generator)
    config = BackgroundConfig(gaussians=GAUSSIANS, iterations=30, growing_iterations=8)
    model = train_background(lambda: features.split(700), config, seed=1)
    assert model.gaussians == GAUSSIANS
    nearest = torch.cdist(truth.mean, model.mean).min(1)
    assert sorted(nearest.indices.tolist()) == list(range(GAUSSIANS))
    assert float(nearest.values.max()) < 0.2
    torch.testing.assert_close(model.variance[nearest.indices], truth.variance, rtol=0.15, atol=0)
    assert torch.equal(train_background(lambda: features.split(700), config, seed=1).mean, model.mean)
    with pytest.raises(FeatureError, match="no frames"):
        train_background(lambda: [features[:0]], config, seed=1)
    with pytest.raises(FeatureError, match="not finite"):
        train_background(lambda: [features, torch.full((1, FEATURES), torch.inf)], config, seed=1)


def test_a_space_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    extractor, _, statistics = known_world(5, 5)
    path = tmp_path / "extractor.safetensors"
    extractor.save(path)
    read = IvectorExtractor.load(path, FEATURES)
    assert torch.equal(read.posterior(statistics).mean, extractor.posterior(statistics).mean)
    torch.testing.assert_close(read.vectors(statistics), extractor.vectors(statistics))
    with pytest.raises(CheckpointError):
        IvectorExtractor.load(path, FEATURES + 1)
    tensors = load_file(path)
    save_file(tensors, path)  # without its format
    with pytest.raises(CheckpointError, match="an i-vector extractor"):
        IvectorExtractor.load(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("variance", lambda each: -each, "a variance is below 0.001, the floor of the training"),
        ("variance", lambda each: torch.full_like(each, 1e-44), "a variance is below 0.001"),
        ("variance", lambda each: torch.full_like(each, 0.9e-3), "a variance is below 0.001"),
        ("weight", lambda each: each * torch.tensor([-1.0, 2.0, 2.0, 1.0]), "a weight is negative, or the weights do"),
        ("weight", lambda each: 1.01 * each, "a weight is negative, or the weights do not add up to 1"),
        ("counting", lambda each: -each, "the weight of frames is not positive"),
        ("counting", lambda each: each * torch.tensor([1.0, 0.0]), "the weight of frames is not positive"),
        ("loading", lambda each: each[:, :2], "its parts are of different features"),
        ("loading", lambda each: each[..., 0], r"loading has shape \[4, 3\], expected"),
        ("loading", lambda each: torch.full_like(each, 1e300, dtype=torch.float64), "loading is not finite"),
        ("mean", lambda each: torch.full_like(each, torch.nan), "mean is not finite"),
    ],
)
def test_a_damaged_space_is_refused(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "extractor.safetensors"
    tensors = known_world(5, 5)[0].tensors()
    save_tensors(path, {**tensors, name: change(tensors[name])}, {"format": FORMAT})
    with pytest.raises(CheckpointError, match=rf"extractor\.safetensors: {message}.*; delete it and run again"):
        IvectorExtractor.load(path)


def test_a_variance_at_the_floor_of_the_training_is_read(tmp_path: Path) -> None:
    """As float32 has the floor, which is a little above or below."""
    extractor = known_world(5, 5)[0]
    # Features that are all alike.
    floored = train_background(lambda: [torch.zeros(50, FEATURES)], BackgroundConfig(gaussians=1), seed=1)
    assert torch.equal(floored.variance, torch.full((1, FEATURES), 1e-3))
    replace(extractor, background=floored, loading=extractor.loading[:1]).save(tmp_path / "extractor.safetensors")
    assert torch.equal(IvectorExtractor.load(tmp_path / "extractor.safetensors").background.variance, floored.variance)
