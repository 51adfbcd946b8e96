"""What the two test methods share: speakers as a few tensors each, in files of their own format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from lhuc_asr.adapt.method import check_lenders
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_format, save_tensors
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.nnet.acoustic_model import AcousticModel

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TensorSpeakers(ABC):
    """An ``AdaptedSpeakers`` whose parameters are named tensors; subclasses say what these change.

    Attributes:
        model: The network that is adapted.
        tensors: Tensors of each speaker, by name.
    """

    model: AcousticModel
    tensors: Mapping[str, Tensors]

    format: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def inputs(cls, model: AcousticModel, own: Tensors, features: torch.Tensor) -> torch.Tensor:
        """The network's inputs (T, w D) for an utterance (T, D) of the speaker with these tensors."""

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        names = [speakers] * len(utterances) if isinstance(speakers, str) else speakers
        scores = [np.zeros((0, self.model.pdf_count), np.float32)]
        for name, utterance in zip(names, utterances, strict=True):
            own = self._of(name)
            with torch.no_grad():
                inputs = self.inputs(self.model, own, torch.from_numpy(np.array(utterance)))
                scores.append(self.model.log_likelihoods(inputs).numpy())
        return np.concatenate(scores)

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Self:
        for name in speakers:
            self._of(name)
        check_lenders(over)
        others = [self._of(name) for name in over]
        mean = {name: torch.stack([own[name] for own in others]).mean(0) for name in self.names}
        return type(self)(self.model, dict.fromkeys(speakers, mean))

    def unadapted(self) -> Self:
        neutral = {name: torch.zeros_like(each) for name, each in next(iter(self.tensors.values())).items()}
        return type(self)(self.model, dict.fromkeys(self.tensors, neutral))

    def save(self, folder: Path) -> None:
        for name in self.tensors:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

    def save_speaker(self, speaker: str, path: Path, extras: Tensors) -> None:
        description = {"format": self.format, "speaker": speaker, "model": model_hash(self.model)}
        description |= {"extras": sorted(extras)}
        save_tensors(path, {**self._of(speaker), **extras}, description)

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> Self:
        loaded = {}
        for path in paths:
            tensors, description = load_format(path, "a speaker's file", cls.format)
            if not is_model(description["model"], model):
                raise ModelMismatchError(f"{path}: the speaker belongs to another network; adapt the speaker again")
            loaded[description["speaker"]] = {name: tensors[name] for name in cls.names}
        return cls(model, loaded)

    def _of(self, speaker: str) -> Tensors:
        if speaker not in self.tensors:
            raise SpeakerError(f"{speaker!r} was not adapted to; known: {', '.join(self.tensors) or 'none'}")
        return self.tensors[speaker]


def utterances_of(data: SpeakerData) -> list[torch.Tensor]:
    """The features of a speaker's utterances, shapes (T, D)."""
    return list(torch.from_numpy(data.features).split(data.lengths))


def spliced(model: AcousticModel, features: torch.Tensor) -> torch.Tensor:
    """The network's inputs for an utterance, shape (T, w D); an empty utterance gives none."""
    if not len(features):
        return features.new_zeros(0, model.splicing.window)
    return model.splicing.utterance(features)
