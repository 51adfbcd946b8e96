"""Adaptation targets: candidate pdfs of each frame, their posteriors, and the weight of the frame.

One type for every adaptation method, from four makers: best path, confidences, lattices, reference transcripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.decode.lattice import FramePosteriors
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.lhuc.objective import CandidateTargets


class TargetsConfig(StrictModel):
    """The adaptation targets of a pass.

    Attributes:
        kind: ``best_path`` of the search in an earlier pass; ``confidence``, the same with each word weighted by its
            confidence; ``lattice``, the posteriors of every pdf of a frame; or ``reference``, the forced alignment of
            the reference transcripts: a bound on what targets can give, not a result.
        source: The earlier pass; None for the first pass of the same network.
        silence_weight: Weight of frames of silence; frames of speech have 1.
        min_confidence: Words (``confidence``) or frames (``lattice``) below it have weight 0.
        power: Exponent of a lattice's posteriors; above 1 they are sharper.
        lm_order: Order of the n-gram model with which the earlier pass is searched again, for the targets alone: how
            much they depend on the language model. None for the recipe's own.
        corrupted: Fraction of a reference's words that are replaced by other words of the lexicon, chosen by the seed:
            how much amplitudes depend on the targets' errors. A larger fraction corrupts the same words and more.
    """

    kind: Literal["best_path", "confidence", "lattice", "reference"] = "best_path"
    min_confidence: float = Field(0.0, ge=0.0, lt=1.0)
    power: float = Field(1.0, gt=0.0)
    source: str | None = None
    silence_weight: float = Field(0.01, ge=0.0, le=1.0)
    lm_order: int | None = Field(None, ge=1, le=4)
    corrupted: float | None = Field(None, gt=0.0, le=1.0)

    @property
    def unsupervised(self) -> bool:
        """Whether the targets come from a search, and not from reference transcripts."""
        return self.kind != "reference"

    @property
    def from_lattices(self) -> bool:
        """Whether the targets are made from lattices."""
        return self.kind in ("confidence", "lattice")

    @model_validator(mode="after")
    def _used(self) -> TargetsConfig:
        if self.min_confidence and not self.from_lattices:
            raise ValueError(f"min_confidence: {self.kind} targets have no confidences; leave it out")
        if self.power != 1.0 and self.kind != "lattice":
            raise ValueError(f"power: {self.kind} targets have no posteriors; leave it out")
        if self.lm_order is not None and not self.unsupervised:
            raise ValueError("lm_order: reference targets do not come from a search; leave it out")
        if self.corrupted is not None and self.unsupervised:
            raise ValueError(f"corrupted: {self.kind} targets have errors of their own; it needs kind reference")
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

    def tensors(self) -> CandidateTargets:
        """The targets as an objective takes them, without a reference; they share memory with these."""
        return CandidateTargets(
            weights=torch.from_numpy(self.weight),
            classes=torch.from_numpy(self.pdf).long(),
            posteriors=torch.from_numpy(self.posterior),
            reference=torch.empty(len(self.weight), 0),
        )

    def first(self, frames: int) -> FrameTargets:
        """The targets of the first frames."""
        return FrameTargets(self.pdf[:frames], self.posterior[:frames], self.weight[:frames])


class FirstPass(Protocol):
    """What a first pass, or any earlier one, says about the utterances that are adapted on.

    Nothing is computed before it is asked for.
    """

    def best_paths(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame of each utterance on the best path, shapes (T,), int32."""
        ...

    def lattices(self) -> Iterable[LatticeSummary]:
        """Confidences and posteriors of each utterance."""
        ...

    def references(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame along the reference transcripts, shapes (T,); utterances without one are left out."""
        ...


def make_targets(first_pass: FirstPass, config: TargetsConfig, silence_pdfs: np.ndarray) -> dict[str, FrameTargets]:
    """The targets of each utterance, as the configuration says.

    Args:
        first_pass: What is known about the utterances.
        config: Kind of targets, and their weights.
        silence_pdfs: Pdfs of silence.
    """
    silence_weight = config.silence_weight
    match config.kind:
        case "best_path":
            return alignment_targets(first_pass.best_paths(), silence_pdfs, silence_weight)
        case "reference":
            return alignment_targets(first_pass.references(), silence_pdfs, silence_weight)
        case "lattice":
            return {
                summary.hypothesis.utterance: targets_from_lattice(
                    summary.frames, silence_pdfs, silence_weight, config.power, config.min_confidence
                )
                for summary in first_pass.lattices()
            }
        case "confidence":
            hypotheses = (summary.hypothesis for summary in first_pass.lattices())
            return {
                best.utterance: targets_from_confidence(
                    best.pdfs,
                    best.frame_confidences(),
                    silence_pdfs,
                    silence_weight,
                    config.min_confidence,
                    weighted=True,
                )
                for best in hypotheses
            }


def alignment_targets(
    paths: Mapping[str, np.ndarray], silence_pdfs: np.ndarray, silence_weight: float
) -> dict[str, FrameTargets]:
    """Targets of utterances from the pdfs of their frames, shapes (T,); see ``targets_from_alignment``."""
    return {utterance: targets_from_alignment(pdfs, silence_pdfs, silence_weight) for utterance, pdfs in paths.items()}


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
