"""Adaptation targets: candidate pdfs of each frame, their posteriors, and the weight of the frame.

All adaptation methods use this one type. Targets are made from a best path, with or without confidences, from
lattices, or from reference transcripts.
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
        kind: ``best_path``, the best path of an earlier pass; ``confidence``, the same with each word weighted by its
            confidence; ``agreement``, the same with each utterance weighted by the share of its words that stay when
            the acoustic scale is perturbed; ``lattice``, the posteriors of the pdfs in the lattice of an earlier pass;
            or ``reference``, the forced alignment of the reference transcripts. The last is an upper bound for the
            others, not a result.
        source: Name of the earlier pass; None for the first pass of the same network.
        silence_weight: Weight of frames of silence; frames of speech have weight 1.
        min_confidence: Value below which words (``confidence``), utterances (``agreement``) or frames (``lattice``)
            get weight 0.
        mean_one: Whether the weights of a speaker's speech are scaled to a mean of 1, as without confidences: doubtful
            words then count less than others, and the speaker as much as one who is sure (``confidence`` and
            ``agreement`` only).
        power: Exponent of a lattice's posteriors, or of an utterance's agreement; above 1 makes them sharper.
        lm_order: Order of an n-gram model with which the earlier pass is searched again, only to make the targets; it
            shows how much adaptation depends on the language model. None for the order of the recipe's own model.
        corrupted: Fraction of the words of the references that are replaced by other words of the lexicon, chosen by
            the seed; it shows how much adaptation depends on errors in the targets. A larger fraction replaces the
            same words and more.
    """

    kind: Literal["best_path", "confidence", "agreement", "lattice", "reference"] = "best_path"
    min_confidence: float = Field(0.0, ge=0.0, lt=1.0)
    mean_one: bool = False
    power: float = Field(1.0, gt=0.0, le=1000.0)
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
        return self.kind in ("confidence", "agreement", "lattice")

    @model_validator(mode="after")
    def _used(self) -> TargetsConfig:
        if self.min_confidence and not self.from_lattices:
            raise ValueError(f"min_confidence: {self.kind} targets have no confidences; leave it out")
        if self.mean_one and self.kind not in ("confidence", "agreement"):
            raise ValueError(f"mean_one: {self.kind} targets are not weighted by confidences; leave it out")
        if self.power != 1.0 and self.kind not in ("lattice", "agreement"):
            raise ValueError(f"power: {self.kind} targets have nothing to raise to it; leave it out")
        if self.lm_order is not None and not self.unsupervised:
            raise ValueError("lm_order: reference targets do not come from a search; leave it out")
        if self.corrupted is not None and self.unsupervised:
            raise ValueError(f"corrupted: {self.kind} targets have errors of their own; it needs kind reference")
        return self


