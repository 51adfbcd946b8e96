"""Targets and their weights, from every source; data whose parts do not fit each other."""

from dataclasses import replace

import numpy as np
import pytest

from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import (
    FrameTargets,
    TargetsConfig,
    joined,
    make_targets,
    targets_from_alignment,
    targets_from_confidence,
    targets_from_lattice,
    with_mean_one,
)
from lhuc_asr.base.errors import AlignmentError, SearchError
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice import FramePosteriors
from lhuc_asr.decode.lattice_search import LatticeSummary


def test_silence_is_weighted_down_and_frames_without_a_pdf_count_for_nothing():
    targets = targets_from_alignment(np.array([7, 0, -1, 4, 8]), np.arange(5), 0.01)
    assert targets.pdf.tolist() == [[7], [0], [0], [4], [8]]
    assert targets.posterior.tolist() == [[1.0]] * 5
    np.testing.assert_array_equal(targets.weight, np.array([1, 0.01, 0, 0.01, 1], np.float32))
    assert (targets.pdf.dtype, targets.weight.dtype) == (np.int32, np.float32)


def test_an_alignment_is_not_written_to():
    pdfs = np.array([-1, 3])
    pdfs.flags.writeable = False
    targets_from_alignment(pdfs, np.arange(2), 0.0)
    assert pdfs.tolist() == [-1, 3]


@pytest.mark.parametrize("weight", [[1.0], [[1.0, 1.0]]])
def test_each_pdf_needs_one_weight(weight):
    with pytest.raises(AlignmentError, match=r"expected \(T, M\), \(T, M\) and \(T,\)"):
        FrameTargets.certain(np.zeros(2, np.int32), np.array(weight, np.float32))


@pytest.mark.parametrize(
    ("pdf", "weight"), [([1, 2], [1.0, np.nan]), ([1, 2], [1.0, -0.1]), ([1, 2], [1.0, np.inf]), ([1, -1], [1.0, 0.0])]
)
def test_negative_and_infinite_weights_and_negative_pdfs_are_refused(pdf, weight):
    with pytest.raises(AlignmentError, match="weights must be finite and 0 or more, pdfs 0 or more"):
        FrameTargets.certain(np.array(pdf, np.int32), np.array(weight, np.float32))


def test_a_speakers_utterances_one_after_the_other():
    parts = [
        (np.full((n, 2), n, np.float32), FrameTargets.certain(np.full(n, n, np.int32), np.full(n, 0.5, np.float32)))
        for n in (3, 1, 2)
    ]
    data = SpeakerData.of(parts)
    assert data.lengths == (3, 1, 2)
    assert data.features[:, 0].tolist() == data.targets.pdf[:, 0].tolist() == [3, 3, 3, 1, 2, 2]


@pytest.mark.parametrize(("lengths", "targets"), [((2, 2), 5), ((5,), 4), ((3, 3), 5)])
def test_frames_that_do_not_fit_are_refused(lengths, targets):
    wrong = FrameTargets.certain(np.zeros(targets, np.int32), np.ones(targets, np.float32))
    with pytest.raises(
        AlignmentError, match=rf"5 frames, {sum(lengths)} in the utterances' lengths, {targets} targets"
    ):
        SpeakerData(np.zeros((5, 2), np.float32), lengths, wrong)


@pytest.mark.parametrize("posterior", [[[0.5, 0.4]], [[1.2, -0.2]], [[np.nan, 1.0]], [[0.0, 0.0]]])
def test_posteriors_that_are_not_a_distribution_are_refused(posterior):
    with pytest.raises(AlignmentError, match="posteriors of frame 0 of 1 sum to"):
        FrameTargets(np.zeros((1, 2), np.int32), np.array(posterior, np.float32), np.ones(1, np.float32))


POSTERIORS = FramePosteriors(
    np.array([[3, 4, 0], [4, 0, 1], [0, 4, 3], [4, 0, 0]], np.int32),
    np.array([[0.5, 0.3, 0.2], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]], np.float32),
)


def test_posteriors_of_a_lattice_are_sharpened_and_silence_weighs_by_its_share():
    plain = targets_from_lattice(POSTERIORS, np.array([0, 1]), 0.1)
    np.testing.assert_allclose(plain.posterior, POSTERIORS.posterior, rtol=1e-6)
    np.testing.assert_array_equal(plain.pdf, POSTERIORS.pdf)
    np.testing.assert_allclose(plain.weight, [0.8 + 0.02, 0.8 + 0.02, 0.4 + 0.06, 1.0], rtol=1e-6)
    squared = targets_from_lattice(POSTERIORS, np.array([0, 1]), 0.0, power=2.0)
    np.testing.assert_allclose(squared.posterior[0], np.array([0.25, 0.09, 0.04]) / 0.38, rtol=1e-6)
    np.testing.assert_allclose(squared.weight, [0.34 / 0.38, 0.64 / 0.68, 0.16 / 0.52, 1.0], rtol=1e-6)


def test_a_high_power_leaves_the_best_path_of_pdfs():
    sharp = targets_from_lattice(POSTERIORS, np.array([0, 1]), 0.1, power=1000.0)
    np.testing.assert_allclose(sharp.posterior, np.eye(3)[[0, 0, 0, 0]], atol=1e-6)


