"""Speakers whose features go through an affine transform before the model, however it was estimated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from lhuc_asr.adapt.gaussian_model import SpeakerAdaptiveGaussians
from lhuc_asr.adapt.method import check_lenders, speaker_of_each
from lhuc_asr.hmm.speaker_transforms import FORMAT, SpeakerTransforms
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.scoring import score_utterance


@dataclass(frozen=True)
class TransformedSpeakers:
    """The transforms of some speakers, and the model that scores the transformed features; an ``AdaptedSpeakers``.

    Of Gaussian mixtures with a twin for unadapted features, those that were trained on transformed ones score them.

    Attributes:
        model: The model.
        transforms: The speakers' transforms.
    """

    model: AcousticModel
    transforms: SpeakerTransforms

    format: ClassVar[str] = FORMAT

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return self.transforms.names

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances, each transformed for its speaker; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        names = speaker_of_each(speakers, utterances)
        model = self.model.adapted if isinstance(self.model, SpeakerAdaptiveGaussians) else self.model
        scores = [np.zeros((0, model.pdf_count), np.float32)]
        for name, features in zip(names, utterances, strict=True):
            scores.append(score_utterance(model, self.transformed(name, features)))
        return np.concatenate(scores)

    def transformed(self, speaker: str, features: np.ndarray) -> np.ndarray:
        """A speaker's features (T, D) after the transform, shape (T, D), float32.

        Raises:
            SpeakerError: The speaker is unknown.
        """
        return self.transforms.apply(torch.from_numpy(np.array(features)), [len(features)], [speaker]).numpy()

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> TransformedSpeakers:
        """The mean transform of the speakers in ``over``, for those in ``speakers``; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        for name in speakers:
            self.transforms.of(name)
        check_lenders(over)
        mean = torch.stack([self.transforms.of(name) for name in over]).mean(0)
        return replace(self, transforms=SpeakerTransforms(tuple(speakers), mean.repeat(len(speakers), 1, 1)))

    def unadapted(self) -> TransformedSpeakers:
        """The speakers with features as they are; see ``AdaptedSpeakers``."""
        matrices = self.transforms.matrices
        identity = torch.eye(*matrices.shape[1:], dtype=matrices.dtype).expand_as(matrices).clone()
        return replace(self, transforms=SpeakerTransforms(self.speakers, identity))

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        for name in self.speakers:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

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
