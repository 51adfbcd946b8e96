"""Targets and their weights; a speaker's frames that do not fit each other."""

import numpy as np
import pytest

from lhuc_asr.adapt.targets import FrameTargets, SpeakerFrames, joined, targets_from_alignment
from lhuc_asr.base.errors import AlignmentError


def test_silence_is_weighted_down_and_frames_without_a_pdf_count_for_nothing():
    found = targets_from_alignment(np.array([7, 0, -1, 4, 8]), np.arange(5), 0.01)
    assert found.pdf.tolist() == [[7], [0], [0], [4], [8]]
    assert found.posterior.tolist() == [[1.0]] * 5
    np.testing.assert_array_equal(found.weight, np.array([1, 0.01, 0, 0.01, 1], np.float32))
    assert (found.pdf.dtype, found.weight.dtype) == (np.int32, np.float32)


def test_an_alignment_is_not_written_to():
    pdfs = np.array([-1, 3])
    pdfs.flags.writeable = False
    targets_from_alignment(pdfs, np.arange(2), 0.0)
    assert pdfs.tolist() == [-1, 3]


@pytest.mark.parametrize("weight", [[1.0], [[1.0, 1.0]]])
def test_a_weight_for_each_pdf(weight):
    with pytest.raises(AlignmentError, match=r"expected \(T, M\), \(T, M\) and \(T,\)"):
        FrameTargets.certain(np.zeros(2, np.int32), np.array(weight, np.float32))


@pytest.mark.parametrize(
    ("pdf", "weight"), [([1, 2], [1.0, np.nan]), ([1, 2], [1.0, -0.1]), ([1, 2], [1.0, np.inf]), ([1, -1], [1.0, 0.0])]
)
def test_weights_and_pdfs_that_mean_nothing_are_refused(pdf, weight):
    with pytest.raises(AlignmentError, match="weights must be finite and 0 or more, pdfs 0 or more"):
        FrameTargets.certain(np.array(pdf, np.int32), np.array(weight, np.float32))


def test_a_speakers_utterances_one_after_the_other():
    parts = [
        (np.full((n, 2), n, np.float32), FrameTargets.certain(np.full(n, n, np.int32), np.full(n, 0.5, np.float32)))
        for n in (3, 1, 2)
    ]
    found = SpeakerFrames.of(parts)
    assert found.lengths == (3, 1, 2)
    assert found.features[:, 0].tolist() == found.targets.pdf[:, 0].tolist() == [3, 3, 3, 1, 2, 2]


@pytest.mark.parametrize(("lengths", "targets"), [((2, 2), 5), ((5,), 4), ((3, 3), 5)])
def test_frames_that_do_not_fit_are_refused(lengths, targets):
    found = FrameTargets.certain(np.zeros(targets, np.int32), np.ones(targets, np.float32))
    with pytest.raises(
        AlignmentError, match=rf"5 frames, {sum(lengths)} in the utterances' lengths, {targets} targets"
    ):
        SpeakerFrames(np.zeros((5, 2), np.float32), lengths, found)


@pytest.mark.parametrize("posterior", [[[0.5, 0.4]], [[1.2, -0.2]], [[np.nan, 1.0]], [[0.0, 0.0]]])
def test_posteriors_that_are_no_distribution_are_refused(posterior):
    with pytest.raises(AlignmentError, match="posteriors of frame 0 of 1 sum to"):
        FrameTargets(np.zeros((1, 2), np.int32), np.array(posterior, np.float32), np.ones(1, np.float32))


def test_utterances_with_different_numbers_of_candidates_are_joined():
    two = FrameTargets(np.array([[3, 4]], np.int32), np.array([[0.75, 0.25]], np.float32), np.ones(1, np.float32))
    one = FrameTargets.certain(np.array([5], np.int32), np.array([0.5], np.float32))
    found = joined([two, one])
    assert found.pdf.tolist() == [[3, 4], [5, 0]]
    assert found.posterior.tolist() == [[0.75, 0.25], [1.0, 0.0]]
    assert found.weight.tolist() == [1.0, 0.5]
