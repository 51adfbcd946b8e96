"""Frames with their context and targets, shuffled, in mini-batches.

Utterances are read from the memory map in blocks, in random order; the frames of a block are shuffled. Memory
holds one block, whatever the corpus' size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lhuc_asr.features.context import splice_index
from lhuc_asr.features.store import StoredUtterance, blocks_of

# 300,000 frames x 40 features x 4 bytes = 48 MB: 50 minutes of speech, well mixed, small beside torch itself.
BLOCK_FRAMES = 300_000


@dataclass(frozen=True)
class FrameSource:
    """Frames of some utterances of a store.

    Attributes:
        features: All frames of the store, shape (N, D), float32 (a memory map).
        targets: Pdf of each frame, shape (N,), int32; negative: the frame is left out.
        utterances: Which utterances.
        context: Frames to either side.
    """

    features: np.ndarray
    targets: np.ndarray
    utterances: Sequence[StoredUtterance]
    context: int

    def shuffled(
        self, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """One epoch: spliced features (B, (2c+1) D), targets (B,), and the frames' rows in ``features`` (B,).

        B is ``batch_size`` but for blocks' ends.
        """
        order = torch.randperm(len(self.utterances), generator=generator).tolist()
        for block in blocks_of((self.utterances[i] for i in order), BLOCK_FRAMES):
            features, targets, first, last = self._load(block)
            rows = torch.cat([torch.arange(u.rows.start, u.rows.stop) for u in block])
            frames = torch.nonzero(targets >= 0).squeeze(1)
            frames = frames[torch.randperm(len(frames), generator=generator)]
            for batch in frames.split(batch_size):
                index = splice_index(batch, first[batch], last[batch], self.context)
                yield features[index].flatten(1), targets[batch], rows[batch]

    def in_order(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The frames that have targets, in order, with their targets."""
        for block in blocks_of(self.utterances, BLOCK_FRAMES):
            features, targets, first, last = self._load(block)
            for batch in torch.nonzero(targets >= 0).squeeze(1).split(batch_size):
                index = splice_index(batch, first[batch], last[batch], self.context)
                yield features[index].flatten(1), targets[batch]

    def _load(self, block: Sequence[StoredUtterance]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """A block's features (N, D), targets (N,), and each frame's utterance's first and last row (N,)."""
        features = torch.from_numpy(np.concatenate([self.features[u.rows] for u in block]))
        targets = torch.from_numpy(np.concatenate([self.targets[u.rows] for u in block])).long()
        frames = torch.tensor([u.frames for u in block])
        end = torch.cumsum(frames, 0)
        last = torch.repeat_interleave(end - 1, frames)
        first = torch.repeat_interleave(end - frames, frames)
        return features, targets, first, last


def priors(targets: np.ndarray, pdf_count: int, pseudo_frames: float) -> torch.Tensor:
    """Log prior of each pdf from an alignment, shape (K,), float32.

    Args:
        targets: Pdf of each frame; negative ones are left out.
        pdf_count: K.
        pseudo_frames: Added to each pdf's count, so that one never seen has a finite prior.
    """
    counts = np.bincount(targets[targets >= 0], minlength=pdf_count) + pseudo_frames
    return torch.from_numpy(np.log(counts / counts.sum())).float()
