"""The objectives of sequence training over a denominator lattice, and their derivatives.

MMI is the log probability of the reference among the paths of the lattice, boosted MMI the same with paths more
probable the more errors they have (Povey et al., "Boosted MMI for model and feature-space discriminative training",
2008). sMBR is the expected number of frames whose pdf is right (Kingsbury, "Lattice-based optimization of sequence
classification criteria for neural-network acoustic modeling", 2009). Vesely et al., "Sequence-discriminative training
of deep neural networks" (2013), apply both to neural networks.

A log-likelihood is scaled by kappa here, as in the search. Forward and backward sums are in the log domain and float64.
Each path has one pdf in each frame, so that both derivatives sum to zero over the pdfs of a frame: what is added to all
log-likelihoods of a frame changes nothing, and a derivative with respect to log-likelihoods is one with respect to
logits, over kappa.

The papers know the reference in every frame. A frame without one is not counted here: sMBR sums the right frames over
the others, and the numerator of MMI is the sum over the paths that have the reference's pdfs in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.lattice_sums import (
    ArcScores,
    add_to_frames,
    arc_scores,
    expected_right,
    log_total,
    occupancy_of,
    path_sums,
)

# Stands for the class of a frame whose reference is not known: no pdf is right there.
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Reference:
    """What an utterance is.

    Attributes:
        pdf: Pdf of each frame, shape (T,), negative where it is not known.
        classes: Class of each pdf, shape (K,), int32, as ``pdf_classes`` gives them. A frame is right where its pdf has
            the class of the reference's.
    """

    pdf: np.ndarray
    classes: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether each frame's pdf is known, shape (T,)."""
        known: np.ndarray = self.pdf >= 0
        return known

    @property
    def of_frames(self) -> np.ndarray:
        """Class of each frame, ``UNKNOWN`` where its pdf is not known, shape (T,), int32."""
        return np.where(self.known, self.classes[np.maximum(self.pdf, 0)], UNKNOWN).astype(np.int32)


@dataclass(frozen=True)
class Mmi:
    """MMI of an utterance.

    Attributes:
        objective: Log probability of the reference among the paths, at most 0 without a boost. Where the lattice does
            not contain the reference, its graph cost counts as 0 and so do the scores of frames in which it is not
            known. If it is known in all frames, the objective is off by a constant.
        contained: Whether a path of the lattice has the reference's pdfs in all frames in which it is known.
        rejected: Number of frames whose derivative is zero because the lattice does not have the reference's pdf there,
            or the reference is not known.
    """

    objective: float
    contained: bool
    rejected: int


def pdf_classes(pdf_count: int, silence_pdfs: Sequence[int]) -> np.ndarray:
    """The classes within which pdfs are not told apart when right frames are counted.

    All pdfs of silence are one class, as with Kaldi's ``one_silence_class``: a frame of silence is right where the path
    has silence too, with whichever of its pdfs. Without it, states within pauses would count as much as speech, or,
    if silence were never right, paths that insert words into pauses would cost nothing.

    Args:
        pdf_count: Number of pdfs, K.
        silence_pdfs: The pdfs of silence and noise; none where each pdf is a class of its own.

    Returns:
        Shape (K,), int32.

    Raises:
        LatticeError: A pdf of silence is not one of the K.

    Example:
        >>> pdf_classes(5, [1, 2]).tolist()
        [0, 1, 1, 3, 4]
    """
    silence = np.array(silence_pdfs, np.int64)
    if len(silence) and not 0 <= silence.min() <= silence.max() < pdf_count:
        raise LatticeError(
            f"pdfs of silence {silence.min()} to {silence.max()}, expected 0 to {pdf_count - 1}; take the network's "
            "own topology"
        )
    classes = np.arange(pdf_count, dtype=np.int32)
    if len(silence):
        classes[silence] = silence[0]
    return classes


