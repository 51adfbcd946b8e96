"""Objectives over recordings: labels, CTC, entropy, and consistency with the clean input.

Each is an ``Objective``, whose elements are recordings and whose output is (B, T, K). ``adapt`` descends on them; so
may any loop of the user's own. They sum over recordings; ``Targets.amounts`` is what a mean divides by.

Sources:
    CTC: A. Graves, S. Fernandez, F. Gomez, J. Schmidhuber, "Connectionist Temporal Classification", ICML 2006.
    Entropy: G.-T. Lin, S.-W. Li, H.-Y. Lee, "Listen, Adapt, Better WER: Source-free Single-utterance Test-time
    Adaptation for Automatic Speech Recognition" (SUTA), Interspeech 2022: the entropy of softmax(logits / 2.5), over
    frames whose best class is not the blank. Its minimum class confusion is left out, and so are the beam and the Renyi
    entropy of C. Kim, J. Park, H. Shim, E. Yang, "SGEM: Test-Time Adaptation for Automatic Speech Recognition via
    Sequential-Level Generalized Entropy Minimization", Interspeech 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.hypotheses import GreedyCtc, Hypothesis
from lhuc_asr.lhuc.objective import CandidateTargets, FrameCrossEntropy, Targets
from lhuc_asr.lhuc.perturbation import Perturbation, SpecAugment

# Labels below 0 are none: padding, or a frame of which nothing is known.
NO_LABEL = -1


@dataclass(frozen=True)
class Unlabelled(Targets):
    """Recordings of which nothing but their length is known.

    Attributes:
        weights: Weight of each recording, shape (B,).
        lengths: Number of valid frames of the output, shape (B,), int64.
    """

    lengths: Tensor

    @classmethod
    def of(cls, lengths: Tensor) -> Unlabelled:
        """Recordings of weight 1.

        Args:
            lengths: Number of valid frames, shape (B,).
        """
        return cls(torch.ones(len(lengths), device=lengths.device), lengths)


@dataclass(frozen=True)
class Labels(Unlabelled):
    """Labels of recordings: of their frames, or of the words or characters of their transcripts.

    Attributes:
        weights: Weight of each recording, shape (B,).
        lengths: Number of valid frames of the output, shape (B,), int64.
        labels: Classes, shape (B, U), int64; below 0 where there is none.
        confidences: Weight of each label, 0 or more, shape (B, U); 0 for a label that is not believed.
    """

    labels: Tensor
    confidences: Tensor

    @classmethod
    def padded(
        cls,
        labels: Sequence[Sequence[int]],
        lengths: Tensor,
        confidences: Sequence[Sequence[float]] | None = None,
    ) -> Labels:
        """Labels of recordings of weight 1.

        Args:
            labels: The labels of each recording.
            lengths: Number of valid frames of the output, shape (B,).
            confidences: As many for each recording as labels; by default all 1.

        Raises:
            ConfigError: There are not as many confidences as labels.

        Example:
            >>> Labels.padded([[3, 1], [2]], torch.tensor([9, 7]), [[0.5, 1.0], [0.25]]).amounts()
            tensor([1.5000, 0.2500])
        """
        confidences = [[1.0] * len(row) for row in labels] if confidences is None else confidences
        if [len(row) for row in labels] != [len(row) for row in confidences]:
            raise ConfigError("labels and confidences differ in number; give each label of a recording a confidence")
        device = lengths.device
        rows = [torch.tensor(row, dtype=torch.int64, device=device) for row in labels]
        believed = [torch.tensor(row, dtype=torch.get_default_dtype(), device=device) for row in confidences]
        return cls(
            torch.ones(len(rows), device=device),
            lengths,
            pad_sequence(rows, batch_first=True, padding_value=NO_LABEL),
            pad_sequence(believed, batch_first=True),
        )

    def believed(self) -> Tensor:
        """The confidence of each label, 0 where there is none, shape (B, U)."""
        return torch.where(self.labels >= 0, self.confidences, 0.0)

    def amounts(self) -> Tensor:
        """The sum of each recording's confidences, times its weight, shape (B,)."""
        return self.weights * self.believed().sum(1)


@dataclass(frozen=True)
class LabelCrossEntropy:
    """Cross-entropy of labels: of frames, or of an attention decoder that is given the labels before (teacher forcing).

    The output is logits (B, U, K), one for each of the targets' labels (B, U). Each label counts by its confidence.
    """

    def __call__(self, output: Tensor, targets: Labels, /) -> Tensor:
        """The loss, a sum over labels.

        Raises:
            ConfigError: There is not one output for each label.
        """
        if output.shape[:2] != targets.labels.shape:
            raise ConfigError(
                f"labels of shape {tuple(targets.labels.shape)} for an output of shape {tuple(output.shape)}; expected "
                "a label for each position of the output; pad them with -1"
            )
        weights = targets.weights[:, None] * targets.believed()
        classes = targets.labels.clamp(min=0).flatten()[:, None]
        ones = torch.ones(classes.shape, dtype=output.dtype, device=output.device)
        frames = CandidateTargets(weights.flatten(), classes, ones, output.new_empty(len(classes), 0))
        return FrameCrossEntropy()(output.flatten(0, 1), frames)


