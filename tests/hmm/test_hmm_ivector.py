"""The space of voices: its estimates against dense Gaussians, ridge regression and a world that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lhuc_asr.base.errors import CheckpointError, FeatureError, SingularError
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.ivector import VoiceSpace, VoiceSpaceConfig, VoiceStatistics, train_space
from lhuc_asr.hmm.ubm import BackgroundConfig, train_background

GAUSSIANS, FEATURES, DIMENSION = 4, 3, 2


def background(gaussians: int = GAUSSIANS, features: int = FEATURES, apart: float = 8.0) -> DiagonalGmm:
    generator = torch.Generator().manual_seed(5)
    mean = apart * torch.randn(gaussians, features, generator=generator)
    variance = 0.5 + torch.rand(gaussians, features, generator=generator)
    weight = torch.full((gaussians,), 1.0 / gaussians)
    return DiagonalGmm(torch.zeros(gaussians, dtype=torch.int64), weight, mean, variance, 1)


def known_world(speakers: int, frames: int, seed: int = 0) -> tuple[VoiceSpace, torch.Tensor, VoiceStatistics]:
    """A space, the speakers' vectors, and statistics of frames whose Gaussians are known."""
    generator = torch.Generator().manual_seed(seed)
    space = VoiceSpace.random(background(), VoiceSpaceConfig(dimension=DIMENSION), seed)
    space = replace(space, loading=(10.0 * space.loading).float().double())
    vectors = torch.randn(speakers, DIMENSION, generator=generator, dtype=torch.float64)
    shape = (speakers, GAUSSIANS, frames, FEATURES)
    noise = space.background.variance.double().sqrt()[:, None] * torch.randn(
        shape, generator=generator, dtype=torch.float64
    )
    moved = torch.einsum("kdr,sr->skd", space.loading, vectors)
    differences = moved[:, :, None] + noise
    count = torch.full((speakers, GAUSSIANS), float(frames), dtype=torch.float64)
    return space, vectors, VoiceStatistics(count, differences.sum(2))


def test_the_evidence_is_that_of_a_dense_gaussian() -> None:
    """log N(frames; m, S + T T') of all frames of a speaker at once, less the background's."""
    space, _, _ = known_world(1, 1)
    generator = torch.Generator().manual_seed(1)
    owners = torch.tensor([0, 0, 2, 3, 3, 3])
    differences = 3 * torch.randn(len(owners), FEATURES, generator=generator, dtype=torch.float64)
    count = torch.bincount(owners, minlength=GAUSSIANS).double().unsqueeze(0)
    first = torch.zeros(GAUSSIANS, FEATURES, dtype=torch.float64).index_add(0, owners, differences).unsqueeze(0)
    loading = space.loading[owners].reshape(-1, DIMENSION)
    noise = torch.diag(space.background.variance.double()[owners].flatten())
    zero = torch.zeros(len(noise), dtype=torch.float64)
    dense, alone = (
        torch.distributions.MultivariateNormal(zero, covariance).log_prob(differences.flatten())
        for covariance in (noise + loading @ loading.T, noise)
    )
    evidence = space.posterior(VoiceStatistics(count, first)).evidence
    assert float(evidence) == pytest.approx(float(dense - alone), rel=1e-9)


