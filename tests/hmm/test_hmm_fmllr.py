"""fMLLR: statistics by their definition, known transforms found again, and what too few frames give."""

import logging
from dataclasses import replace

import pytest
import torch
from mixture_world import affine, dense_posteriors, drawn, mixtures, undone
from pydantic import ValidationError

from lhuc_asr.base.errors import SingularError
from lhuc_asr.hmm.fmllr import FmllrEstimation, estimate_fmllr, estimate_speakers, fmllr_statistics
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.speaker_transforms import compose

# Thirty seconds.
FRAMES = 3000


def _statistics(name: str, gmm: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor) -> RowStatistics:
    return fmllr_statistics(name, gmm.posteriors(features, pdfs), gmm, features)


def _log_likelihood(gmm: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor, transform: torch.Tensor) -> float:
    """Average log-likelihood per frame, with the transform's log determinant."""
    moved = features.double() @ transform[:, :-1].T + transform[:, -1]
    scores = gmm.log_likelihoods(moved.float()).double().gather(1, pdfs.unsqueeze(1))
    return float(scores.mean() + torch.linalg.slogdet(transform[:, :-1])[1])


def test_statistics_are_their_definition():
    """Posteriors of one model in its features, sums with another model and other features of the same frames."""
    gmm, other = mixtures(0, (2, 3, 1), 3), mixtures(1, (2, 3, 1), 3)
    features, pdfs = drawn(gmm, 300, 2)
    moved = (features @ affine(3, 3)[:, :-1].T).float()
    weights = torch.tensor([1.0, 0.01, 0.0]).repeat(100)
    posteriors = gmm.posteriors(features.float(), torch.where(weights > 0, pdfs, -1), weights)
    statistics = fmllr_statistics("anna", posteriors, other, moved)
    dense = dense_posteriors(gmm, features, pdfs, weights)
    mean, precision = other.mean.double(), 1 / other.variance.double()
    extended = torch.cat([moved.double(), torch.ones(300, 1)], 1)
    assert statistics.names == ("anna",)
    torch.testing.assert_close(statistics.count, dense.sum().reshape(1), rtol=1e-6, atol=0)
    linear = torch.einsum("tm,md,tn->dn", dense, mean * precision, extended)
    torch.testing.assert_close(statistics.linear[0], linear, rtol=1e-5, atol=1e-2)
    quadratic = torch.einsum("tm,md,tn,tk->dnk", dense, precision, extended, extended)
    torch.testing.assert_close(statistics.quadratic[0], quadratic, rtol=1e-5, atol=1e-2)


def test_a_known_full_transform_is_found_within_one_percent_from_thirty_seconds():
    """By two estimates, the second's posteriors from the features of the first.

    The error falls with the Gaussians' width over their distance, here a twentieth, and with the root of the frames.
    """
    gmm = mixtures(0, (4,) * 30, 13, apart=5.0, variance=0.06)
    truth = affine(1, 13, 0.2)
    made, pdfs = drawn(gmm, FRAMES, 2)
    features = undone(truth, made)
    first = estimate_fmllr(_statistics("s", gmm, features, pdfs)).transforms
    moved = first.apply(features, [FRAMES], ["s"])
    second = estimate_fmllr(_statistics("s", gmm, moved, pdfs))
    error = (second.transforms.after(first).of("s") - truth).norm() / truth.norm()
    assert float(error) < 0.01
    assert second.forms == ("full",)
    assert (truth - torch.eye(13, 14)).norm() / truth.norm() > 0.3


@pytest.mark.parametrize("form", ["block", "diagonal", "offset"])
def test_a_known_restricted_transform_is_found_exactly_in_form(form):
    gmm = mixtures(0, (2,) * 10, 6, apart=5.0, variance=0.05)
    unit, mask = torch.eye(6, 7, dtype=torch.float64), torch.zeros(6, 7, dtype=torch.bool)
    mask[:, 6] = True
    for first in range(0, 6, {"block": 2, "diagonal": 1, "offset": 6}[form]):
        size = {"block": 2, "diagonal": 1, "offset": 0}[form]
        mask[first : first + size, first : first + size] = True
    truth = torch.where(mask, affine(3, 6, 0.3), unit)
    made, pdfs = drawn(gmm, FRAMES, 4)
    statistics = _statistics("s", gmm, undone(truth, made), pdfs)
    transform = estimate_fmllr(statistics, FmllrEstimation(min_counts={form: 100.0})).transforms.of("s")
    assert torch.equal(transform[~mask], unit[~mask])
    torch.testing.assert_close(transform, truth, atol=0.02, rtol=0)