@dataclass(frozen=True)
class FrameTargets:
    """The targets of some frames.

    Attributes:
        pdf: Candidate pdfs of each frame, shape (T, M), int32; M is 1 for a best path.
        posterior: Posterior of each candidate, shape (T, M), float32; frames with fewer candidates are padded with 0.
        weight: Weight of each frame, 0 or more, shape (T,), float32.
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
                f"posteriors of frame {wrong} of {frames} sum to {total[wrong]:g}; expected a sum of 1, none below 0"
            )

    @classmethod
    def certain(cls, pdf: np.ndarray, weight: np.ndarray) -> FrameTargets:
        """Targets with one pdf per frame, of posterior 1.

        Args:
            pdf: Pdf of each frame, shape (T,), int32.
            weight: Weight of each frame, shape (T,), float32.
        """
        return cls(pdf[:, None], np.ones((len(pdf), 1), np.float32), weight)

    def tensors(self) -> CandidateTargets:
        """The targets as tensors for an objective, without a reference; they share memory with the arrays here."""
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
    """The results of an earlier pass, usually the first, for the utterances that are adapted on.

    Each method computes its result when it is called.
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
    """The targets of each utterance.

    Args:
        first_pass: Results of the earlier pass.
        config: Options of the targets.
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
        case "agreement":
            return {
                summary.hypothesis.utterance: targets_from_confidence(
                    summary.hypothesis.pdfs,
                    np.full(len(summary.hypothesis.pdfs), summary.agreement),
                    silence_pdfs,
                    silence_weight,
                    config.min_confidence,
                    config.power,
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
                )
                for best in hypotheses
            }


def alignment_targets(
    paths: Mapping[str, np.ndarray], silence_pdfs: np.ndarray, silence_weight: float
) -> dict[str, FrameTargets]:
    """Targets of utterances from the pdfs of their frames; see ``targets_from_alignment``."""
    return {utterance: targets_from_alignment(pdfs, silence_pdfs, silence_weight) for utterance, pdfs in paths.items()}


def no_targets(frames: int) -> FrameTargets:
    """Targets of weight 0, for frames about which nothing is known."""
    return FrameTargets.certain(np.zeros(frames, np.int32), np.zeros(frames, np.float32))


def targets_from_alignment(pdfs: np.ndarray, silence_pdfs: np.ndarray, silence_weight: float) -> FrameTargets:
    """Targets from a best path or from a reference's alignment.

    Args:
        pdfs: Pdf of each frame, shape (T,); negative for a frame without one, which gets weight 0.
        silence_pdfs: Pdfs of silence. Frames of silence are many and tell little about a speaker.
        silence_weight: Weight of frames of silence; frames of speech have weight 1.
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
    """Targets from the posteriors of a lattice.

    Args:
        frames: Posteriors of the pdfs of each frame.
        silence_pdfs: Pdfs of silence.
        silence_weight: Weight of silence. The weight of a frame is the mean of its candidates' weights under their
            posteriors.
        power: Exponent of the posteriors, which are normalised afterwards; above 1 makes them sharper. Soft targets
            make a network less certain, and the acoustic scale was tuned for a more certain one.
        min_confidence: Posterior of the most probable pdf, before ``power``, below which a frame gets weight 0.

    Raises:
        AlignmentError: The power is not above 0.
    """
    if not 0.0 < power < np.inf:
        raise AlignmentError(f"posteriors to the power of {power}; expected a number above 0; 1 leaves them unchanged")
    # Relative to the largest in each frame: with a high power at least that one stays above 0.
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
    power: float = 1.0,
) -> FrameTargets:
    """Targets from a best path, with weights from confidences.

    Args:
        pdfs: Pdf of each frame on the best path, shape (T,).
        confidence: Confidence of each frame, 0 to 1, shape (T,): that of its word (``Hypothesis.frame_confidences``)
            or of its pdf (``FramePosteriors.of``), or the agreement of its utterance.
        silence_pdfs: Pdfs of silence.
        silence_weight: Weight of frames of silence; frames of speech have weight 1.
        min_confidence: Confidence below which a frame gets weight 0. The weights of the other frames are multiplied by
            their confidences to the ``power``.
        power: Exponent of the confidences.

    Raises:
        AlignmentError: There are not as many confidences as frames, or they are not between 0 and 1.
    """
    if confidence.shape != pdfs.shape or not np.all((confidence >= 0.0) & (confidence <= 1.0)):
        raise AlignmentError(
            f"confidences of shape {confidence.shape} for {pdfs.shape} frames; expected one per frame, between 0 and 1"
        )
    targets = targets_from_alignment(pdfs, silence_pdfs, silence_weight)
    factor = np.where(confidence >= min_confidence, confidence**power, 0.0)
    return replace(targets, weight=(targets.weight * factor).astype(np.float32))


def with_mean_one(targets: FrameTargets, silence_pdfs: np.ndarray) -> FrameTargets:
    """Targets of a speaker with weights scaled so that those of speech have a mean of 1.

    Args:
        targets: Targets with one pdf per frame. Frames of weight 0 are left out of the mean.
        silence_pdfs: Pdfs of silence; its weights are scaled by the same factor.
    """
    spoken = targets.weight[(targets.weight > 0) & ~np.isin(targets.pdf[:, 0], silence_pdfs)]
    if not len(spoken):
        return targets
    return replace(targets, weight=(targets.weight / spoken.mean(dtype=np.float64)).astype(np.float32))


def joined(parts: Sequence[FrameTargets]) -> FrameTargets:
    """Targets of several utterances, one after the other, padded with candidates of posterior 0 to one width."""
    most = max(part.pdf.shape[1] for part in parts)

    def filled(table: np.ndarray) -> np.ndarray:
        return np.pad(table, ((0, 0), (0, most - table.shape[1])))

    return FrameTargets(
        np.concatenate([filled(part.pdf) for part in parts]),
        np.concatenate([filled(part.posterior) for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )
