"""What the Gaussians model: the features of a block of utterances, by whatever transforms they go through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from lhuc_asr.features.store import FeatureTable, StoredUtterance


class GaussianFeatures(Protocol):
    """The features of some utterances, in the space of a model's Gaussians."""

    def of(self, block: Sequence[StoredUtterance]) -> torch.Tensor:
        """Features of a block's utterances, concatenated along frames, shape (N, D), float32."""
        ...


@dataclass(frozen=True)
class StoredFeatures:
    """The features of a store as they are.

    Attributes:
        store: The store.
    """

    store: FeatureTable

    def of(self, block: Sequence[StoredUtterance]) -> torch.Tensor:
        """Rows of the store, shape (N, D), float32."""
        return torch.from_numpy(np.concatenate([self.store.array[utterance.rows] for utterance in block]))
