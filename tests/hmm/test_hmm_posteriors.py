"""Block-sparse posteriors against a dense table by the formula; sums, expectations and scatters with them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_world import dense_posteriors, drawn, mixtures

from lhuc_asr.hmm import posteriors as module
from lhuc_asr.hmm.gmm import GmmStatistics
from lhuc_asr.hmm.scatter import CACHED_FRAMES, product_sum, weighted_scatter

SIZES = (3, 1, 4, 2, 5)


def _weighted(frames: int, seed: int) -> torch.Tensor:
    """Weights of which a third are zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(frames, generator=generator)
    return torch.where(torch.rand(frames, generator=generator) < 1 / 3, 0.0, weights)


def _dense(posteriors: module.GaussianPosteriors, frames: int) -> torch.Tensor:
    table = torch.zeros(frames, posteriors.gaussians, dtype=torch.float64)
    for block in posteriors.blocks:
        table[posteriors.order[block.frames], block.gaussians] = block.weight.double()
    return table


@pytest.mark.parametrize(("operations", "blocks"), [(1, {5}), (1_000, {2, 3, 4}), (10**12, {1})])
def test_posteriors_are_the_formula_in_blocks_of_any_width(monkeypatch, operations, blocks):
    """From a block a pdf to a single one; frames of weight zero may have any pdf."""
    monkeypatch.setattr(module, "BLOCK_START_OPERATIONS", operations)
    gmm = mixtures(0, SIZES, 4)
    features, pdfs = drawn(gmm, 300, 1)
    weights = _weighted(300, 2)
    expected = dense_posteriors(gmm, features, pdfs, weights)
    posteriors = gmm.posteriors(features.float(), torch.where(weights > 0, pdfs, -1), weights)
    torch.testing.assert_close(_dense(posteriors, 300), expected, atol=1e-5, rtol=1e-4)
    assert len(posteriors.blocks) in blocks
    assert len(posteriors.order) == int((weights > 0).sum())


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), frames=st.integers(1, 60))
def test_sums_and_expectations_are_products_with_the_dense_table(seed, sizes, frames):
    gmm = mixtures(seed, tuple(sizes), 3)
    features, pdfs = drawn(gmm, frames, seed)
    weights = _weighted(frames, seed)
    posteriors = gmm.posteriors(features.float(), pdfs, weights)
    dense = _dense(posteriors, frames)
    values = torch.randn(frames, 2, generator=torch.Generator().manual_seed(seed))
    table = torch.randn(gmm.gaussians, 2, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(posteriors.sums(values[posteriors.order]), dense.T @ values.double(), atol=1e-5, rtol=0)
    expected = (dense @ table.double())[posteriors.order]
    torch.testing.assert_close(posteriors.expectations(table).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(posteriors.occupancy, dense.sum(0), atol=1e-5, rtol=0)
    assert float(posteriors.occupancy.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)


def test_frames_without_weight_leave_empty_sums():
    gmm = mixtures(0, SIZES, 4)
    posteriors = gmm.posteriors(torch.randn(5, 4), torch.full((5,), -1), torch.zeros(5))
    assert posteriors.expectations(gmm.mean).shape == (0, 4)
    assert not posteriors.occupancy.any()
    assert not posteriors.sums(torch.zeros(0, 4)).any()


def test_statistics_of_another_space_have_the_posteriors_of_the_first():
    """The Gaussians of a model in one space, estimated in another: a pdf's halves stay apart where both meet."""
    gmm = mixtures(3, (2, 3), 2, apart=4.0)
    features, pdfs = drawn(gmm, 2000, 5)
    other = torch.cat([features[:, :1] * 0.0, features[:, 1:] - 7.0], dim=1).float()
    dense = dense_posteriors(gmm, features, pdfs, torch.ones(2000))
    statistics = GmmStatistics.of(gmm.posteriors(features.float(), pdfs), other)
    for sums, expected in (
        (statistics.occupancy, dense.sum(0)),
        (statistics.first, dense.T @ other.double()),
        (statistics.second, dense.T @ other.double().square()),
    ):
        torch.testing.assert_close(sums, expected, atol=1e-2, rtol=1e-5)


def test_weights_of_whole_numbers_count_frames_that_often():
    gmm = mixtures(0, SIZES, 4)
    features, pdfs = drawn(gmm, 100, 1)
    features, times = features.float(), torch.arange(100) % 3
    weighted = gmm.accumulate(features, pdfs, times.float())
    repeated = gmm.accumulate(features.repeat_interleave(times, 0), pdfs.repeat_interleave(times))
    for name in ("occupancy", "first", "second"):
        torch.testing.assert_close(getattr(weighted, name), getattr(repeated, name), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, CACHED_FRAMES - 1, 2 * CACHED_FRAMES + 3])
def test_scatters_are_sums_of_outer_products(frames):
    generator = torch.Generator().manual_seed(frames)
    weights = torch.rand(frames, 3, generator=generator, dtype=torch.float64)
    vectors = torch.randn(frames, 5, generator=generator, dtype=torch.float64)
    expected = torch.einsum("td,ti,tj->dij", weights, vectors, vectors)
    torch.testing.assert_close(weighted_scatter(weights, vectors), expected)
    single = weighted_scatter(weights.float(), vectors.float())
    torch.testing.assert_close(single, expected, atol=1e-3, rtol=1e-5)
    assert torch.equal(single, single.transpose(1, 2))
    torch.testing.assert_close(product_sum(weights, vectors), weights.T @ vectors)
