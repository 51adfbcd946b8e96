"""Mixtures against their definition in float64 loops, EM's promise, splitting, files."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.numerics import VARIANCE_FLOOR
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.hmm import gmm as module
from lhuc_asr.hmm.gmm import MIN_GAUSSIAN_FRAMES, DiagonalGmm, GmmStatistics

DIMENSION = 3


def _model(seed: int, sizes: tuple[int, ...]) -> DiagonalGmm:
    """Random mixtures of ``sizes`` Gaussians."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    weights = [torch.softmax(torch.randn(size, generator=generator), 0) for size in sizes]
    return DiagonalGmm(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        torch.cat(weights),
        2 * torch.randn(count, DIMENSION, generator=generator),
        0.2 + torch.rand(count, DIMENSION, generator=generator),
        len(sizes),
    )


def _frames(seed: int, count: int, pdfs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return (
        2 * torch.randn(count, DIMENSION, generator=generator),
        torch.randint(pdfs, (count,), generator=generator),
    )


def _density(model: DiagonalGmm, gaussian: int, x: np.ndarray) -> float:
    """w N(x; m, v), by the formula."""
    mean, variance = model.mean[gaussian].double().numpy(), model.variance[gaussian].double().numpy()
    exponent = -0.5 * float(((x - mean) ** 2 / variance).sum())
    scale = math.sqrt(float(np.prod(2 * math.pi * variance)))
    return float(model.weight[gaussian]) * math.exp(exponent) / scale


def _log_likelihood(model: DiagonalGmm, features: torch.Tensor, pdfs: torch.Tensor) -> float:
    return float(model.log_likelihoods(features).double().gather(1, pdfs.unsqueeze(1)).sum())


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_log_likelihoods_are_the_formula(seed, sizes):
    model = _model(seed, tuple(sizes))
    features, _ = _frames(seed, 6, len(sizes))
    log_likelihoods = model.log_likelihoods(features)
    assert log_likelihoods.shape == (6, len(sizes))
    for t, x in enumerate(features.double().numpy()):
        for pdf in range(len(sizes)):
            members = torch.nonzero(model.pdf == pdf).flatten().tolist()
            expected = math.log(sum(_density(model, m, x) for m in members))
            assert float(log_likelihoods[t, pdf]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_mixtures_of_some_pdfs_give_these_pdfs_log_likelihoods():
    model, (features, _) = _model(7, (3, 1, 2, 4)), _frames(7, 50, 4)
    chosen = np.array([1, 3])
    alone = model.of_pdfs(chosen)
    assert (alone.pdf_count, alone.gaussians) == (2, 5)
    torch.testing.assert_close(alone.log_likelihoods(features), model.log_likelihoods(features)[:, chosen])


def test_blocks_of_frames_meet_without_a_seam(monkeypatch):
    monkeypatch.setattr(module, "CACHED_DENSITIES", 5 * 150)
    model = _model(0, (2, 3))
    features, _ = _frames(0, 2 * 150 + 7, 2)
    whole = model.log_likelihoods(features)
    assert torch.allclose(whole, torch.cat([model.log_likelihoods(part) for part in features.split(100)]), atol=1e-4)


def test_frames_far_from_everything_keep_a_finite_score():
    log_likelihoods = _model(0, (2, 3)).log_likelihoods(torch.full((1, DIMENSION), 300.0))
    assert torch.isfinite(log_likelihoods).all()


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3, 1)])
def test_statistics_are_those_of_a_loop_over_frames(sizes):
    model = _model(5, sizes)
    features, pdfs = _frames(5, 40, len(sizes) - 1)  # the last pdf has no frames
    occupancy = np.zeros(model.gaussians)
    first, second = np.zeros((model.gaussians, DIMENSION)), np.zeros((model.gaussians, DIMENSION))
    for x, pdf in zip(features.double().numpy(), pdfs.tolist(), strict=True):
        members = torch.nonzero(model.pdf == pdf).flatten().tolist()
        densities = np.array([_density(model, m, x) for m in members])
        for m, posterior in zip(members, densities / densities.sum(), strict=True):
            occupancy[m] += posterior
            first[m] += posterior * x
            second[m] += posterior * x * x
    statistics = model.accumulate(features, pdfs)
    for tensor, expected in ((statistics.occupancy, occupancy), (statistics.first, first), (statistics.second, second)):
        assert tensor.dtype == torch.float64
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_statistics_of_halves_add_up():
    model = _model(2, (2, 2))
    features, pdfs = _frames(2, 60, 2)
    whole = model.accumulate(features, pdfs)
    halves = model.accumulate(features[:25], pdfs[:25]) + model.accumulate(features[25:], pdfs[25:])
    for name in ("occupancy", "first", "second"):
        assert torch.allclose(getattr(whole, name), getattr(halves, name), atol=1e-3)


