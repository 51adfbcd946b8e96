"""Whole utterances with their frames, references and denominator lattices, in mini-batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.lattice_objectives import pdf_classes
from lhuc_asr.nnet.lattice_store import LatticeStore
from lhuc_asr.nnet.losses import NO_TARGET

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SequenceBatch:
    """Some utterances, one after the other.

    Attributes:
        utterances: The utterances.
        spliced: Spliced features, shape (B, w D + R).
        targets: Pdf of each frame, negative where it is not known, shape (B,), int64.
    """

    utterances: Sequence[StoredUtterance]
    spliced: torch.Tensor
    targets: torch.Tensor

    @property
    def countable(self) -> torch.Tensor:
        """Targets for cross-entropy: ``NO_TARGET`` where they are not known, shape (B,), int64."""
        return self.targets.masked_fill(self.targets < 0, NO_TARGET)

    @property
    def rows(self) -> list[slice]:
        """Rows of each utterance's frames."""
        ends = np.cumsum([utterance.frames for utterance in self.utterances]).tolist()
        return [slice(end - utterance.frames, end) for utterance, end in zip(self.utterances, ends, strict=True)]


@dataclass(frozen=True)
class SequenceSource:
    """Utterances that have a lattice and a reference.

    Attributes:
        frames: Their frames; the targets are the references.
        lattices: Their denominator lattices, and perhaps those of others.
        classes: Class of each pdf, shape (K,), int32; see ``pdf_classes``.
        without_lattice: Number of utterances that were left out because they have no lattice.
        without_reference: Number of utterances with a lattice that were left out because no frame has a target.
    """

    frames: FrameSource
    lattices: LatticeStore
    classes: np.ndarray
    without_lattice: int
    without_reference: int

    def groups(self, most_frames: int, order: torch.Generator | None = None) -> list[list[StoredUtterance]]:
        """All utterances once, those of each mini-batch.

        Args:
            most_frames: Maximum number of frames in a mini-batch; a longer utterance is one of its own.
            order: Generator of the order; None for the order of the source.
        """
        utterances = self.frames.utterances
        if order is not None:
            utterances = [utterances[place] for place in torch.randperm(len(utterances), generator=order).tolist()]
        return list(_grouped(utterances, most_frames))

    def batch(self, utterances: Sequence[StoredUtterance]) -> SequenceBatch:
        """A mini-batch of some of the utterances."""
        return SequenceBatch(utterances, *self.frames.whole(utterances))


def sequence_source(frames: FrameSource, lattices: LatticeStore, silence_pdfs: Sequence[int]) -> SequenceSource:
    """Leave out the utterances that cannot be trained on, and count them.

    Args:
        frames: Frames of utterances, with the references as targets.
        lattices: Denominator lattices of these utterances.
        silence_pdfs: The pdfs of silence and noise.

    Raises:
        LatticeError: A lattice has another number of frames than its utterance, a target or a pdf of silence is not
            one of the lattices' pdfs, or no utterance is left.
    """
    kept, without_lattice, without_reference = [], 0, 0
    for utterance in frames.utterances:
        if utterance.id not in lattices:
            without_lattice += 1
            continue
        if (length := lattices.frames_of(utterance.id)) != utterance.frames:
            raise LatticeError(
                f"{lattices.folder}: {utterance.id}: a lattice of {length} frames, expected {utterance.frames}; "
                "the lattices were made from other features, make them again"
            )
        highest = int(frames.targets[utterance.rows].max())
        if highest >= lattices.pdf_count:
            raise LatticeError(
                f"{utterance.id}: target {highest}, but the lattices in {lattices.folder} have pdfs 0 to "
                f"{lattices.pdf_count - 1}; make them with the network that is trained"
            )
        if highest < 0:
            without_reference += 1
        else:
            kept.append(utterance)
    if not kept:
        raise LatticeError(
            f"{lattices.folder}: of {len(frames.utterances)} utterances {without_lattice} have no lattice here, "
            f"{without_reference} no reference, and none is left to train on; make the lattices of this split"
        )
    if without_lattice or without_reference:
        logger.warning(
            "%s: %d of %d utterances left out: %d without a lattice, %d without a reference",
            lattices.folder,
            without_lattice + without_reference,
            len(frames.utterances),
            without_lattice,
            without_reference,
        )
    classes = pdf_classes(lattices.pdf_count, silence_pdfs)
    return SequenceSource(replace(frames, utterances=kept), lattices, classes, without_lattice, without_reference)


def _grouped(utterances: Sequence[StoredUtterance], most_frames: int) -> Iterator[list[StoredUtterance]]:
    group: list[StoredUtterance] = []
    size = 0
    for utterance in utterances:
        if group and size + utterance.frames > most_frames:
            yield group
            group, size = [], 0
        group.append(utterance)
        size += utterance.frames
    if group:
        yield group