@dataclass(frozen=True)
class Ctc:
    """Connectionist temporal classification of transcripts.

    A recording counts by the mean confidence of its labels, because the loss is that of the whole transcript. Without
    targets, ``adapt`` takes the greedy transcripts of the model before adaptation.

    Attributes:
        blank: The class of the blank.
    """

    blank: int = 0

    def __call__(self, output: Tensor, targets: Labels, /) -> Tensor:
        """The loss, a sum over recordings.

        Args:
            output: Logits or log posteriors, shape (B, T, K).
            targets: The transcripts.

        Raises:
            ConfigError: A label or the blank is not a class of the output, or a label is the blank.
        """
        self._check_labels(targets.labels[targets.labels >= 0], output.shape[2])
        # Where a transcript that is not believed does not fit either, its gradient would be 0 times infinity.
        believed = targets.amounts().nonzero()[:, 0]
        output, targets = output[believed], targets.select(believed)
        if not len(targets):
            return output.sum()
        there = targets.labels >= 0
        counts = there.sum(1)
        log_posteriors = output.log_softmax(2).transpose(0, 1)
        # (B, U) with gaps would be read as padding at the end: the concatenated form has none.
        losses = functional.ctc_loss(
            log_posteriors, targets.labels[there], targets.lengths, counts, self.blank, reduction="none"
        )
        return (losses * targets.amounts() / counts).sum()

    def _check_labels(self, labels: Tensor, classes: int) -> None:
        if not 0 <= self.blank < classes:
            raise ConfigError(f"Ctc: blank={self.blank} is not among the output's classes, 0 to {classes - 1}")
        wrong = labels[(labels >= classes) | (labels == self.blank)]
        if len(wrong):
            raise ConfigError(
                f"Ctc: the transcripts hold {int(wrong[0])}; expected classes 0 to {classes - 1} without the blank, "
                f"{self.blank}"
            )

    def targets_of(self, output: Tensor, lengths: Tensor) -> Labels:
        """Pseudo-labels: the greedy transcripts of an output."""
        return Labels.padded(GreedyCtc(self.blank)(output, lengths), lengths)

    def decode(self, output: Tensor, lengths: Tensor) -> Sequence[Hypothesis]:
        """Greedy transcripts."""
        return GreedyCtc(self.blank)(output, lengths)


@dataclass(frozen=True)
class Entropy:
    """Entropy of the posteriors; each recording has the mean over its frames whose best class is not the blank.

    It falls on and on while a model collapses: stop early, as ``adapt`` does.

    Attributes:
        blank: The class of the blank; None for frame posteriors without one, where all frames count.
        temperature: Divides the logits. Above 1 frames that are certain already have a gradient too.

    Raises:
        ConfigError: The temperature is not above 0.
    """

    blank: int | None = 0
    temperature: float = 2.5

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature {self.temperature}: expected a number above 0")

    def __call__(self, output: Tensor, targets: Unlabelled, /) -> Tensor:
        """The loss, a sum over recordings.

        Args:
            output: Logits, shape (B, T, K).
            targets: The recordings' lengths.
        """
        log_posteriors = (output / self.temperature).log_softmax(2)
        entropies = -(log_posteriors.exp() * log_posteriors).sum(2)
        counted = _valid(output, targets.lengths)
        if self.blank is not None:
            counted = counted & (output.argmax(2) != self.blank)
        means = torch.where(counted, entropies, 0.0).sum(1) / counted.sum(1).clamp(min=1)
        return (means * targets.weights).sum()

    def targets_of(self, output: Tensor, lengths: Tensor) -> Unlabelled:
        """Recordings of weight 1."""
        return Unlabelled.of(lengths)

    def decode(self, output: Tensor, lengths: Tensor) -> Sequence[Hypothesis]:
        """Greedy transcripts."""
        return GreedyCtc(self.blank)(output, lengths)


@dataclass(frozen=True)
class SoftTargets(Unlabelled):
    """Posteriors of all classes for each frame.

    Attributes:
        weights: Weight of each recording, shape (B,).
        lengths: Number of valid frames, shape (B,), int64.
        posteriors: Shape (B, T, K).
    """

    posteriors: Tensor


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy between the output for the clean input and that for a masked one, through which the gradient goes.

    Each recording has the mean over its frames.
    ``adapt`` makes the targets anew in each step, with the speaker's row as it then is.

    Attributes:
        perturb: What masks the input.
        blank: The class of the blank, for decoding; None for frame posteriors without one.
    """

    perturb: Perturbation = field(default_factory=SpecAugment)
    blank: int | None = 0

    def __call__(self, output: Tensor, targets: SoftTargets, /) -> Tensor:
        """The loss, a sum over recordings.

        Args:
            output: Logits for the masked input, shape (B, T, K).
            targets: Posteriors for the clean input.
        """
        entropies = -(targets.posteriors * output.log_softmax(2)).sum(2)
        counted = _valid(output, targets.lengths)
        means = torch.where(counted, entropies, 0.0).sum(1) / counted.sum(1).clamp(min=1)
        return (means * targets.weights).sum()

    def targets_of(self, output: Tensor, lengths: Tensor) -> Unlabelled:
        """Recordings of weight 1, whose posteriors are yet to come."""
        return Unlabelled.of(lengths)

    def clean_targets(self, output: Tensor, lengths: Tensor) -> SoftTargets:
        """The posteriors of an output for the clean input, as targets of weight 1."""
        ones = torch.ones(len(lengths), device=output.device)
        return SoftTargets(ones, lengths, output.detach().softmax(2))

    def decode(self, output: Tensor, lengths: Tensor) -> Sequence[Hypothesis]:
        """Greedy transcripts."""
        return GreedyCtc(self.blank)(output, lengths)


def _valid(output: Tensor, lengths: Tensor) -> Tensor:
    """Whether each frame is before the end of its recording, shape (B, T)."""
    return torch.arange(output.shape[1], device=output.device) < lengths.to(output.device)[:, None]
