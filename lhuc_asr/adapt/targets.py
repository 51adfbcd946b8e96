"""What a speaker's frames are believed to be, and how far: the one type of every adaptation technique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import AlignmentError


@dataclass(frozen=True)
class FrameTargets:
    """A pdf for each frame, with a weight.

    Attributes:
        pdf: Shape (T,), int32.
        weight: How much the frame counts, shape (T,), float32, 0 or more.
    """

    pdf: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        if self.pdf.shape != self.weight.shape or self.pdf.ndim != 1:
            raise AlignmentError(f"{self.pdf.shape} pdfs with {self.weight.shape} weights; expected (T,) each")
        if not np.all((self.weight >= 0) & (self.weight < np.inf)) or np.any(self.pdf < 0):
            raise AlignmentError(
                "weights must be finite and 0 or more, pdfs 0 or more; give frames without a pdf weight 0"
            )


def targets_from_alignment(pdfs: np.ndarray, silence_pdfs: np.ndarray, silence_weight: float) -> FrameTargets:
    """Targets from a best path or from a reference's alignment.

    Args:
        pdfs: Shape (T,); negative where there is none, such frames get weight 0.
        silence_pdfs: Pdfs of silence: they tell little of a speaker and are many.
        silence_weight: Their weight; speech has weight 1.
    """
    weight = np.where(np.isin(pdfs, silence_pdfs), silence_weight, 1.0).astype(np.float32)
    weight[pdfs < 0] = 0.0
    return FrameTargets(np.maximum(pdfs, 0).astype(np.int32), weight)


@dataclass(frozen=True)
class SpeakerFrames:
    """All of one speaker's adaptation data.

    Attributes:
        features: Normalised features of the utterances, one after the other, shape (T, D), float32.
        lengths: Frames of each utterance; context is not taken across their borders.
        targets: Of all frames, shape (T,).
    """

    features: np.ndarray
    lengths: tuple[int, ...]
    targets: FrameTargets

    def __post_init__(self) -> None:
        frames = len(self.features)
        if sum(self.lengths) != frames or len(self.targets.pdf) != frames:
            raise AlignmentError(
                f"{frames} frames, {sum(self.lengths)} in the utterances' lengths, {len(self.targets.pdf)} targets"
            )

    @classmethod
    def of(cls, utterances: Sequence[tuple[np.ndarray, FrameTargets]]) -> SpeakerFrames:
        """From the features (T, D) and targets (T,) of each utterance."""
        return cls(
            np.concatenate([features for features, _ in utterances]),
            tuple(len(features) for features, _ in utterances),
            FrameTargets(
                np.concatenate([targets.pdf for _, targets in utterances]),
                np.concatenate([targets.weight for _, targets in utterances]),
            ),
        )
