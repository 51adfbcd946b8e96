"""LDA against the classical solution written differently; MLLT against its definition and a known answer."""

import pytest
import torch
from mixture_world import dense_posteriors, drawn, mixtures

from lhuc_asr.base.errors import TransformError
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.lda_mllt import LdaStatistics, Mllt, MlltStatistics, estimate_lda, estimate_mllt

CLASSES, COORDINATES = 5, 7


def _classes(seed: int, frames: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of classes with a common full covariance, and a mean far from zero; classes differ in three directions."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (frames,), generator=generator)
    means = torch.randn(CLASSES, 3, generator=generator) @ torch.randn(3, COORDINATES, generator=generator)
    mixing = torch.randn(COORDINATES, COORDINATES, generator=generator)
    return means[classes] + 4.0 + 0.5 * torch.randn(frames, COORDINATES, generator=generator) @ mixing, classes


def _covariances(features: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance within and between classes, centred class by class."""
    values = features.double()
    means = torch.stack([values[classes == number].mean(0) for number in range(CLASSES)])[classes]
    within, between = values - means, means - values.mean(0)
    return within.T @ within / len(values), between.T @ between / len(values)


def test_lda_is_the_generalised_eigenvalue_problem():
    """The eigenvectors of within^-1 between, by the solver for matrices that are not symmetric."""
    features, classes = _classes(0)
    lda = estimate_lda(LdaStatistics.of(features, classes, CLASSES), 3)
    within, between = _covariances(features, classes)
    value, vectors = torch.linalg.eig(torch.linalg.solve(within, between))
    order = value.real.argsort(descending=True)[:3]
    torch.testing.assert_close(lda.ratio, value.real[order], rtol=1e-6, atol=1e-9)
    for row, vector in zip(lda.matrix, vectors.real.T[order], strict=True):
        cosine = row @ vector / row.norm() / vector.norm()
        assert abs(float(cosine)) == pytest.approx(1.0, abs=1e-6)


def test_features_of_lda_are_white_within_classes_and_sorted_by_what_tells_them_apart():
    features, classes = _classes(1)
    lda = estimate_lda(LdaStatistics.of(features, classes, CLASSES), 4)
    within, between = (lda.matrix @ covariance @ lda.matrix.T for covariance in _covariances(features, classes))
    unit = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(within, unit, atol=1e-5, rtol=0)
    torch.testing.assert_close(between, torch.diag(lda.ratio), atol=1e-4, rtol=0)
    assert bool((lda.ratio.diff() <= 0).all())


def test_lda_statistics_add_up_and_leave_out_frames_of_weight_zero():
    features, classes = _classes(2)
    whole = LdaStatistics.of(features[:400], classes[:400], CLASSES)
    halves = [LdaStatistics.of(features[rows], classes[rows], CLASSES) for rows in (slice(150), slice(150, 400))]
    weights = (torch.arange(600) < 400).float()
    weighted = LdaStatistics.of(features, torch.where(weights > 0, classes, -1), CLASSES, weights)
    for other in (halves[0] + halves[1], weighted):
        for name in ("count", "first", "second"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name))
    half = LdaStatistics.of(features, classes, CLASSES, 0.5 * weights)
    torch.testing.assert_close(2 * half.second, whole.second)
    torch.testing.assert_close(2 * half.first, whole.first)


def test_a_constant_or_copied_coordinate_is_told():
    features, classes = _classes(3)
    for bad in (torch.full((600,), 2.0), features[:, 0] - features[:, 1]):
        features[:, 4] = bad
        with pytest.raises(TransformError, match="covariance within classes is singular: spliced coordinate 4"):
            estimate_lda(LdaStatistics.of(features, classes, CLASSES), 2)


@pytest.mark.parametrize("dimension", [0, CLASSES, COORDINATES + 1])
def test_more_features_than_lda_has_are_refused(dimension):
    features, classes = _classes(4)
    with pytest.raises(TransformError, match=rf"LDA: {dimension} features from 7 coordinates of 5 classes"):
        estimate_lda(LdaStatistics.of(features, classes, CLASSES), dimension)


def _statistics(gmm: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor) -> MlltStatistics:
    return MlltStatistics.of(gmm.posteriors(features, pdfs), gmm, features)


def test_mllt_statistics_are_their_definition():
    """Sums over Gaussians of weighted outer products of x - m, the means not those of the frames."""
    gmm = mixtures(0, (2, 3, 1), 4)
    features, pdfs = drawn(gmm, 400, 1)
    features = features.float() + 0.3
    posteriors = dense_posteriors(gmm, features, pdfs, torch.ones(400))
    centred = features.double().unsqueeze(1) - gmm.mean.double()
    expected = torch.einsum("tm,md,tmi,tmj->dij", posteriors, 1 / gmm.variance.double(), centred, centred)
    parts = [_statistics(gmm, features[rows], pdfs[rows]) for rows in (slice(170), slice(170, 400))]
    rows = (parts[0] + parts[1]).centred(gmm)
    torch.testing.assert_close(rows.quadratic[0], expected, rtol=1e-4, atol=1e-2)
    assert float(rows.count) == pytest.approx(400.0)
    assert not rows.linear.any()


def _log_likelihood(gmm: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor, matrix: torch.Tensor) -> float:
    """Average log-likelihood of the untransformed frames under a model of transformed ones."""
    scores = gmm.log_likelihoods((features.double() @ matrix.T).float()).double()
    return float(scores.gather(1, pdfs.unsqueeze(1)).mean() + torch.linalg.slogdet(matrix)[1])


def test_mllt_finds_the_rotation_of_diagonal_covariances():
    """Up to order and sign of the axes; so the likelihood, which is that of the model that made the data, is compared.

    It rises at every round of MLLT and estimation, as Kaldi alternates them.
    """
    truth = mixtures(5, (1,) * 6, 4)
    truth = DiagonalGmm(truth.pdf, truth.weight, truth.mean, truth.variance**3, truth.pdf_count)
    made, pdfs = drawn(truth, 20_000, 6)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64))[0]
    features = (made @ rotation).float()  # made = features @ rotation.T
    best = _log_likelihood(truth, features, pdfs, rotation)
    matrix = torch.eye(4, dtype=torch.float64)
    gmm = DiagonalGmm.flat(features.mean(0), features.var(0), 6)
    gmm = gmm.update(gmm.accumulate(features, pdfs))
    before = start = _log_likelihood(gmm, features, pdfs, matrix)
    for _ in range(10):
        moved = (features.double() @ matrix.T).float()
        mllt = estimate_mllt(_statistics(gmm, moved, pdfs), gmm, 20)
        matrix, gmm = mllt.matrix @ matrix, mllt.moved(gmm)
        after = _log_likelihood(gmm, features, pdfs, matrix)
        assert after - before == pytest.approx(mllt.improvement, abs=1e-4)  # one Gaussian a pdf: Q is the likelihood
        moved = (features.double() @ matrix.T).float()
        gmm = gmm.update(gmm.accumulate(moved, pdfs))
        estimated = _log_likelihood(gmm, features, pdfs, matrix)
        assert estimated >= after - 1e-5 >= before - 2e-5
        before = estimated
    assert start < best - 0.1
    assert before == pytest.approx(best, abs=0.005)
    # Rows of the product have one large entry each: the axes are found.
    axes = torch.nn.functional.normalize(matrix @ rotation.T, dim=1).abs()
    assert sorted(axes.argmax(1).tolist()) == [0, 1, 2, 3]
    assert float(axes.amax(1).min()) > 0.99


def test_mllt_raises_the_likelihood_of_mixtures():
    """By EM: at fixed posteriors its auxiliary function rises, so the likelihood rises at least as much."""
    gmm = mixtures(8, (3, 2, 4), 5)
    features, pdfs = drawn(gmm, 3000, 9)
    mixing = torch.eye(5) + 0.3 * torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    features = features.float() @ mixing
    unit = torch.eye(5, dtype=torch.float64)
    before = _log_likelihood(gmm, features, pdfs, unit)
    mllt = estimate_mllt(_statistics(gmm, features, pdfs), gmm)
    assert mllt.improvement > 0
    assert _log_likelihood(mllt.moved(gmm), features, pdfs, mllt.matrix) >= before + mllt.improvement - 1e-4


def test_moved_models_have_transformed_means_alone():
    gmm = mixtures(0, (2, 1), 3)
    moved = Mllt(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64), 0.0).moved(gmm)
    expected = torch.stack([2 * gmm.mean[:, 1], gmm.mean[:, 0], gmm.mean[:, 1] + gmm.mean[:, 2]], dim=1)
    assert torch.equal(moved.mean, expected)
    assert torch.equal(moved.variance, gmm.variance)


def test_mllt_without_frames_or_with_a_constant_feature_is_told():
    gmm = mixtures(0, (2, 1), 3)
    features, pdfs = drawn(gmm, 100, 1)
    none = gmm.posteriors(features.float(), pdfs, torch.zeros(100))
    with pytest.raises(TransformError, match="MLLT: every frame has weight 0"):
        estimate_mllt(MlltStatistics.of(none, gmm, features.float()), gmm)
    few = slice(2)
    with pytest.raises(TransformError, match="MLLT: the covariance of the features is singular"):
        estimate_mllt(_statistics(gmm, features[few].float(), pdfs[few]), gmm)
