"""What a speaker's frames are believed to be, and how far: the one type of every adaptation technique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.decode.lattice import FramePosteriors


class TargetsConfig(StrictModel):
    """What a pass takes each frame of its adaptation data for.

    Attributes:
        kind: ``best_path`` of the search in an earlier pass; ``confidence``, the same with words weighted by how far
            they are to be believed; ``lattice``, all that a frame may have been, by its posterior; or ``reference``,
            the forced alignment of the reference transcripts: a bound on what targets can give, not a result.
        source: The earlier pass; where left out the first pass of the same network.
        silence_weight: Weight of frames of silence; speech has 1.
        min_confidence: Below it, words (``confidence``) or frames (``lattice``) count for nothing.
        power: That posteriors of a lattice are raised to; above 1 they are sharper.
        lm_order: The earlier pass' search is made again with an n-gram of this order, for the targets alone: how much
            they depend on the language model. None: its own.
        corrupted: Of a reference, this share of the words is replaced by others of the lexicon, at random: how much
            amplitudes depend on the targets' errors. A larger share corrupts the same words and more.
    """

    kind: Literal["best_path", "confidence", "lattice", "reference"] = "best_path"
    min_confidence: float = Field(0.0, ge=0.0, lt=1.0)
    power: float = Field(1.0, gt=0.0)
    source: str | None = None
    silence_weight: float = Field(0.01, ge=0.0, le=1.0)
    lm_order: int | None = Field(None, ge=1, le=4)
    corrupted: float | None = Field(None, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _used(self) -> TargetsConfig:
        if self.min_confidence and self.kind not in ("confidence", "lattice"):
            raise ValueError(f"min_confidence: {self.kind} targets know no confidence")
        if self.power != 1.0 and self.kind != "lattice":
            raise ValueError(f"power: {self.kind} targets have no posteriors")
        if self.lm_order is not None and self.kind == "reference":
            raise ValueError("lm_order: no search makes reference targets")
        if self.corrupted is not None and self.kind != "reference":
            raise ValueError(f"corrupted: {self.kind} targets have errors of their own; only a reference takes others")
        return self


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


def targets_from_lattice(
    frames: FramePosteriors,
    silence_pdfs: np.ndarray,
    silence_weight: float,
    power: float = 1.0,
    min_confidence: float = 0.0,
) -> FrameTargets:
    """Targets from a lattice's posteriors: all that a frame may have been, each as far as it is believed.

    Args:
        frames: Posteriors of the pdfs.
        silence_pdfs: Pdfs of silence.
        silence_weight: Their weight; a frame weighs what its candidates do, in proportion to their posteriors.
        power: Posteriors are raised to it and normalised: above 1 they are sharper, at 1 as they are. Soft targets
            teach a network to be unsure, which acoustic scales chosen for a sure one do not expect.
        min_confidence: Frames whose most probable pdf has a posterior (before ``power``) below it get weight 0.

    Raises:
        AlignmentError: The power is not above 0.
    """
    if not 0.0 < power < np.inf:
        raise AlignmentError(
            f"posteriors to the power of {power}; expected a number above 0, 1 leaves them as they are"
        )
    # Of the largest in each frame, so that a high power leaves at least that.
    largest = frames.posterior.max(axis=1, keepdims=True)
    sharpened = (frames.posterior / largest).astype(np.float64) ** power
    posterior = (sharpened / sharpened.sum(axis=1, keepdims=True)).astype(np.float32)
    weight = (posterior * np.where(np.isin(frames.pdf, silence_pdfs), silence_weight, 1.0)).sum(axis=1)
    weight[largest[:, 0] < min_confidence] = 0.0
    return FrameTargets(frames.pdf, posterior, weight.astype(np.float32))


def targets_from_confidence(
    pdfs: np.ndarray,
    confidence: np.ndarray,
    silence_pdfs: np.ndarray,
    silence_weight: float,
    min_confidence: float = 0.0,
    weighted: bool = False,
) -> FrameTargets:
    """Targets from the parts of a best path that are believed.

    Args:
        pdfs: Of the best path, shape (T,).
        confidence: How far each frame is believed, 0 to 1, shape (T,): of its word (``Hypothesis.frame_confidences``)
            or of its pdf (``FramePosteriors.of``).
        silence_pdfs: Pdfs of silence.
        silence_weight: Their weight; speech has weight 1.
        min_confidence: Frames of less get weight 0.
        weighted: Whether the others' weight is multiplied by their confidence.

    Raises:
        AlignmentError: There are not as many confidences as frames, or they are not between 0 and 1.
    """
    if confidence.shape != pdfs.shape or not np.all((confidence >= 0.0) & (confidence <= 1.0)):
        raise AlignmentError(
            f"confidences of shape {confidence.shape} for {pdfs.shape} frames; expected one a frame, between 0 and 1"
        )
    targets = targets_from_alignment(pdfs, silence_pdfs, silence_weight)
    believed = np.where(confidence >= min_confidence, confidence if weighted else 1.0, 0.0)
    return replace(targets, weight=(targets.weight * believed).astype(np.float32))


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
class SpeakerData:
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
    def of(cls, utterances: Sequence[tuple[np.ndarray, FrameTargets]]) -> SpeakerData:
        """From the features (T, D) and targets (T,) of each utterance."""
        return cls(
            np.concatenate([features for features, _ in utterances]),
            tuple(len(features) for features, _ in utterances),
            joined([targets for _, targets in utterances]),
        )