def test_one_gaussian_is_estimated_as_mean_and_variance_of_its_frames():
    features, pdfs = _frames(3, 400, 2)
    model = _model(3, (1, 1))
    updated = model.update(model.accumulate(features, pdfs))
    for pdf in range(2):
        own = features[pdfs == pdf].double()
        assert torch.allclose(updated.mean[pdf].double(), own.mean(0), atol=1e-5)
        assert torch.allclose(updated.variance[pdf].double(), own.var(0, correction=0), rtol=1e-4)
    assert updated.weight.tolist() == [1.0, 1.0]


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_estimation_never_lowers_the_likelihood(seed, sizes):
    """At a fixed alignment; some Gaussians have too few frames and keep their mean and variance."""
    model = _model(seed, tuple(sizes))
    features, pdfs = _frames(seed, 150, len(sizes))
    before = _log_likelihood(model, features, pdfs)
    for _ in range(4):
        model = model.update(model.accumulate(features, pdfs))
        after = _log_likelihood(model, features, pdfs)
        assert after >= before - 1e-2  # rounding of 150 sums in float32
        before = after


def test_a_gaussian_with_few_frames_keeps_mean_and_variance_and_a_pdf_without_any_keeps_all():
    model = _model(7, (1, 1, 2))
    few = MIN_GAUSSIAN_FRAMES - 1
    statistics = GmmStatistics(
        torch.tensor([100.0, few, 0.0, 0.0], dtype=torch.float64),
        torch.ones(4, DIMENSION, dtype=torch.float64),
        torch.full((4, DIMENSION), 200.0, dtype=torch.float64),
    )
    updated = model.update(statistics)
    assert not torch.equal(updated.mean[0], model.mean[0])
    assert torch.equal(updated.mean[1:], model.mean[1:])
    assert torch.equal(updated.variance[1:], model.variance[1:])
    assert torch.equal(updated.weight[2:], model.weight[2:])


def test_variances_have_a_floor():
    model = DiagonalGmm.flat(torch.zeros(2), torch.zeros(2), 1)
    assert (model.variance >= VARIANCE_FLOOR).all()
    updated = model.update(model.accumulate(torch.full((50, 2), 0.25), torch.zeros(50, dtype=torch.int64)))
    assert torch.allclose(updated.variance, torch.full((1, 2), VARIANCE_FLOOR))
    assert torch.allclose(updated.mean, torch.full((1, 2), 0.25))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    target=st.integers(1, 60),
    frames=st.lists(st.floats(0.0, 3000.0), min_size=4, max_size=4).filter(any),
)
def test_growing_keeps_weights_pdfs_and_the_wanted_number(seed, target, frames):
    model = _model(seed, (1, 2, 1))
    grown = model.grown(target, torch.tensor(frames), torch.Generator().manual_seed(seed))
    assert grown.gaussians >= model.gaussians
    assert grown.gaussians <= max(target, 0) + model.gaussians
    assert torch.equal(grown.pdf, grown.pdf.sort().values)
    weights = torch.zeros(3).index_add(0, grown.pdf, grown.weight)
    assert torch.allclose(weights, torch.ones(3), atol=1e-5)
    # Halves are pushed apart by the same distance: each mixture's mean stays where it was.
    for pdf in range(3):
        before, after = ((m.weight.unsqueeze(1) * m.mean)[m.pdf == pdf].sum(0).double() for m in (model, grown))
        assert torch.allclose(before, after, atol=1e-4)


def test_every_pdf_reaches_its_share_where_frames_abound():
    model = _model(1, (1, 1, 1, 1))
    grown = model.grown(40, torch.full((4,), 5000.0), torch.Generator().manual_seed(0))
    assert torch.bincount(grown.pdf).tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize(("pdfs", "target"), [(10, 15), (10, 20), (7, 50), (3, 3)])
def test_there_are_as_many_gaussians_as_wanted_where_frames_abound(pdfs, target):
    """Also where no pdf's share is a whole number."""
    model = _model(1, (1,) * pdfs)
    grown = model.grown(target, torch.full((pdfs,), 5000.0), torch.Generator().manual_seed(0))
    sizes = torch.bincount(grown.pdf)
    assert sizes.sum() == target
    assert sizes.max() - sizes.min() <= 1


