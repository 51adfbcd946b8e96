"""What the Gaussians model: the features of a block of utterances, by whatever transforms they go through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.hmm.feature_space import FeatureSpace
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms


class GaussianFeatures(Protocol):
    """The features of some utterances, in the space of a model's Gaussians."""

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        ...

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

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return self.store.dimension

    def of(self, block: Sequence[StoredUtterance]) -> torch.Tensor:
        """Rows of the store, shape (N, D), float32."""
        return torch.from_numpy(np.concatenate([self.store.array[utterance.rows] for utterance in block]))


@dataclass(frozen=True)
class FeaturesInSpace:
    """The features of a store in another space.

    Attributes:
        store: The store.
        space: The space.
    """

    store: FeatureTable
    space: FeatureSpace

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return self.space.dimension

    def of(self, block: Sequence[StoredUtterance]) -> torch.Tensor:
        """Features of a block's utterances, shape (N, D), float32."""
        return self.space.apply(StoredFeatures(self.store).of(block), [utterance.frames for utterance in block])


@dataclass(frozen=True)
class AdaptedFeatures:
    """Features to which each speaker's transform is applied.

    Attributes:
        unadapted: The features before.
        transforms: Transforms of all speakers.
    """

    unadapted: GaussianFeatures
    transforms: SpeakerTransforms

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return self.unadapted.dimension

    def of(self, block: Sequence[StoredUtterance]) -> torch.Tensor:
        """Features of a block's utterances, shape (N, D), float32."""
        lengths, speakers = [u.frames for u in block], [u.speaker for u in block]
        return self.transforms.apply(self.unadapted.of(block), lengths, speakers)
