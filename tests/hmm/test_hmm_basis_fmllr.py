"""Basis fMLLR: the basis finds the subspace of the training speakers, and helps where a full transform cannot."""

import logging

import pytest
import torch
from mixture_world import affine, drawn, mixtures, undone

from lhuc_asr.base.errors import CheckpointError, TransformError
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.hmm.basis_fmllr import FORMAT, BasisFmllrEstimation, BasisStatistics, FmllrBasis
from lhuc_asr.hmm.fmllr import FmllrEstimation, estimate_fmllr, fmllr_statistics
from lhuc_asr.hmm.row_updates import RowStatistics

DIMENSION, DIRECTIONS = 5, 3
# Deviation of a direction's weight: the transforms gain tenths of a nat a frame.
SIZE = 0.03
GMM = mixtures(0, (1,) * 12, DIMENSION, apart=2.0)


def _truth(seed: int) -> torch.Tensor:
    """A transform that differs from the identity in three directions alone."""
    weights = SIZE * torch.randn(DIRECTIONS, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    directions = torch.stack([affine(900 + number, DIMENSION, 1.0) for number in range(DIRECTIONS)])
    unit = torch.eye(DIMENSION, DIMENSION + 1, dtype=torch.float64)
    return unit + (weights * (directions - unit)).sum(0)


def _speaker(seed: int, frames: int) -> RowStatistics:
    made, pdfs = drawn(GMM, frames, seed)
    features = undone(_truth(seed), made)
    return fmllr_statistics(f"s{seed}", GMM.posteriors(features, pdfs), GMM, features)


@pytest.fixture(scope="module")
def basis() -> FmllrBasis:
    parts = [
        BasisStatistics.of(RowStatistics.stacked([_speaker(s, 1500), _speaker(s + 1, 1500)])) for s in (1, 3, 5, 7)
    ]
    return FmllrBasis.from_statistics(parts[0] + parts[1] + parts[2] + parts[3])


def test_the_first_matrices_span_the_training_speakers_transforms(basis):
    """To first order in their size; the gain of the others is what noise gives."""
    assert bool((basis.gain.diff() <= 1e-12).all())
    assert float(basis.gain[:DIRECTIONS].sum()) > 5 * float(basis.gain[DIRECTIONS:].sum())
    first = torch.linalg.qr(basis.matrices[:DIRECTIONS].flatten(1).T)[0]
    unit = torch.eye(DIMENSION, DIMENSION + 1, dtype=torch.float64)
    unseen = (_truth(100) - unit).flatten()
    assert float((first.T @ unseen).norm() / unseen.norm()) > 0.9


def test_matrices_have_unit_curvature():
    """In the basis, the expected second derivative at the identity is minus the identity: by automatic derivatives."""
    speaker = _speaker(1, 1500)
    basis = FmllrBasis.from_statistics(BasisStatistics.of(speaker))

    def average(coefficients: torch.Tensor) -> torch.Tensor:
        transform = speaker.identity() + torch.einsum("b,bde->de", coefficients, basis.matrices)
        return speaker.objective(transform)[0] / speaker.count[0]

    origin = torch.zeros(len(basis.matrices), dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(average, origin)
    torch.testing.assert_close(hessian, -torch.eye(len(origin), dtype=torch.float64), atol=1e-6, rtol=0)


def test_few_frames_gain_on_unseen_frames_where_a_full_transform_loses(basis):
    """Sixty frames of new speakers, and many others to judge by."""
    config = BasisFmllrEstimation(coefficients_per_frame=DIRECTIONS / 60)
    gains = []
    for seed in range(20, 30):
        few = _speaker(seed, 60)
        made, pdfs = drawn(GMM, 2000, seed + 500)
        features = undone(_truth(seed), made)
        judge = fmllr_statistics("judge", GMM.posteriors(features, pdfs), GMM, features)
        estimates = basis.estimate(few, config), estimate_fmllr(few, FmllrEstimation(min_counts={"full": 10}))
        assert estimates[0].coefficients == (DIRECTIONS,)
        start = judge.objective(judge.identity())
        gains.append([float(judge.objective(e.transforms.matrices) - start) / 2000 for e in estimates])
    by_basis, full = torch.tensor(gains).T
    assert bool((by_basis > full).all())
    assert float(by_basis.mean()) > 0.05
    assert float(full.mean()) < 0.0


def test_every_step_raises_the_likelihood_and_all_matrices_reach_the_full_transform(basis):
    speaker = _speaker(40, 1500)
    best = float(estimate_fmllr(speaker, FmllrEstimation(sweeps=300)).improvement)
    gains = [
        float(basis.estimate(speaker, BasisFmllrEstimation(iterations=steps, coefficients_per_frame=1.0)).improvement)
        for steps in (1, 2, 3, 5, 10, 100)
    ]
    assert gains == sorted(gains)
    assert gains[0] > 0
    assert gains[-1] == pytest.approx(best, rel=1e-4)
    assert gains[-2] > 0.9 * best


def test_steps_stay_on_the_side_of_the_identity(basis):
    """Frames of a mirrored speaker: the determinant must not change its sign on the way."""
    speaker = _speaker(41, 1500)
    mirrored = speaker.linear.clone()
    mirrored[:, 0] *= -1
    speaker = RowStatistics(speaker.names, speaker.count, mirrored, speaker.quadratic)
    estimate = basis.estimate(speaker)
    assert float(torch.linalg.det(estimate.transforms.matrices[0, :, :-1])) > 0
    assert float(estimate.improvement) > 0


@pytest.mark.parametrize("frames", [0, 10])
def test_too_few_frames_give_the_identity_exactly_and_a_warning(basis, frames, caplog):
    both = RowStatistics.stacked([_speaker(50, frames), _speaker(51, 80)])
    with caplog.at_level(logging.WARNING):
        estimate = basis.estimate(both)
    assert torch.equal(estimate.transforms.of("s50"), torch.eye(DIMENSION, DIMENSION + 1, dtype=torch.float64))
    assert estimate.coefficients == (0, 16)
    assert estimate.improvement[0] == 0.0 < estimate.improvement[1]
    assert (
        f"1 of 2 speakers have fewer than 50 frames of speech and keep their features as they are: s50 ({frames})"
        in (caplog.text)
    )


@pytest.mark.parametrize("sums", ["count", "linear", "quadratic"])
def test_statistics_that_are_not_finite_give_the_identity_and_a_warning(basis, sums, caplog):
    speaker = _speaker(50, 80)
    getattr(speaker, sums).fill_(torch.inf)
    estimate = basis.estimate(speaker)
    assert torch.equal(estimate.transforms.of("s50"), torch.eye(DIMENSION, DIMENSION + 1, dtype=torch.float64))
    assert estimate.coefficients == (0,)
    assert "1 of 1 speakers stay unadapted" in caplog.text


def test_a_speaker_does_not_depend_on_who_else_is_estimated(basis):
    parts = [_speaker(seed, 200 + seed) for seed in range(60, 64)]
    together = basis.estimate(RowStatistics.stacked(parts))
    for place, part in enumerate(parts):
        assert torch.equal(basis.estimate(part).transforms.matrices[0], together.transforms.matrices[place])


def test_speakers_without_frames_or_with_a_constant_feature_make_no_basis():
    with pytest.raises(TransformError, match="basis fMLLR: the training speakers have no frames"):
        FmllrBasis.from_statistics(BasisStatistics.of(_speaker(1, 0)))


def test_a_saved_basis_is_the_same_bit_for_bit_and_others_are_told(tmp_path, basis):
    path = tmp_path / "basis.safetensors"
    basis.save(path)
    loaded = FmllrBasis.load(path, DIMENSION)
    assert torch.equal(loaded.matrices, basis.matrices)
    assert torch.equal(loaded.gain, basis.gain)
    with pytest.raises(CheckpointError, match=r"matrices has shape \[30, 5, 6\], expected \[any, 7, 8\]"):
        FmllrBasis.load(path, 7)
    save_tensors(path, {"matrices": basis.matrices[:3], "gain": basis.gain[:2]}, {"format": FORMAT})
    with pytest.raises(CheckpointError, match="3 matrices with 2 gains"):
        FmllrBasis.load(path, DIMENSION)


def test_a_smaller_basis_is_the_beginning_of_the_whole(basis):
    small = FmllrBasis.from_statistics(BasisStatistics.of(_speaker(1, 1500)), size=4)
    whole = FmllrBasis.from_statistics(BasisStatistics.of(_speaker(1, 1500)))
    assert small.matrices.shape == (4, DIMENSION, DIMENSION + 1)
    assert torch.equal(small.matrices, whole.matrices[:4])
    assert len(whole.matrices) == DIMENSION * (DIMENSION + 1)