def test_gaussians_that_a_pdf_has_no_frames_for_go_to_others():
    """A Gaussian needs ten frames."""
    grown = _model(1, (1, 1)).grown(20, torch.tensor([25.0, 9000.0]), torch.Generator().manual_seed(0))
    assert torch.bincount(grown.pdf).tolist() == [2, 18]


def test_pdfs_without_frames_are_not_split():
    grown = _model(1, (1, 1)).grown(20, torch.tensor([5000.0, 15.0]), torch.Generator().manual_seed(0))
    assert torch.bincount(grown.pdf).tolist()[1] == 1


def test_growing_is_the_same_for_the_same_seed():
    model, frames = _model(1, (1, 1)), torch.tensor([500.0, 900.0])
    one, two = (model.grown(12, frames, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one.mean, two.mean)


def test_growing_and_estimating_finds_the_gaussians_of_a_mixture():
    """Two separated clusters of one pdf, from one Gaussian over both."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
    features = centres.repeat(300, 1) + 0.5 * torch.randn(600, 2, generator=generator)
    pdfs = torch.zeros(600, dtype=torch.int64)
    model = DiagonalGmm.flat(features.mean(0), features.var(0), 1)
    statistics = model.accumulate(features, pdfs)
    model = model.update(statistics).grown(2, statistics.occupancy, generator)
    for _ in range(30):
        model = model.update(model.accumulate(features, pdfs))
    assert torch.cdist(centres, model.mean).min(1).values.max() < 0.1
    assert torch.allclose(model.weight, torch.full((2,), 0.5), atol=0.02)
    assert torch.allclose(model.variance, torch.full((2, 2), 0.25), atol=0.06)


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path):
    model = _model(9, (2, 1, 3))
    model.save(tmp_path / "gmm.safetensors")
    loaded = DiagonalGmm.load(tmp_path / "gmm.safetensors", 3)
    for name in ("pdf", "weight", "mean", "variance"):
        assert torch.equal(getattr(loaded, name), getattr(model, name))


def test_a_damaged_file_or_one_of_another_phone_set_is_told(tmp_path):
    path = tmp_path / "gmm.safetensors"
    model = _model(9, (2, 1, 3))
    model.save(path)
    with pytest.raises(CheckpointError, match=r"gmm\.safetensors: mixtures of 3 pdfs, expected 4"):
        DiagonalGmm.load(path, 4)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a Gaussian mixture model"):
        DiagonalGmm.load(path, 3)
    path.unlink()
    with pytest.raises(CheckpointError, match="not a Gaussian mixture model"):
        DiagonalGmm.load(path, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pdf": torch.tensor([0, 2, 0, 1, 2, 2])}, "not sorted"),
        ({"pdf": torch.tensor([-9, 0, 1, 1, 2, 2])}, "not sorted, or a pdf has none"),
        ({"pdf": torch.tensor([0, 0, 2, 2, 2, 2])}, "not sorted, or a pdf has none"),
        ({"pdf": torch.zeros(0, dtype=torch.int64)}, "not a list of numbers"),
        ({"pdf": torch.ones(6)}, "not a list of numbers"),
        ({"weight": torch.ones(5)}, r"weight has shape \[5\], expected \[6\]"),
        ({"weight": torch.full((6,), -1.0)}, "a weight is negative"),
        ({"weight": torch.zeros(6)}, "weights of a pdf's Gaussians do not add up to 1"),
        ({"mean": torch.ones(6, 2)}, "mean has shape"),
        ({"mean": torch.tensor(1.0)}, "mean has shape"),
        ({"variance": torch.zeros(6, 3)}, "a variance not positive"),
        ({"variance": torch.full((6, 3), float("nan"))}, "variance is not finite"),
    ],
)
def test_tensors_that_contradict_each_other_are_told(tmp_path, change, message):
    model = _model(9, (2, 1, 3))
    tensors = {name: getattr(model, name) for name in ("pdf", "weight", "mean", "variance")}
    save_tensors(tmp_path / "gmm.safetensors", tensors | change)
    with pytest.raises(CheckpointError, match=rf"gmm\.safetensors: .*{message}.*; delete it"):
        DiagonalGmm.load(tmp_path / "gmm.safetensors", 3, dimension=model.mean.shape[1])