def test_closed_forms_are_maxima():
    """Of the diagonal form and of the offset, whose free numbers have no gradient left."""
    gmm = mixtures(5, (3, 2, 4), 4)
    made, pdfs = drawn(gmm, 1000, 6)
    statistics = _statistics("s", gmm, undone(affine(7, 4, 0.3), made), pdfs)
    for form, free in (("diagonal", torch.eye(4, 5).bool()), ("offset", torch.zeros(4, 5).bool())):
        free[:, 4] = True
        point = estimate_fmllr(statistics, FmllrEstimation(min_counts={form: 1.0})).transforms.matrices.requires_grad_()
        (gradient,) = torch.autograd.grad(statistics.objective(point).sum(), point)
        assert float(gradient[0][free].abs().max()) < 1e-6 * 1000


def test_richer_forms_gain_more_and_the_likelihood_rises_by_at_least_the_gain():
    gmm = mixtures(8, (3, 2, 4), 6)
    made, pdfs = drawn(gmm, 2000, 9)
    features = undone(affine(10, 6, 0.3), made)
    statistics = _statistics("s", gmm, features, pdfs)
    before = _log_likelihood(gmm, features, pdfs, torch.eye(6, 7, dtype=torch.float64))
    gains = [0.0]
    for form in ("offset", "diagonal", "block", "full"):
        estimate = estimate_fmllr(statistics, FmllrEstimation(min_counts={form: 100.0}))
        gains.append(float(estimate.improvement))
        after = _log_likelihood(gmm, features, pdfs, estimate.transforms.of("s"))
        assert after >= before + gains[-1] - 1e-4
    assert gains == sorted(gains)
    assert gains[-1] > gains[1] + 0.1


def test_estimates_upon_estimates_raise_the_likelihood_further():
    """The second one's statistics are of features that the first has transformed; the two compose."""
    gmm = mixtures(11, (4,) * 4, 5, apart=1.5)
    made, pdfs = drawn(gmm, FRAMES, 12)
    features = undone(affine(13, 5, 0.4), made)
    total = torch.eye(5, 6, dtype=torch.float64)
    before = _log_likelihood(gmm, features, pdfs, total)
    for _ in range(4):
        moved = (features.double() @ total[:, :-1].T + total[:, -1]).float()
        step = estimate_fmllr(_statistics("s", gmm, moved, pdfs)).transforms.of("s")
        total = compose(step, total)
        after = _log_likelihood(gmm, features, pdfs, total)
        assert after >= before - 1e-5
        before = after


def test_speaker_adaptive_training_raises_the_likelihood_at_every_step():
    """Transforms and Gaussians in turns; the model for first passes has the same Gaussians in the speakers' space."""
    gmm = mixtures(14, (2, 2, 2), 4, apart=3.0)
    speakers = []
    for seed in range(4):
        made, pdfs = drawn(gmm, 800, seed)
        speakers.append((undone(affine(20 + seed, 4, 0.3), made), pdfs))
    everything, all_pdfs = torch.cat([f for f, _ in speakers]), torch.cat([p for _, p in speakers])
    model = gmm.update(gmm.accumulate(everything, all_pdfs))
    for _ in range(3):
        model = model.update(model.accumulate(everything, all_pdfs))
    totals = [torch.eye(4, 5, dtype=torch.float64)] * 4

    def moved() -> list[torch.Tensor]:
        pairs = zip(speakers, totals, strict=True)
        return [(features.double() @ total[:, :-1].T + total[:, -1]).float() for (features, _), total in pairs]

    def score(model: DiagonalGmm) -> float:
        pairs = zip(speakers, totals, strict=True)
        return sum(_log_likelihood(model, features, pdfs, total) for (features, pdfs), total in pairs)

    before = start = score(model)
    for _ in range(4):
        parts = [_statistics("s", model, f, p) for f, (_, p) in zip(moved(), speakers, strict=True)]
        totals = [
            compose(estimate_fmllr(part).transforms.of("s"), total) for part, total in zip(parts, totals, strict=True)
        ]
        adapted = score(model)
        model = model.update(model.accumulate(torch.cat(moved()), all_pdfs))
        after = score(model)
        assert after >= adapted - 1e-4 >= before - 2e-4
        before = after
    assert before > start + 1.0
    posteriors = model.posteriors(torch.cat(moved()), all_pdfs)
    first_pass = model.update(GmmStatistics.of(posteriors, everything))
    totals = [torch.eye(4, 5, dtype=torch.float64)] * 4
    assert score(first_pass) > score(model) + 1.0


def test_a_speaker_does_not_depend_on_who_else_is_estimated():
    gmm = mixtures(15, (3,) * 5, 39)
    parts = []
    for seed in range(5):
        made, pdfs = drawn(gmm, 700 + 13 * seed, seed)
        parts.append(_statistics(f"s{seed}", gmm, undone(affine(seed, 39, 0.05), made), pdfs))
    config = FmllrEstimation(sweeps=3)
    together = estimate_fmllr(RowStatistics.stacked(parts), config)
    some = estimate_fmllr(RowStatistics.stacked([parts[3], parts[1]]), config)
    for speaker, part in enumerate(parts):
        alone = estimate_fmllr(part, config)
        assert torch.equal(alone.transforms.matrices[0], together.transforms.matrices[speaker])
        assert torch.equal(alone.improvement[0], together.improvement[speaker])
    assert torch.equal(some.transforms.of("s3"), together.transforms.of("s3"))


