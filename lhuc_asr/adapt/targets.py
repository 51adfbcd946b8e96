"""What a speaker's frames are believed to be, and how far: the one type of every adaptation technique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import AlignmentError


@dataclass(frozen=True)
class FrameTargets:
    """What each frame is believed to be: candidates with their posteriors, and how much the frame counts.

    Attributes:
        pdf: Candidates of each frame, shape (T, M), int32; M is 1 for a best path.
        posterior: Their posteriors, shape (T, M), float32; a frame with fewer candidates has zeros.
        weight: How much the frame counts, shape (T,), float32, 0 or more.
    """

    pdf: np.ndarray
    posterior: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        frames = len(self.weight)
        if self.pdf.ndim != 2 or self.pdf.shape != self.posterior.shape or self.weight.shape != (len(self.pdf),):
            raise AlignmentError(
                f"{self.pdf.shape} pdfs with {self.posterior.shape} posteriors and {self.weight.shape} weights; "
                "expected (T, M), (T, M) and (T,)"
            )
        if not np.all((self.weight >= 0) & (self.weight < np.inf)) or np.any(self.pdf < 0):
            raise AlignmentError(
                "weights must be finite and 0 or more, pdfs 0 or more; give frames without a pdf weight 0"
            )
        total = self.posterior.sum(axis=1, dtype=np.float64)
        if not np.all(self.posterior >= 0) or not np.all(np.abs(total - 1) < 1e-3):
            wrong = int(np.argmax(~(np.abs(total - 1) < 1e-3) | ~(self.posterior >= 0).all(axis=1)))
            raise AlignmentError(
                f"posteriors of frame {wrong} of {frames} sum to {total[wrong]:g}; expected 0 or more each, 1 together"
            )

    @classmethod
    def certain(cls, pdf: np.ndarray, weight: np.ndarray) -> FrameTargets:
        """One pdf a frame, believed entirely: both of shape (T,)."""
        return cls(pdf[:, None], np.ones((len(pdf), 1), np.float32), weight)

    def first(self, frames: int) -> FrameTargets:
        """The targets of the first frames."""
        return FrameTargets(self.pdf[:frames], self.posterior[:frames], self.weight[:frames])


def no_targets(frames: int) -> FrameTargets:
    """Targets of frames of which nothing is known: they count for nothing."""
    return FrameTargets.certain(np.zeros(frames, np.int32), np.zeros(frames, np.float32))


def targets_from_alignment(pdfs: np.ndarray, silence_pdfs: np.ndarray, silence_weight: float) -> FrameTargets:
    """Targets from a best path or from a reference's alignment.

    Args:
        pdfs: Shape (T,); negative where there is none, such frames get weight 0.
        silence_pdfs: Pdfs of silence: they tell little of a speaker and are many.
        silence_weight: Their weight; speech has weight 1.
    """
    weight = np.where(np.isin(pdfs, silence_pdfs), silence_weight, 1.0).astype(np.float32)
    weight[pdfs < 0] = 0.0
    return FrameTargets.certain(np.maximum(pdfs, 0).astype(np.int32), weight)


def joined(parts: Sequence[FrameTargets]) -> FrameTargets:
    """Targets of utterances one after the other; those with fewer candidates get some of posterior 0."""
    most = max(part.pdf.shape[1] for part in parts)

    def filled(table: np.ndarray) -> np.ndarray:
        return np.pad(table, ((0, 0), (0, most - table.shape[1])))

    return FrameTargets(
        np.concatenate([filled(part.pdf) for part in parts]),
        np.concatenate([filled(part.posterior) for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


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
            joined([targets for _, targets in utterances]),
        )
