"""Statistics of triphone states, from which trees are built: frames, sums and sums of squares of their features.

They are plain sums: those of two parts of a corpus add up to those of the whole. Memory grows with the number of
triphones, not with the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.numerics import LOG_2PI, TREE_VARIANCE_FLOOR
from lhuc_asr.hmm.aligned_phones import AlignedPhones, distinct_rows
from lhuc_asr.hmm.tree import LEFT, PHONE, RIGHT


@dataclass(frozen=True)
class TreeStatistics:
    """Sums over the frames of each state of each triphone.

    Attributes:
        contexts: Ids of left phone, phone and right phone, 0 beyond the edge, and the state's position, each row once,
            ascending, shape (S, 4), int32.
        sums: Frames, sum of the features and sum of their squares, shape (S, 1 + 2 D), float64.
    """

    contexts: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, features: torch.Tensor, aligned: Sequence[AlignedPhones]) -> TreeStatistics:
        """Statistics of some utterances.

        Args:
            features: Their features, concatenated along frames, shape (T, D).
            aligned: The phones of each utterance.

        Raises:
            AlignmentError: Features and alignments have different numbers of frames.
        """
        table = np.concatenate([each.table for each in aligned])
        if len(table) != len(features):
            raise AlignmentError(f"{len(table)} aligned frames for {len(features)} frames of features; align again")
        values = features.double().numpy()
        contexts, which = distinct_rows(table)
        return cls(contexts, sums_by(which, np.concatenate([np.ones((len(values), 1)), values, values**2], axis=1)))

    @classmethod
    def total(cls, parts: Iterable[TreeStatistics]) -> TreeStatistics:
        """The sum of many parts, at least one, read one at a time.

        Parts of similar size are added first, as carries are in binary counting, so that a row is copied a few times
        and not once a part.
        """
        pending: list[TreeStatistics] = []
        for part in parts:
            pending.append(part)
            while len(pending) > 1 and len(pending[-2].contexts) <= 2 * len(pending[-1].contexts):
                pending[-2:] = [pending[-2] + pending[-1]]
        if not pending:
            raise AlignmentError(
                "no utterance is aligned, so that a tree has no statistics; check transcripts and audio"
            )
        while len(pending) > 1:
            pending[-2:] = [pending[-2] + pending[-1]]
        return pending[0]

    def __add__(self, other: TreeStatistics) -> TreeStatistics:
        contexts, which = distinct_rows(np.concatenate([self.contexts, other.contexts]))
        return TreeStatistics(contexts, sums_by(which, np.concatenate([self.sums, other.sums])))

    def without_contexts(self, phones: Sequence[int]) -> TreeStatistics:
        """The statistics with those of some phones pooled over their contexts, which become 0."""
        contexts = self.contexts.copy()
        rows = np.isin(contexts[:, PHONE], phones)
        contexts[rows, LEFT] = contexts[rows, RIGHT] = 0
        contexts, which = distinct_rows(contexts)
        return TreeStatistics(contexts, sums_by(which, self.sums))


def sums_by(which: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the rows of each group.

    Args:
        which: Group of each row, 0 to G - 1, each with at least one row, shape (N,).
        values: Shape (N, W).

    Returns:
        Shape (G, W).
    """
    order = np.argsort(which, kind="stable")
    first = np.flatnonzero(np.diff(which[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[order], first, axis=0))


def log_likelihoods(sums: np.ndarray) -> np.ndarray:
    """Log-likelihood of frames under the diagonal Gaussian that is estimated from them.

    With maximum likelihood estimates this is -n/2 sum_d (1 + log 2 pi v_d) (Young, Odell and Woodland 1994, eq. 1);
    where a variance v is below its floor f, the 1 is v/f.

    Args:
        sums: Frames, sums and sums of squares, as in ``TreeStatistics``, shape (..., 1 + 2 D).

    Returns:
        Shape (...); 0 for sums of zero frames.
    """
    frames = sums[..., :1]
    first, second = np.split(sums[..., 1:] / np.where(frames > 0, frames, 1.0), 2, axis=-1)
    variance = second - first**2
    floored = np.maximum(variance, TREE_VARIANCE_FLOOR)
    return np.asarray(-0.5 * frames[..., 0] * (LOG_2PI + np.log(floored) + variance / floored).sum(-1))