@pytest.mark.parametrize("frames", [0, 10])
def test_a_speaker_with_few_frames_gets_the_identity_and_a_warning(frames, caplog):
    gmm = mixtures(16, (3, 2), 4)
    made, pdfs = drawn(gmm, FRAMES, 0)
    features = undone(affine(17, 4, 0.2), made)
    many = _statistics("many", gmm, features, pdfs)
    few = _statistics("few", gmm, features[:frames], pdfs[:frames])
    with caplog.at_level(logging.WARNING):
        estimate = estimate_fmllr(RowStatistics.stacked([few, many]))
    assert torch.equal(estimate.transforms.of("few"), torch.eye(4, 5, dtype=torch.float64))
    assert estimate.forms == (None, "full")
    assert estimate.improvement[0] == 0.0 < estimate.improvement[1]
    message = "1 of 2 speakers have fewer than 500 frames of speech and keep their features as they are: few"
    assert f"{message} ({frames})" in caplog.text
    caplog.clear()
    estimate_fmllr(many)
    assert caplog.text == ""


def test_forms_go_by_the_amount_of_frames():
    config = FmllrEstimation(min_counts={"offset": 50, "full": 500, "diagonal": 100})
    forms = [config.form(count) for count in (0.0, 49.9, 50.0, 100.0, 499.0, 500.0, 1e6)]
    assert forms == [None, None, "offset", "diagonal", "diagonal", "full", "full"]
    assert FmllrEstimation().form(499.9) is None
    assert FmllrEstimation().form(500.0) == "full"


def test_five_hundred_frames_are_enough_for_five_hundred():
    """Whatever the rounding of their posteriors."""
    gmm, counts = mixtures(3, (4,) * 5, 4), []
    for seed in range(20):
        made, pdfs = drawn(gmm, 500, seed)
        statistics = _statistics("s", gmm, made.float(), pdfs)
        counts.append(float(statistics.count))
        assert estimate_fmllr(statistics).forms == ("full",)
    assert min(counts) < 500.0


@pytest.mark.parametrize("form", ["full", "block", "diagonal", "offset"])
@pytest.mark.parametrize(
    ("sums", "value"), [("linear", float("nan")), ("quadratic", float("inf")), ("count", float("inf"))]
)
def test_statistics_that_are_not_finite_are_refused_and_hurt_nobody_else(form, sums, value, caplog):
    gmm = mixtures(16, (3, 2), 6)
    made, pdfs = drawn(gmm, FRAMES, 0)
    good = _statistics("good", gmm, undone(affine(17, 6, 0.2), made), pdfs)
    bad = replace(good, names=("bad",), **{sums: getattr(good, sums).clone()})
    getattr(bad, sums).view(-1)[0] = value
    config = FmllrEstimation(min_counts={form: 10})
    with pytest.raises(SingularError, match="bad: the features are not finite; check the recordings"):
        estimate_fmllr(RowStatistics.stacked([good, bad]), config)
    transforms = estimate_speakers([good, bad], config)
    assert torch.equal(transforms.of("bad"), torch.eye(6, 7, dtype=torch.float64))
    assert torch.equal(transforms.of("good"), estimate_fmllr(good, config).transforms.of("good"))
    assert "1 of 2 speakers stay unadapted" in caplog.text
    caplog.clear()
    bad = replace(bad, count=torch.full_like(bad.count, torch.nan))
    estimate_speakers([good, bad], config)
    assert len(caplog.records) == 1  # a count that is not a number is not called a low one too


@pytest.mark.parametrize("form", ["full", "block", "diagonal"])
def test_frames_that_are_all_alike_give_no_transform(form, caplog):
    """As where one syllable is repeated: the likeliest transform blows its small differences up to those of speech."""
    gmm = mixtures(16, (3, 2), 6)
    made, pdfs = drawn(gmm, FRAMES, 0)
    good = _statistics("good", gmm, undone(affine(17, 6, 0.2), made), pdfs)
    alike = _statistics("alike", gmm, (made.mean(0) + 0.01 * (made - made.mean(0))).float(), pdfs)
    config = FmllrEstimation(min_counts={form: 10})
    assert float(estimate_fmllr(alike, config).transforms.of("alike").abs().max()) > 20.0
    transforms = estimate_speakers([good, alike], config)
    assert torch.equal(transforms.of("alike"), torch.eye(6, 7, dtype=torch.float64))
    assert torch.equal(transforms.of("good"), estimate_fmllr(good, config).transforms.of("good"))
    assert "1 of 2 speakers stay unadapted, their frames are too much alike, or not finite: alike" in caplog.text


@pytest.mark.parametrize("counts", [{}, {"full": 0.0}, {"full": float("nan")}, {"half": 5.0}])
def test_counts_that_say_nothing_are_refused(counts):
    with pytest.raises(ValidationError):
        FmllrEstimation(min_counts=counts)
