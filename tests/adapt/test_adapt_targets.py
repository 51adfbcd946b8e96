"""Targets and their weights; a speaker's frames that do not fit each other."""

import numpy as np
import pytest

from lhuc_asr.adapt.targets import FrameTargets, SpeakerFrames, targets_from_alignment
from lhuc_asr.base.errors import AlignmentError


def test_silence_is_weighted_down_and_frames_without_a_pdf_count_for_nothing():
    found = targets_from_alignment(np.array([7, 0, -1, 4, 8]), np.arange(5), 0.01)
    assert found.pdf.tolist() == [7, 0, 0, 4, 8]
    np.testing.assert_array_equal(found.weight, np.array([1, 0.01, 0, 0.01, 1], np.float32))
    assert (found.pdf.dtype, found.weight.dtype) == (np.int32, np.float32)


def test_an_alignment_is_not_written_to():
    pdfs = np.array([-1, 3])
    pdfs.flags.writeable = False
    targets_from_alignment(pdfs, np.arange(2), 0.0)
    assert pdfs.tolist() == [-1, 3]


@pytest.mark.parametrize("weight", [[1.0], [[1.0, 1.0]]])
def test_a_weight_for_each_pdf(weight):
    with pytest.raises(AlignmentError, match=r"expected \(T,\) each"):
        FrameTargets(np.zeros(2, np.int32), np.array(weight, np.float32))


@pytest.mark.parametrize(
    ("pdf", "weight"), [([1, 2], [1.0, np.nan]), ([1, 2], [1.0, -0.1]), ([1, 2], [1.0, np.inf]), ([1, -1], [1.0, 0.0])]
)
def test_weights_and_pdfs_that_mean_nothing_are_refused(pdf, weight):
    with pytest.raises(AlignmentError, match="weights must be finite and 0 or more, pdfs 0 or more"):
        FrameTargets(np.array(pdf, np.int32), np.array(weight, np.float32))


def test_a_speakers_utterances_one_after_the_other():
    parts = [
        (np.full((n, 2), n, np.float32), FrameTargets(np.full(n, n, np.int32), np.full(n, 0.5, np.float32)))
        for n in (3, 1, 2)
    ]
    found = SpeakerFrames.of(parts)
    assert found.lengths == (3, 1, 2)
    assert found.features[:, 0].tolist() == found.targets.pdf.tolist() == [3, 3, 3, 1, 2, 2]


@pytest.mark.parametrize(("lengths", "targets"), [((2, 2), 5), ((5,), 4), ((3, 3), 5)])
def test_frames_that_do_not_fit_are_refused(lengths, targets):
    found = FrameTargets(np.zeros(targets, np.int32), np.ones(targets, np.float32))
    with pytest.raises(
        AlignmentError, match=rf"5 frames, {sum(lengths)} in the utterances' lengths, {targets} targets"
    ):
        SpeakerFrames(np.zeros((5, 2), np.float32), lengths, found)
