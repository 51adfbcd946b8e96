"""The pdf of every frame, in a memory-mapped array beside the features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.features.store import FeatureTable

# Stands for the pdf of a frame whose utterance could not be aligned; training leaves such frames out.
UNALIGNED = -1


class Alignment:
    """The pdf of every frame of a feature store, ``UNALIGNED`` in utterances that could not be aligned.

    Args:
        path: File of the pdfs.
        store: Features of the frames.
        pdf_count: Number of pdfs, K.

    Raises:
        AlignmentError: The file cannot be read, does not have one number for each frame of the store, or a number is
            not one of the K pdfs.
    """

    def __init__(self, path: Path, store: FeatureTable, pdf_count: int) -> None:
        self.path = path
        self.store = store
        try:
            size = check_plain_file(path)
        except OSError as error:
            raise AlignmentError(f"{path}: cannot be read ({error.strerror}); run the alignment stage again") from error
        if size != 4 * store.frames:
            raise AlignmentError(
                f"{path}: {size} bytes for {store.frames} frames; it belongs to other features, delete it and run again"
            )
        if size and not UNALIGNED <= int(self.array.min()) <= int(self.array.max()) < pdf_count:
            raise AlignmentError(
                f"{path}: pdfs {self.array.min()} to {self.array.max()}, expected {UNALIGNED} to {pdf_count - 1}; it "
                "belongs to another topology, delete it and run again"
            )

    @cached_property
    def array(self) -> np.ndarray:
        """All pdfs, shape (N,), int32, read-only."""
        return np.memmap(self.path, np.int32, "r", shape=(self.store.frames,))

    def __getitem__(self, utterance_id: str) -> np.ndarray:
        """The pdfs of one utterance, shape (T,)."""
        return np.asarray(self.array[self.store.by_id[utterance_id].rows])

    @property
    def aligned_share(self) -> float:
        """Share of the frames that have a pdf, 0 to 1."""
        return float(np.mean(self.array != UNALIGNED)) if self.store.frames else 0.0


def write_alignment(path: Path, store: FeatureTable, pdfs: Mapping[str, np.ndarray]) -> Alignment:
    """Write an alignment, whole or not at all.

    Args:
        path: File to write.
        store: Features of the aligned frames.
        pdfs: Pdfs of each utterance, by its id, shape (T,); utterances that are left out are unaligned.

    Raises:
        AlignmentError: An utterance has another number of frames in the store, or is not in it.
    """
    foreign = sorted(pdfs.keys() - store.by_id.keys())
    if foreign:
        raise AlignmentError(
            f"{len(foreign)} aligned utterances are not in {store.title}: {', '.join(foreign[:5])}; "
            "the alignment was made from other features, run both stages again"
        )
    array = np.full(store.frames, UNALIGNED, np.int32)
    for utterance in store.utterances:
        aligned = pdfs.get(utterance.id)
        if aligned is None:
            continue
        if len(aligned) != utterance.frames:
            raise AlignmentError(
                f"{utterance.id}: {len(aligned)} pdfs for {utterance.frames} frames; "
                "the alignment was made from other features, run both stages again"
            )
        array[utterance.rows] = aligned
    with atomic_path(path) as temporary:
        array.tofile(temporary)
    return Alignment(path, store, 1 + int(array.max(initial=UNALIGNED)))