def mmi(
    lattice: DenominatorLattice,
    log_likelihoods: np.ndarray,
    reference: Reference,
    derivative: np.ndarray | None = None,
    boost: float = 0.0,
) -> Mmi:
    """The log probability of the reference, and its derivative (Vesely et al. 2013).

    The derivative is 1 for the reference's pdf in each frame, minus the pdf's probability in the lattice. Frames in
    which the lattice gives no probability to the reference's pdf are rejected, as Vesely et al. do: a wrong reference,
    or one that the search lost, would otherwise pull with the full weight of its frames for ever. Frames whose
    reference is not known are rejected too.

    Args:
        lattice: The paths, as ``check_lattice`` lets them pass.
        log_likelihoods: Scaled log-likelihood of each pdf, up to a constant in each frame, shape (T, K), float32 or
            float64.
        reference: What the utterance is.
        derivative: Array that is overwritten with the derivative of the objective with respect to
            ``log_likelihoods``, shape (T, K), float32 or float64; None where it is not needed.
        boost: Number of nats by which a path of the lattice is less probable for each right frame, b.

    Raises:
        LatticeError: The shapes do not fit each other.
    """
    scores = _scores(lattice, log_likelihoods, reference, derivative)
    frames = np.flatnonzero(reference.known)
    numerator = log_total(lattice, np.where(scores.of_reference, scores.log_weight, -np.inf))
    contained = numerator > -np.inf
    if not contained:
        numerator = float(log_likelihoods[frames, reference.pdf[frames]].sum(dtype=np.float64))
    sums = path_sums(lattice, scores.log_weight - boost * scores.right)
    shared = frames[occupancy_of(lattice, sums.posterior, reference.pdf)[frames] > 0.0]
    if derivative is not None:
        derivative[:] = 0.0
        add_to_frames(lattice, -sums.posterior, derivative)
        derivative[np.setdiff1d(np.arange(lattice.frames), shared, assume_unique=True)] = 0.0
        derivative[shared, reference.pdf[shared]] += 1.0
    return Mmi(numerator - sums.log_total, contained, lattice.frames - len(shared))


def smbr(
    lattice: DenominatorLattice,
    log_likelihoods: np.ndarray,
    reference: Reference,
    derivative: np.ndarray | None = None,
) -> float:
    """The expected number of right frames, and its derivative (Kingsbury 2009).

    The derivative of a pdf in a frame is the sum, over the arcs that have it there, of the arc's probability times the
    difference in expected right frames between the paths through the arc and all paths. It needs no reference in the
    lattice: the paths that are nearest to it gain. Frames whose reference is not known are right on no path. Their pdfs
    have derivatives all the same: in these frames, too, paths that are right elsewhere compete with those that are not.

    Args:
        lattice: The paths, as ``check_lattice`` lets them pass.
        log_likelihoods: Scaled log-likelihood of each pdf, up to a constant in each frame, shape (T, K), float32 or
            float64.
        reference: What the utterance is.
        derivative: Array that is overwritten with the derivative of the objective with respect to
            ``log_likelihoods``, shape (T, K), float32 or float64; None where it is not needed.

    Returns:
        The expected number, at most that of the frames whose reference is known.

    Raises:
        LatticeError: The shapes do not fit each other.
    """
    scores = _scores(lattice, log_likelihoods, reference, derivative)
    sums = path_sums(lattice, scores.log_weight)
    mean, through = expected_right(lattice, scores.log_weight, scores.right, sums)
    if derivative is not None:
        derivative[:] = 0.0
        add_to_frames(lattice, sums.posterior * (through - mean), derivative)
    return mean


def _scores(
    lattice: DenominatorLattice, log_likelihoods: np.ndarray, reference: Reference, derivative: np.ndarray | None
) -> ArcScores:
    """The scores of the arcs, after a check that all shapes fit: the compiled loops check nothing."""
    shape = lattice.frames, len(reference.classes)
    if log_likelihoods.shape != shape or len(reference.pdf) != shape[0]:
        raise LatticeError(
            f"log-likelihoods of shape {log_likelihoods.shape} and a reference of {len(reference.pdf)} frames for a "
            f"lattice of {shape[0]} frames and {shape[1]} pdfs; make the lattices again"
        )
    if derivative is not None and derivative.shape != shape:
        raise LatticeError(
            f"an array of shape {derivative.shape} for a derivative of shape {shape}; pass an array of that shape"
        )
    highest = max(int(lattice.pdf.max()), int(reference.pdf.max()))
    if highest >= shape[1]:
        raise LatticeError(f"pdf {highest} for a network with pdfs 0 to {shape[1] - 1}; make the lattices again")
    return arc_scores(lattice, log_likelihoods, reference.pdf, reference.classes, reference.of_frames)
