"""i-vectors as an adaptation method: a network takes a vector of the speaker's voice beside the features.

The network was trained with the vectors of its training speakers, and its file has the extractor (``hmm/ivector``) that
made them (Saon, Soltau, Nahamoo and Picheny 2013, "Speaker adaptation of neural network acoustic models using
i-vectors").
Nothing of the network changes for a speaker. The words of the first pass do not matter, only its silence does, whose
frames count little. With few frames a vector is near 0, the vector of nobody, which the first pass has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch

from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ModelMismatchError, SiteError, SpeakerError
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors
from lhuc_asr.hmm.ivector import IvectorExtractor, VoiceStatistics
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.lhuc.speaker import described_speaker
from lhuc_asr.nnet.acoustic_model import AcousticModel

REMEDY = "adapt the speaker again"
# What to do about a network's own tensors.
NETWORK_REMEDY = "copy the model again, or train the network again"


@dataclass(frozen=True)
class VectorSpeakers(ChangedFeatures):
    """The vectors of some speakers, and the network that takes them.

    Attributes:
        vectors: Vector of each speaker, shape (R,), float32.
    """

    vectors: Mapping[str, torch.Tensor]

    format: ClassVar[str] = "lhuc_asr i-vector speaker 1"
    below: ClassVar[str] = "vector"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return tuple(self.vectors)

    def of(self, speaker: str) -> torch.Tensor:
        """The vector of a speaker, shape (R,); see ``ChangedFeatures``."""
        if speaker not in self.vectors:
            raise SpeakerError(
                f"speaker {speaker!r} has no i-vector, {len(self.vectors)} others have; adapt to the speaker first"
            )
        return self.vectors[speaker]

    @classmethod
    def checked(cls, path: Path, model: AcousticModel, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A vector as read from a file; see ``ChangedFeatures``."""
        check_tensors(path, {name: tensor}, {name: (model.vector_dimension,)}, REMEDY)
        return tensor.float()

    @classmethod
    def having(cls, model: AcousticModel, own: Mapping[str, torch.Tensor]) -> Self:
        """Speakers with the vectors; see ``ChangedFeatures``."""
        return cls(model, dict(own))

    def transformed(self, speaker: str, features: np.ndarray) -> np.ndarray:
        """A speaker's features (T, D), each with the vector behind it, shape (T, D + R); see ``ChangedFeatures``."""
        vector = self.of(speaker).numpy()
        return np.concatenate([features, np.broadcast_to(vector, (len(features), len(vector)))], axis=1)

    def unadapted(self) -> Self:
        """The speakers with the vector of nobody; see ``AdaptedSpeakers``."""
        nobody = torch.zeros(self.model.vector_dimension)
        return type(self)(self.model, dict.fromkeys(self.speakers, nobody))

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        description = {"format": self.format, "speaker": speaker, "model": model_hash(self.model)}
        save_tensors(path, {"vector": self.of(speaker), **extras}, {**description, "extras": sorted(extras)})

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> VectorSpeakers:
        """Read speakers' files; see ``AdaptedSpeakers``.

        Raises:
            CheckpointError: A file is missing or damaged.
            ModelMismatchError: A speaker belongs to another network.
        """
        vectors = {}
        for path in paths:
            tensors, description = load_format(path, "a file of a speaker's i-vector", cls.format)
            name, written_for, extras = described_speaker(path, tensors, description)
            if not is_model(written_for, model):
                raise ModelMismatchError(f"{path}: the speaker belongs to another network; {REMEDY}")
            own = {part: values for part, values in tensors.items() if part not in extras}
            check_tensors(path, own, {"vector": (model.vector_dimension,)}, REMEDY)
            vectors[name] = own["vector"].float()
        return cls(model, vectors)


class IvectorConfig(MethodConfig):
    """No options: how frames count is part of the network's i-vector extractor.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = VectorSpeakers
    transforms_features: ClassVar[bool] = True
    needs_vectors: ClassVar[bool] = True

    kind: Literal["ivector"] = "ivector"

    def make(self, folder: Path | None) -> Ivector:
        """The method."""
        return Ivector(self)


class Ivector:
    """i-vectors as an adaptation method.

    Args:
        config: No options.
    """

    def __init__(self, config: IvectorConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> VectorSpeakers:
        """Estimate the vector of each speaker; nothing is random.

        A speaker whose frames all have weight 0, or whose features are not finite or too large to compute with, gets
        the vector of nobody; warnings name them.

        Args:
            model: The network, which takes vectors.
            speakers: Each speaker's data.
            seed: Without effect.

        Raises:
            SiteError: The network does not take vectors.
            AlignmentError: A speaker's targets or features do not fit the network.
            CheckpointError: The network's tensors are not an i-vector extractor for its features and its vectors.
        """
        extractor, vectors = extractor_of(model), {}
        silent: list[str] = []
        failed: list[str] = []
        for name, data in speakers.items():
            data.check_fits(name, model)
            if data.features.shape[1] != model.feature_dimension:
                raise AlignmentError(f"speaker {name!r}: the features have a vector already; estimate one a speaker")
            vectors[name] = torch.zeros(model.vector_dimension)
            if not data.targets.weight.any():
                silent.append(name)
            elif (vector := _vector(extractor, data)) is None:
                failed.append(name)
            else:
                vectors[name] = vector
        warn_unadapted("all their frames have weight 0", silent, len(speakers))
        warn_unadapted("their features are not finite or too large (check their recordings)", failed, len(speakers))
        return VectorSpeakers(model, vectors)


def extractor_of(model: AcousticModel) -> IvectorExtractor:
    """The i-vector extractor of a network.

    Raises:
        SiteError: The network does not take vectors of speakers.
        CheckpointError: Its tensors are not an i-vector extractor for its features and its vectors.
    """
    if model.vectors is None:
        raise SiteError(
            "the network does not take a vector of the speaker; give the recipe one that does: networks: {NAME: "
            "{ivector: {}}}, or choose another method"
        )
    source = f"{model.vectors.source}: the network's i-vector extractor"
    extractor = IvectorExtractor.of_tensors(model.vectors.by_name(), source, model.feature_dimension, NETWORK_REMEDY)
    if extractor.dimension != model.vector_dimension:
        raise CheckpointError(
            f"{source}: vectors of {extractor.dimension} values, but the network takes {model.vector_dimension}; "
            f"{NETWORK_REMEDY}"
        )
    return extractor


def _vector(extractor: IvectorExtractor, data: SpeakerData) -> torch.Tensor | None:
    """The vector of a speaker, shape (R,); None where it cannot be computed."""
    if not np.isfinite(data.features).all():
        return None
    features, weights = (torch.from_numpy(np.array(each)) for each in (data.features, data.targets.weight))
    vector = extractor.vectors(VoiceStatistics.of(extractor.background, features, weights))[0]
    return vector if bool(vector.isfinite().all()) else None
