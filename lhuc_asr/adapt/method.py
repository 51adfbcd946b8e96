"""The protocol of adaptation methods: what the two-pass loop asks of one, and nothing else.

A method estimates something about speakers from their data; what, is its own affair: it may transform features, add
inputs, scale hidden units, or move weights. The network that it is given never changes. Methods and what they estimate
are found by the tables in ``methods``.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.config import StrictModel
from lhuc_asr.nnet.acoustic_model import AcousticModel

logger = logging.getLogger(__name__)


class AdaptedSpeakers(Protocol):
    """What a method has estimated about some speakers, and the network adapted to them.

    Attributes:
        format: Format of the speakers' files, named in their headers: how ``load_speakers`` finds the class.
    """

    format: ClassVar[str]

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        ...

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) up to a constant a frame, by the network adapted to each utterance's speaker.

        Depends on the arguments alone: threads may call it at the same time.

        Args:
            speakers: One speaker of all utterances, or one for each.
            utterances: Features of each utterance, shapes (T_i, D).

        Returns:
            Shape (T, K), float32: the utterances' frames one after the other.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        ...

    def pooled(self, without: Collection[str]) -> AdaptedSpeakers:
        """The control: the mean of the other speakers' parameters, nothing of the speakers' own.

        A method whose parameters have no mean makes one estimate from the others' data instead.

        Args:
            without: Speakers that are left out; the result has these, all with the same parameters.

        Raises:
            SpeakerError: A speaker is unknown, or no other is left.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write one file a speaker, ``<speaker>.safetensors``."""
        ...

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file.

        Args:
            speaker: The speaker's name.
            path: The file.
            extras: Tensors that travel in the file under their names, such as statistics of the speaker's features.
        """
        ...

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> AdaptedSpeakers:
        """Read speakers' files.

        Args:
            model: The network that the speakers belong to.
            paths: Files of this class's format; at least one.

        Raises:
            CheckpointError: A file is missing or damaged.
            ModelMismatchError: A speaker belongs to another network.
        """
        ...


class AdaptationMethod(Protocol):
    """A way to adapt a network to speakers."""

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> AdaptedSpeakers:
        """Estimate all of these speakers together, each as if it were alone.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seed of whatever is random; what it gives a speaker does not depend on who else adapts.
        """
        ...


@runtime_checkable
class PreparedMethod(AdaptationMethod, Protocol):
    """A method that learns from the training speakers before it adapts to others."""

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write what ``estimate`` will need, learned from the training speakers and their reference alignment."""
        ...


class MethodConfig(StrictModel):
    """Base of the options of adaptation methods; a method is chosen by its ``kind``.

    Attributes:
        kind: Name of the method.
        speakers: Class of what the method estimates.
    """

    kind: str

    speakers: ClassVar[type[AdaptedSpeakers]]

    @abstractmethod
    def make(self, folder: Path | None) -> AdaptationMethod:
        """The method with these options.

        Args:
            folder: Folder of what the method learned from the training speakers; None for a method that learns nothing
                from them.
        """

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes, from 0 at the bottom; None for all."""
        return None


def warn_unadapted(reason: str, names: Sequence[str], count: int) -> None:
    """Log a warning that names the speakers who stay unadapted, if there are any.

    Args:
        reason: Why: "they have no frame that counts".
        names: Names of these speakers.
        count: Number of all speakers.
    """
    if names:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        logger.warning("%d of %d speakers stay unadapted, %s: %s", len(names), count, reason, shown)