def test_a_vector_is_a_ridge_regression() -> None:
    space, _, statistics = known_world(3, 7)
    posterior = space.posterior(statistics)
    for speaker in range(3):
        # One row a Gaussian and feature, weighted by the square root of frames over variance.
        weight = (statistics.count[speaker][:, None] / space.background.variance.double()).sqrt().flatten()
        mean = (statistics.first[speaker] / statistics.count[speaker][:, None]).flatten()
        rows = torch.cat([weight[:, None] * space.loading.flatten(0, 1), torch.eye(DIMENSION, dtype=torch.float64)])
        target = torch.cat([weight * mean, torch.zeros(DIMENSION, dtype=torch.float64)])
        expected = torch.linalg.lstsq(rows, target.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(posterior.mean[speaker], expected)
        torch.testing.assert_close(torch.cholesky_inverse(posterior.factor[speaker]), torch.linalg.inv(rows.T @ rows))


def test_the_evidence_rises_with_every_iteration() -> None:
    _, _, statistics = known_world(30, 5)
    space = VoiceSpace.random(background(), VoiceSpaceConfig(dimension=DIMENSION), 9)
    evidences = []
    for _ in range(12):
        evidences.append(float(space.posterior(statistics).evidence.sum()))
        space = space.estimated(statistics)
    steps = np.diff(evidences)
    assert (steps >= -1e-9).all()
    assert steps[0] > 1.0
    moment = space.posterior(statistics).second_moment.mean(0)
    torch.testing.assert_close(moment, torch.eye(DIMENSION, dtype=torch.float64), atol=0.05, rtol=0)


def test_a_known_space_is_found_again_and_its_vectors_with_it() -> None:
    truth, vectors, statistics = known_world(400, 40)
    space = train_space(truth.background, statistics, VoiceSpaceConfig(dimension=DIMENSION, iterations=30), seed=3)
    whitened = [
        each.loading.flatten(0, 1) / truth.background.variance.double().sqrt().reshape(-1, 1) for each in (truth, space)
    ]
    angles = torch.linalg.svdvals(torch.linalg.qr(whitened[0])[0].T @ torch.linalg.qr(whitened[1])[0])
    assert float(angles.min()) > 0.999, "cosines of the angles between the subspaces"
    estimated = space.posterior(statistics).mean
    # Directions of the space are free to turn: the best linear map explains the vectors.
    mapped = estimated @ torch.linalg.lstsq(estimated, vectors).solution
    assert float((mapped - vectors).square().mean()) < 0.01 * float(vectors.square().mean())
    wrong = train_space(truth.background, statistics, VoiceSpaceConfig(dimension=1, iterations=30), seed=3)
    assert float(wrong.posterior(statistics).evidence.sum()) < float(space.posterior(statistics).evidence.sum())


def test_frames_one_by_one_sum_to_all_and_nobody_is_zero() -> None:
    space, _, _ = known_world(1, 1)
    features = space.background.mean[torch.tensor([0, 1, 2, 3, 0, 1])] + 0.3
    whole = space.statistics(features)
    parts = [space.statistics(part) for part in features.split(2)]
    added = parts[0] + parts[1] + parts[2]
    torch.testing.assert_close(added.count, whole.count)
    torch.testing.assert_close(added.first, whole.first)
    nobody = space.vectors(space.statistics(features[:0]))
    assert torch.equal(nobody, torch.zeros(1, DIMENSION))
    # Few frames stay near nobody; the more there are the farther away.
    lengths = [float(space.vectors(space.statistics(features.repeat(times, 1))).norm()) for times in (1, 10, 100)]
    assert 0 < lengths[0] < lengths[1] < lengths[2]
    batch = VoiceStatistics.stacked([whole, parts[0]])
    alone = torch.cat([space.vectors(each) for each in (whole, parts[0])])
    torch.testing.assert_close(space.vectors(batch), alone)


def test_a_frame_of_weight_zero_says_nothing_and_one_of_half_counts_half() -> None:
    space, _, _ = known_world(1, 1)
    features = space.background.mean[torch.tensor([0, 1, 2, 3])] + 0.3
    weighted = space.statistics(features, torch.tensor([1.0, 0.0, 0.5, 0.0]))
    first, third = (space.statistics(features[row : row + 1]) for row in (0, 2))
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


def test_too_few_speakers_and_broken_features_are_told() -> None:
    space, _, statistics = known_world(1, 3)
    with pytest.raises(FeatureError, match="not finite"):
        space.statistics(torch.full((2, FEATURES), torch.nan))
    nothing = VoiceStatistics(0 * statistics.count, 0 * statistics.first)
    assert torch.equal(space.posterior(nothing).mean, torch.zeros(1, DIMENSION, dtype=torch.float64))
    broken = VoiceStatistics(statistics.count, torch.full_like(statistics.first, torch.inf))
    with pytest.raises(SingularError, match="1 speakers do not tell 2 dimensions"):
        space.estimated(broken)


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
    space, _, statistics = known_world(5, 5)
    path = tmp_path / "space.safetensors"
    space.save(path)
    read = VoiceSpace.load(path, FEATURES)
    assert torch.equal(read.posterior(statistics).mean, space.posterior(statistics).mean)
    torch.testing.assert_close(read.vectors(statistics), space.vectors(statistics))
    with pytest.raises(CheckpointError):
        VoiceSpace.load(path, FEATURES + 1)
    tensors = load_file(path)
    save_file(tensors, path)  # without its format
    with pytest.raises(CheckpointError, match="a space of voices"):
        VoiceSpace.load(path)
    for change in (
        {"variance": -tensors["variance"]},
        {"loading": tensors["loading"][:, :2]},
        {"loading": tensors["mean"]},
        {"counting": -tensors["counting"]},
    ):
        space.save(path)
        content = {**load_file(path), **change}
        save_file(
            {name: value.contiguous() for name, value in content.items()}, path, metadata=_metadata(tmp_path, space)
        )
        with pytest.raises(CheckpointError):
            VoiceSpace.load(path)


def _metadata(folder: Path, space: VoiceSpace) -> dict[str, str]:
    from safetensors import safe_open

    space.save(folder / "whole.safetensors")
    with safe_open(folder / "whole.safetensors", "pt") as file:
        return file.metadata()
