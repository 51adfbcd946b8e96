"""Frames with context and targets, in order or in mini-batches that ``loader.py`` shuffles.

Utterances are read from the memory map in blocks: one block is in memory at a time, however large the corpus is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lhuc_asr.features.context import Context, Splicing, utterance_bounds
from lhuc_asr.features.store import StoredUtterance, blocks_of
from lhuc_asr.nnet.loader import Block, ShuffledFrames

# Number of frames in a block. 50 minutes of speech are well mixed, and 300,000 x 40 features x 4 bytes = 48 MB are
# little beside the memory of torch itself.
BLOCK_FRAMES = 300_000


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

    def shuffled(self, batch_size: int, generator: torch.Generator, *, whole: bool = True) -> ShuffledFrames:
        """The mini-batches of one epoch.

        Args:
            batch_size: Number of frames in a mini-batch, B; the last of a block may have fewer.
            generator: Generator of the order.
            whole: Whether the epoch will be taken to its end, so that it pays to read ahead.
        """
        return ShuffledFrames(self.blocks(generator), self.load, batch_size, generator)

    def blocks(self, generator: torch.Generator) -> list[list[StoredUtterance]]:
        """The utterances in blocks, in random order."""
        order = torch.randperm(len(self.utterances), generator=generator).tolist()
        return list(blocks_of((self.utterances[i] for i in order), BLOCK_FRAMES))

    def in_order(self, batch_size: int, of: tuple[int, int] = (0, 1)) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The frames that have targets, in order: spliced features (B, w D + R) and targets (B,).

        Args:
            batch_size: Number of frames in a batch, B; the last of a block may have fewer.
            of: A number and a count: of each so many batches only that one.
        """
        number, (own, count) = 0, of
        for utterances in blocks_of(self.utterances, BLOCK_FRAMES):
            block = self.load(utterances)
            for batch in block.with_targets.split(batch_size):
                number += 1
                if (number - 1) % count == own:
                    features, targets, _ = block.of(batch)
                    yield features, targets

    def whole(self, utterances: Sequence[StoredUtterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """All frames of some utterances, one utterance after the other, those without targets too.

        Args:
            utterances: Utterances of the source.

        Returns:
            Spliced features (B, w D + R), and targets (B,), negative where there is none.
        """
        features, targets, _ = self.load(utterances).of()
        return features, targets

    def load(self, utterances: Sequence[StoredUtterance]) -> Block:
        """Read a block."""
        features, targets = [self.features[u.rows] for u in utterances], [self.targets[u.rows] for u in utterances]
        return self.block(utterances, features, targets)

    def block(
        self, utterances: Sequence[StoredUtterance], features: Sequence[np.ndarray], targets: Sequence[np.ndarray]
    ) -> Block:
        """A block of utterances, with the vectors of their speakers.

        Args:
            utterances: The utterances.
            features: Features of each, shape (T, D).
            targets: Pdf of each of its frames, shape (T,).
        """
        rows = np.concatenate(features)
        if self.vectors is not None:
            vectors = np.stack([self.vectors[u.id] for u in utterances])
            rows = np.concatenate([rows, vectors.repeat([u.frames for u in utterances], axis=0)], axis=1)
        return Block(
            splicing=self.splicing,
            features=torch.from_numpy(rows),
            targets=torch.from_numpy(np.concatenate(targets)).long(),
            bounds=utterance_bounds([u.frames for u in utterances]),
            rows=torch.cat([torch.arange(u.rows.start, u.rows.stop) for u in utterances]),
        )


def priors(targets: np.ndarray, pdf_count: int, pseudo_frames: float) -> torch.Tensor:
    """Log prior of each pdf from an alignment, shape (K,), float32.

    Args:
        targets: Pdf of each frame, shape (N,); negative for frames that are left out.
        pdf_count: Number of pdfs, K.
        pseudo_frames: Number added to each pdf's count, so that an unseen pdf has a finite log prior.
    """
    counts = np.bincount(targets[targets >= 0], minlength=pdf_count) + pseudo_frames
    return torch.from_numpy(np.log(counts / counts.sum())).float()
