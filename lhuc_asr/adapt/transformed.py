"""Speakers whose features change before the model: they go through an affine transform, or a vector joins them.

Other methods go on top of these (``stacked.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from lhuc_asr.adapt.gaussian_model import SpeakerAdaptiveGaussians
from lhuc_asr.adapt.method import check_lenders, speaker_of_each
from lhuc_asr.hmm.speaker_transforms import FORMAT, SpeakerTransforms, checked_transform
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.scoring import score_utterance


@dataclass(frozen=True)
class ChangedFeatures(ABC):
    """Speakers whose features change, and the model that scores these; an ``AdaptedSpeakers``.

    Of Gaussian mixtures with a twin for unadapted features, those that were trained on transformed ones score them.

    Attributes:
        model: The model.
        below: Name of what a speaker has, in a speaker's file of a method on top: "transform", "vector".
    """

    model: AcousticModel

    below: ClassVar[str]

    @property
    @abstractmethod
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""

    @abstractmethod
    def of(self, speaker: str) -> torch.Tensor:
        """What the speaker has: the transform, the vector.

        Raises:
            SpeakerError: The speaker is unknown.
        """

    @classmethod
    @abstractmethod
    def checked(cls, path: Path, model: AcousticModel, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What a speaker has, as read from a file under a name; ``of`` gave it.

        Raises:
            CheckpointError: It is damaged, or does not fit the model.
        """

    @classmethod
    @abstractmethod
    def having(cls, model: AcousticModel, own: Mapping[str, torch.Tensor]) -> Self:
        """Speakers by their names, with what each has; at least one."""

    @abstractmethod
    def transformed(self, speaker: str, features: np.ndarray) -> np.ndarray:
        """A speaker's features (T, D), or (T, D + R) with a vector behind them, as the model takes them, float32.

        Raises:
            SpeakerError: The speaker is unknown.
        """

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances, each changed for its speaker; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        names = speaker_of_each(speakers, utterances)
        model = self.model.adapted if isinstance(self.model, SpeakerAdaptiveGaussians) else self.model
        scores = [np.zeros((0, model.pdf_count), np.float32)]
        for name, features in zip(names, utterances, strict=True):
            scores.append(score_utterance(model, self.transformed(name, features)))
        return np.concatenate(scores)

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Self:
        """The mean of what the speakers in ``over`` have, for those in ``speakers``; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        for name in speakers:
            self.of(name)
        check_lenders(over)
        mean = torch.stack([self.of(name) for name in over]).mean(0)
        return self.having(self.model, dict.fromkeys(speakers, mean))

    @abstractmethod
    def unadapted(self) -> Self:
        """The speakers with features as they are; see ``AdaptedSpeakers``."""

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        for name in self.speakers:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

    @abstractmethod
    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""


@dataclass(frozen=True)
class TransformedSpeakers(ChangedFeatures):
    """The affine transforms of some speakers, and the model that scores the transformed features.

    Attributes:
        transforms: The speakers' transforms.
    """

    transforms: SpeakerTransforms

    format: ClassVar[str] = FORMAT
    below: ClassVar[str] = "transform"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return self.transforms.names

    def of(self, speaker: str) -> torch.Tensor:
        """W of a speaker, shape (D, D + 1); see ``ChangedFeatures``."""
        return self.transforms.of(speaker)

    @classmethod
    def checked(cls, path: Path, model: AcousticModel, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """W as read from a file; see ``ChangedFeatures``."""
        return checked_transform(path, {name: tensor}, name, model.feature_dimension)

    @classmethod
    def having(cls, model: AcousticModel, own: Mapping[str, torch.Tensor]) -> Self:
        """Speakers with the transforms; see ``ChangedFeatures``."""
        return cls(model, SpeakerTransforms(tuple(own), torch.stack(list(own.values()))))

    def transformed(self, speaker: str, features: np.ndarray) -> np.ndarray:
        """A speaker's features (T, D) after the transform; a vector behind them stays. See ``ChangedFeatures``."""
        dimension = len(self.of(speaker))
        rows = torch.from_numpy(np.array(features))
        moved = self.transforms.apply(rows[:, :dimension], [len(rows)], [speaker])
        return torch.cat([moved, rows[:, dimension:]], dim=1).numpy()

    def unadapted(self) -> Self:
        """The speakers with features as they are; see ``AdaptedSpeakers``."""
        matrices = self.transforms.matrices
        identity = torch.eye(*matrices.shape[1:], dtype=matrices.dtype).expand_as(matrices).clone()
        return replace(self, transforms=SpeakerTransforms(self.speakers, identity))

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        self.transforms.save(path, speaker, model_hash(self.model), extras)

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> TransformedSpeakers:
        """Read speakers' files; see ``AdaptedSpeakers``.

        Raises:
            CheckpointError: A file is missing or damaged.
            ModelMismatchError: A speaker belongs to another model.
        """
        belongs = partial(is_model, model=model)
        parts = [SpeakerTransforms.load(path, model.feature_dimension, belongs) for path in paths]
        names = tuple(name for part in parts for name in part.names)
        return cls(model, SpeakerTransforms(names, torch.cat([part.matrices for part in parts])))
