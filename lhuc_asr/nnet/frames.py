"""Frames with context and targets, in shuffled mini-batches.

Utterances are read from the memory map in blocks, in random order, and the frames of a block are shuffled. One block is
in memory at a time, however large the corpus is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lhuc_asr.features.context import Context, Splicing, utterance_bounds
from lhuc_asr.features.store import StoredUtterance, blocks_of

# Number of frames in a block. 50 minutes of speech are well mixed, and 300,000 x 40 features x 4 bytes = 48 MB are
# little beside the memory of torch itself.
BLOCK_FRAMES = 300_000


@dataclass(frozen=True)
class MiniBatch:
    """Frames that a step is taken with; they are spliced when they are needed.

    Attributes:
        frames: Numbers of the frames in their block, shape (B,).
    """

    frames: torch.Tensor
    _splicing: Splicing
    _features: torch.Tensor
    _targets: torch.Tensor
    _bounds: tuple[torch.Tensor, torch.Tensor]
    _rows: torch.Tensor

    def __len__(self) -> int:
        """Number of frames, B."""
        return len(self.frames)

    def of(self, frames: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Some of the frames, or all.

        Args:
            frames: Numbers of the frames, shape (N,); None for all.

        Returns:
            Spliced features (N, w D + R), targets (N,), and rows of the frames in the array of features (N,).
        """
        chosen = self.frames if frames is None else frames
        first, last = self._bounds
        spliced = self._splicing.of(self._features, chosen, first[chosen], last[chosen])
        return spliced, self._targets[chosen], self._rows[chosen]


@dataclass(frozen=True)
class FrameSource:
    """Frames of some utterances of a store.

    Attributes:
        features: All frames of the store, shape (N, D), float32 (a memory map).
        targets: Pdf of each frame, shape (N,), int32; negative for frames that are left out.
        utterances: The utterances.
        context: The neighbours that are spliced to each frame; they and the frame are w frames.
        vectors: Vector of the speaker of each utterance, by the utterance's id, shapes (R,), float32; None for none.
    """

    features: np.ndarray
    targets: np.ndarray
    utterances: Sequence[StoredUtterance]
    context: Context
    vectors: Mapping[str, np.ndarray] | None = None

    @property
    def splicing(self) -> Splicing:
        """How the frames are spliced."""
        vector = 0 if self.vectors is None else len(self.vectors[self.utterances[0].id])
        return Splicing(self.context, self.features.shape[1], vector)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """The mini-batches of one epoch.

        Args:
            batch_size: Number of frames in a mini-batch, B; the last of a block may have fewer.
            generator: Generator of the order.
        """
        splicing = self.splicing
        order = torch.randperm(len(self.utterances), generator=generator).tolist()
        for block in blocks_of((self.utterances[i] for i in order), BLOCK_FRAMES):
            features, targets, first, last = self._load(block)
            rows = torch.cat([torch.arange(u.rows.start, u.rows.stop) for u in block])
            frames = torch.nonzero(targets >= 0).squeeze(1)
            frames = frames[torch.randperm(len(frames), generator=generator)]
            for batch in frames.split(batch_size):
                yield MiniBatch(batch, splicing, features, targets, (first, last), rows)

    def in_order(self, batch_size: int, of: tuple[int, int] = (0, 1)) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The frames that have targets, in order: spliced features (B, w D + R) and targets (B,).

        Args:
            batch_size: Number of frames in a batch, B; the last of a block may have fewer.
            of: A number and a count: of each so many batches only that one.
        """
        splicing, number, (own, count) = self.splicing, 0, of
        for block in blocks_of(self.utterances, BLOCK_FRAMES):
            features, targets, first, last = self._load(block)
            for batch in torch.nonzero(targets >= 0).squeeze(1).split(batch_size):
                number += 1
                if (number - 1) % count == own:
                    yield splicing.of(features, batch, first[batch], last[batch]), targets[batch]

    def whole(self, utterances: Sequence[StoredUtterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """All frames of some utterances, one utterance after the other, those without targets too.

        Args:
            utterances: Utterances of the source.

        Returns:
            Spliced features (B, w D + R), and targets (B,), negative where there is none.
        """
        features, targets, first, last = self._load(utterances)
        return self.splicing.of(features, torch.arange(len(targets)), first, last), targets

    def _load(self, block: Sequence[StoredUtterance]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features (N, D + R) and targets (N,) of a block, and first and last row of each frame's utterance (N,)."""
        rows = np.concatenate([self.features[u.rows] for u in block])
        if self.vectors is not None:
            vectors = np.stack([self.vectors[u.id] for u in block])
            rows = np.concatenate([rows, vectors.repeat([u.frames for u in block], axis=0)], axis=1)
        features = torch.from_numpy(rows)
        targets = torch.from_numpy(np.concatenate([self.targets[u.rows] for u in block])).long()
        return features, targets, *utterance_bounds([u.frames for u in block])


def priors(targets: np.ndarray, pdf_count: int, pseudo_frames: float) -> torch.Tensor:
    """Log prior of each pdf from an alignment, shape (K,), float32.

    Args:
        targets: Pdf of each frame, shape (N,); negative for frames that are left out.
        pdf_count: Number of pdfs, K.
        pseudo_frames: Number added to each pdf's count, so that an unseen pdf has a finite log prior.
    """
    counts = np.bincount(targets[targets >= 0], minlength=pdf_count) + pseudo_frames
    return torch.from_numpy(np.log(counts / counts.sum())).float()