def test_frames_without_a_probable_pdf_are_left_out():
    targets = targets_from_lattice(POSTERIORS, np.array([], int), 0.1, power=4.0, min_confidence=0.6)
    assert targets.weight.tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("power", [0.0, -1.0, np.inf, np.nan])
def test_powers_of_zero_or_less_and_not_finite_are_refused(power):
    with pytest.raises(AlignmentError, match="expected a number above 0; 1 leaves them unchanged"):
        targets_from_lattice(POSTERIORS, np.array([0]), 0.1, power=power)


def test_frames_of_a_best_path_are_weighted_by_confidence():
    pdfs, confidence = np.array([5, 6, 0, 0, 7]), np.array([0.5, 0.75, 0.9, 0.1, 1.0])
    every = targets_from_confidence(pdfs, confidence, np.array([0]), 0.5, min_confidence=0.0)
    np.testing.assert_allclose(every.weight, [0.5, 0.75, 0.45, 0.05, 1.0], rtol=1e-6)
    assert every.pdf[:, 0].tolist() == pdfs.tolist()
    chosen = targets_from_confidence(pdfs, confidence, np.array([0]), 0.5, min_confidence=0.75)
    np.testing.assert_allclose(chosen.weight, [0.0, 0.75, 0.45, 0.0, 1.0], rtol=1e-6)


class Stable:
    """A first pass of two utterances, the second of which does not know its words."""

    def lattices(self):
        for name, pdfs, agreement in (("some", [5, 0, 6], 0.8), ("few", [7, 8], 0.25)):
            best = Hypothesis(name, ("word",), ((0, 1),), 0.0, True, np.array(pdfs, np.int32), (0.1,))
            yield LatticeSummary(best, POSTERIORS, 10, False, agreement)


def test_utterances_weigh_by_how_far_their_words_stay():
    config = TargetsConfig(kind="agreement", power=2.0, min_confidence=0.3, silence_weight=0.5)
    targets = make_targets(Stable(), config, np.array([0]))
    np.testing.assert_allclose(targets["some"].weight, [0.64, 0.32, 0.64], rtol=1e-6)
    assert targets["some"].pdf[:, 0].tolist() == [5, 0, 6]
    assert targets["few"].weight.tolist() == [0.0, 0.0]


def test_the_weights_of_a_speakers_speech_are_scaled_to_a_mean_of_one():
    pdfs, confidence = np.array([7, 0, 7, 8, 9], np.int32), np.array([0.2, 0.5, 0.4, 0.0, 0.6], np.float32)
    targets = with_mean_one(targets_from_confidence(pdfs, confidence, np.arange(5), 0.01), np.arange(5))
    np.testing.assert_allclose(targets.weight, [0.5, 0.0125, 1.0, 0.0, 1.5], rtol=1e-6)
    assert targets.weight.dtype == np.float32
    silent = targets_from_confidence(np.zeros(3, np.int32), np.full(3, 0.3, np.float32), np.arange(5), 0.01)
    assert with_mean_one(silent, np.arange(5)) is silent


def test_confidences_of_frames_from_their_pdfs_or_their_words():
    np.testing.assert_allclose(POSTERIORS.of(np.array([4, 4, 2, 4])), [0.3, 0.8, 0.0, 1.0], rtol=1e-6)
    # Emitted at frames 1, 3, 3 and 4 of 6: the second lasts for no frame of its own.
    hypothesis = Hypothesis(
        "u", ("a", "b", "c", "d"), (1, 3, 3, 4), 0.0, True, np.zeros(6, np.int32), (0.1, 0.2, 0.3, 0.4)
    )
    assert hypothesis.frame_confidences().tolist() == [0.1, 0.1, 0.1, 0.3, 0.4, 0.4]
    assert Hypothesis("u", (), (), 0.0, True, np.zeros(2, np.int32)).frame_confidences().tolist() == [0.0, 0.0]
    with pytest.raises(
        SearchError, match="u: 0 confidences of 4 words, an alignment of 6 frames; search for a lattice"
    ):
        replace(hypothesis, confidences=()).frame_confidences()


@pytest.mark.parametrize("confidence", [[0.5], [0.5, 1.1], [0.5, np.nan], [-0.1, 0.5]])
def test_confidences_of_the_wrong_number_or_range_are_refused(confidence):
    with pytest.raises(AlignmentError, match="expected one per frame, between 0 and 1"):
        targets_from_confidence(np.array([1, 2]), np.array(confidence), np.array([0]), 0.1)


def test_utterances_with_different_numbers_of_candidates_are_joined():
    two = FrameTargets(np.array([[3, 4]], np.int32), np.array([[0.75, 0.25]], np.float32), np.ones(1, np.float32))
    one = FrameTargets.certain(np.array([5], np.int32), np.array([0.5], np.float32))
    targets = joined([two, one])
    assert targets.pdf.tolist() == [[3, 4], [5, 0]]
    assert targets.posterior.tolist() == [[0.75, 0.25], [1.0, 0.0]]
    assert targets.weight.tolist() == [1.0, 0.5]
