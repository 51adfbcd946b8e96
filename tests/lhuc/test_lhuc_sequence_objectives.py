"""Objectives over recordings against their formulas; CTC against all paths."""

import math
from dataclasses import replace
from itertools import groupby, product

import pytest
import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc import Consistency, Ctc, Entropy, LabelCrossEntropy, Labels, Unlabelled, join_targets


def probability(posteriors: torch.Tensor, transcript: list[int]) -> float:
    """The sum over all paths that collapse to a transcript; posteriors (T, K), blank 0."""
    frames, classes = posteriors.shape
    total = 0.0
    for path in product(range(classes), repeat=frames):
        if [token for token, _ in groupby(path) if token] == transcript:
            total += math.prod(float(posteriors[t, token]) for t, token in enumerate(path))
    return total


def test_ctc_is_the_probability_of_all_paths_times_the_mean_confidence(randn):
    output = randn(3, 4, 3)
    # The word in the middle is not believed, but it is still part of the transcript.
    targets = Labels.padded([[1, 2, 1], [2], [1, 1]], torch.tensor([4, 3, 4]), [[0.5, 0.0, 1.0], [0.25], [0.0, 0.0]])
    posteriors = output.softmax(2)
    first = probability(posteriors[0], [1, 2, 1])
    second = probability(posteriors[1, :3], [2])
    expected = -0.5 * math.log(first) - 0.25 * math.log(second)
    assert float(Ctc()(output, targets)) == pytest.approx(expected, rel=1e-6)


def test_ctc_without_targets_takes_the_greedy_transcripts():
    output = torch.eye(3)[torch.tensor([[0, 1, 1, 2], [2, 0, 2, 1]])]
    targets = Ctc().targets_of(output, torch.tensor([4, 3]))
    assert targets.labels.tolist() == [[1, 2], [2, 2]]
    assert targets.amounts().tolist() == [2.0, 2.0]
    assert targets.lengths.tolist() == [4, 3]


def test_a_transcript_that_does_not_fit_and_is_not_believed_teaches_nothing(randn):
    output = randn(2, 2, 3).requires_grad_()
    targets = Labels.padded([[1, 2, 1], [2]], torch.tensor([2, 2]), [[0.0, 0.0, 0.0], [1.0]])
    Ctc()(output, targets).backward()
    assert output.grad.isfinite().all()
    assert not output.grad[0].any()
    nothing = replace(targets, confidences=torch.zeros(2, 3))
    assert Ctc()(output, nothing).item() == 0.0
    assert Ctc()(output, Labels.padded([[1, 2, 1], [2]], torch.tensor([2, 2]))).isinf()


def test_cross_entropy_counts_labels_by_their_confidence(randn):
    output = randn(2, 3, 4)
    targets = Labels(
        weights=torch.tensor([1.0, 3.0]),
        lengths=torch.tensor([3, 3]),
        labels=torch.tensor([[0, 3, -1], [2, -1, 1]]),
        confidences=torch.tensor([[0.5, 1.0, 9.0], [0.0, 9.0, 0.2]]),
    )
    log_p = output.log_softmax(2)
    expected = -(0.5 * log_p[0, 0, 0] + log_p[0, 1, 3] + 3 * 0.2 * log_p[1, 2, 1])
    assert float(LabelCrossEntropy()(output, targets)) == pytest.approx(float(expected), rel=1e-6)
    assert targets.amounts().tolist() == pytest.approx([1.5, 0.6])


@pytest.mark.parametrize("blank", [0, None])
def test_entropy_is_the_mean_over_frames_that_are_not_blank(randn, blank):
    output = 3 * randn(3, 5, 4)
    output[2, :, 0] = 50.0  # all blank
    lengths, weights = [5, 3, 5], [1.0, 0.5, 2.0]
    expected = 0.0
    for scores, length, weight in zip(output, lengths, weights, strict=True):
        frames = [row for row in scores[:length] if blank is None or int(row.argmax()) != blank]
        values = [-sum(p * math.log(p) for p in (row / 1.7).softmax(0).tolist()) for row in frames]
        expected += weight * sum(values) / max(1, len(values))
    targets = Unlabelled(torch.tensor(weights), torch.tensor(lengths))
    assert float(Entropy(blank, temperature=1.7)(output, targets)) == pytest.approx(expected, rel=1e-5)


def test_consistency_is_the_cross_entropy_with_the_clean_output(randn):
    clean, masked = randn(2, 4, 3).requires_grad_(), randn(2, 4, 3).requires_grad_()
    lengths = torch.tensor([4, 2])
    loss = Consistency()(masked, Consistency().clean_targets(clean, lengths))
    expected = sum(
        -(clean[b, t].softmax(0) * masked[b, t].log_softmax(0)).sum().item() / length
        for b, length in enumerate(lengths.tolist())
        for t in range(length)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert clean.grad is None
    assert not masked.grad[1, 2:].any()


SAID = Labels.padded([[9]], torch.tensor([3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Entropy(temperature=0.0), "temperature 0.0: expected a number above 0"),
        (lambda: Entropy(temperature=float("nan")), "temperature nan"),
        (lambda: Labels.padded([[1]], torch.tensor([2]), [[0.5, 0.5]]), "labels and confidences differ in number"),
        (
            lambda: LabelCrossEntropy()(torch.zeros(1, 3, 2), Labels.padded([[1]], torch.tensor([3]))),
            r"labels of shape \(1, 1\) for an output of shape \(1, 3, 2\)",
        ),
        # Without the check torch reads outside its memory for such a label.
        (
            lambda: Ctc()(torch.zeros(1, 3, 4), SAID),
            "the transcripts hold 9; expected classes 0 to 3 without the blank, 0",
        ),
        (lambda: Ctc(blank=9)(torch.zeros(1, 3, 12), SAID), "the transcripts hold 9"),
        (lambda: Ctc(blank=12)(torch.zeros(1, 3, 12), SAID), "blank=12 is not among the output's classes, 0 to 11"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_labels_are_selected_like_other_targets():
    targets = Labels.padded([[1, 2], [3]], torch.tensor([9, 8]))
    again = join_targets([targets.select(torch.tensor([1])), targets.select(torch.tensor([0]))])
    assert again.labels.tolist() == [[3, -1], [1, 2]]
    assert again.lengths.tolist() == [8, 9]
