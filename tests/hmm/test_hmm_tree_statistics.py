"""Statistics of triphones against dictionaries of frames; likelihoods against densities; Gaussians from statistics."""

import itertools

import numpy as np
import pytest
import torch
from triphone_world import DIMENSION, PHONES, largest_likelihood, speech

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.numerics import TREE_VARIANCE_FLOOR
from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.clustering import merges
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.tied_gaussians import pdf_statistics, single_gaussians
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.tree_statistics import TreeStatistics, log_likelihoods
from lhuc_asr.lang.phones import PhoneSet

TOPOLOGY = MonophoneTopology.initial(PHONES)


def part(aligned: AlignedPhones, rows: slice) -> AlignedPhones:
    return AlignedPhones(*aligned.table[rows].T)


def sums_of(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([[len(frames)], frames.sum(0), (frames**2).sum(0)])


def test_each_state_of_each_triphone_has_its_own_sums():
    features, aligned = speech(np.random.default_rng(1), length=200)
    statistics = TreeStatistics.of(features, [aligned])
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for row, frame in zip(aligned.table.tolist(), features.double().numpy(), strict=True):
        groups.setdefault(tuple(row), []).append(frame)
    assert statistics.contexts.tolist() == [list(context) for context in sorted(groups)]
    expected = [sums_of(np.array(groups[context])) for context in sorted(groups)]
    np.testing.assert_allclose(statistics.sums, expected, rtol=1e-12)


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    features, aligned = speech(np.random.default_rng(2), length=300)
    whole = TreeStatistics.of(features, [aligned])
    cuts = [0, 5, 700, 703, 1500, len(features)]
    rows = [slice(*pair) for pair in itertools.pairwise(cuts)]
    total = TreeStatistics.total(TreeStatistics.of(features[each], [part(aligned, each)]) for each in rows)
    assert np.array_equal(total.contexts, whole.contexts)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-12)


def test_utterances_of_a_block_are_told_apart_by_nothing_but_their_phones():
    features, aligned = speech(np.random.default_rng(3), length=100)
    rows = [slice(0, 30), slice(30, None)]
    one = TreeStatistics.of(features, [part(aligned, each) for each in rows])
    assert np.array_equal(one.sums, TreeStatistics.of(features, [aligned]).sums)


def test_alignments_of_other_features_and_no_alignments_are_errors():
    features, aligned = speech(np.random.default_rng(4), length=10)
    with pytest.raises(AlignmentError, match="aligned frames for"):
        TreeStatistics.of(features[1:], [aligned])
    with pytest.raises(AlignmentError, match="no utterance is aligned"):
        TreeStatistics.total(iter([]))


def test_phones_without_contexts_are_pooled():
    features, aligned = speech(np.random.default_rng(5), length=200)
    statistics = TreeStatistics.of(features, [aligned])
    pooled = statistics.without_contexts([1])
    silent = aligned.phone == 1
    rows = pooled.contexts[:, 1] == 1
    assert pooled.contexts[rows].tolist() == [[0, 1, 0, position] for position in range(5)]
    for row, position in zip(pooled.sums[rows], range(5), strict=True):
        frames = features[torch.from_numpy(silent & (aligned.position == position))].double().numpy()
        np.testing.assert_allclose(row, sums_of(frames))
    assert np.array_equal(pooled.sums[~rows], statistics.sums[statistics.contexts[:, 1] != 1])


def test_the_likelihood_is_that_of_the_frames_under_their_gaussian():
    frames = np.random.default_rng(6).normal(size=(50, 4)) * [0.3, 1, 2, 5] + 3
    assert log_likelihoods(sums_of(frames)) == pytest.approx(largest_likelihood(frames))
    assert log_likelihoods(np.zeros(9)) == 0.0


def test_a_variance_is_not_estimated_below_its_floor():
    frames = np.full((7, 1), 2.0) + np.linspace(-1e-3, 1e-3, 7)[:, None]
    expected = -0.5 * (np.log(2 * np.pi * TREE_VARIANCE_FLOOR) * 7 + ((frames - 2) ** 2 / TREE_VARIANCE_FLOOR).sum())
    assert log_likelihoods(sums_of(frames)) == pytest.approx(expected)


def test_the_first_merge_loses_least_and_every_later_one_too():
    """Against all pairs, by brute force, at every step."""
    generator = np.random.default_rng(7)
    frames = [generator.normal(size=(generator.integers(20, 60), 2)) + 4 * generator.normal(size=2) for _ in range(8)]

    def loss(one: np.ndarray, other: np.ndarray) -> float:
        both = np.concatenate([one, other])
        return largest_likelihood(one) + largest_likelihood(other) - largest_likelihood(both)

    steps = merges(np.array([sums_of(each) for each in frames]))
    assert len(steps) == 7
    left, losses = dict(enumerate(frames)), []
    for i, j in steps:
        pairs = {(a, b): loss(left[a], left[b]) for a in left for b in left if a < b}
        assert min(pairs, key=lambda pair: pairs[pair]) == (i, j)
        losses.append(pairs[i, j])
        left[i] = np.concatenate([left[i], left.pop(j)])
    limit = (losses[2] + losses[3]) / 2
    some = merges(np.array([sums_of(each) for each in frames]), limit)
    assert some == steps[: next(n for n, lost in enumerate(losses) if lost >= limit)]
    assert 0 < len(some) < len(steps)


def test_gaussians_from_statistics_are_those_of_the_aligned_frames(caplog):
    features, aligned = speech(np.random.default_rng(8), length=400)
    statistics = pdf_statistics(TreeStatistics.of(features, [aligned]), TOPOLOGY)
    gmm = single_gaussians(statistics)
    pdfs = torch.from_numpy(aligned.pdfs(TOPOLOGY)).long()
    assert statistics.occupancy.tolist() == torch.bincount(pdfs, minlength=TOPOLOGY.pdf_count).tolist()
    assert isinstance(gmm, DiagonalGmm)
    assert gmm.pdf.tolist() == list(range(TOPOLOGY.pdf_count))
    for pdf in range(TOPOLOGY.pdf_count):
        frames = features[pdfs == pdf].double()
        torch.testing.assert_close(gmm.mean[pdf].double(), frames.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gmm.variance[pdf].double(), frames.var(0, correction=0), rtol=1e-4, atol=1e-4)
    assert not caplog.records


def test_a_phone_without_frames_begins_as_the_gaussian_of_all_frames_and_is_named(caplog):
    features, aligned = speech(np.random.default_rng(9), length=200)
    more = MonophoneTopology.initial(PhoneSet(PHONES.silence, (*PHONES.speech, "Z")))
    gmm = single_gaussians(pdf_statistics(TreeStatistics.of(features, [aligned]), more))
    expected = features.double().mean(0).float().expand(3, DIMENSION)
    torch.testing.assert_close(gmm.mean[-3:], expected)
    assert "3 pdfs have fewer than 10 frames" in caplog.text
