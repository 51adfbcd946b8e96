"""The protocol of adaptation methods: all that the two-pass loop uses of a method.

A method estimates parameters of speakers from their data. It may transform features, add inputs, scale hidden units, or
move weights; the loop does not know which. The network that it is given never changes. A new method is a file in this
room and a line in the table of ``methods``.
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
from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.nnet.acoustic_model import AcousticModel

logger = logging.getLogger(__name__)


class SpeakerScores(Protocol):
    """All that decoding needs of adapted speakers."""

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf), up to a constant per frame, by the network adapted to each utterance's speaker.

        The result depends only on the arguments, so threads may call it at the same time.

        Args:
            speakers: The speaker of all utterances, or one speaker for each.
            utterances: Features of each utterance, shapes (T_i, D).

        Returns:
            The frames of the utterances one after the other, shape (T, K), float32.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        ...


class AdaptedSpeakers(SpeakerScores, Protocol):
    """The parameters of some speakers, and the network adapted with them."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        ...

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> AdaptedSpeakers:
        """Speakers with the mean of others' parameters: a control, which has nothing of their own.

        Args:
            speakers: The speakers, all of whom get the same parameters.
            over: Speakers whose parameters are averaged, at least one.

        Raises:
            SpeakerError: A speaker is unknown, or there is nobody to average over.
        """
        ...

    def unadapted(self) -> AdaptedSpeakers:
        """The same speakers with the parameters that nobody's data has changed, for whom adaptation does not help."""
        ...

    def save(self, folder: Path) -> None:
        """Write one file per speaker, ``<speaker>.safetensors``."""
        ...

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file.

        Args:
            speaker: The speaker's name.
            path: The file.
            extras: Extra tensors for the file, by name, such as statistics of the speaker's features.
        """
        ...


class ReadableSpeakers(AdaptedSpeakers, Protocol):
    """Parameters of one method, whose files have a format of their own.

    Attributes:
        format: Format of the speakers' files. Each file's description has it, and ``load_speakers`` chooses the class
            by it.
    """

    format: ClassVar[str]

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> ReadableSpeakers:
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
        """Estimate the parameters of all speakers; each speaker's are the same as if nobody else adapted.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds everything random. A speaker's random numbers do not depend on the other speakers.

        Returns:
            The parameters of these speakers. A speaker without data is included, unadapted.

        Raises:
            AlignmentError: The targets or features of a speaker do not fit the network.
        """
        ...


@runtime_checkable
class PreparedMethod(AdaptationMethod, Protocol):
    """A method that learns from the training speakers before it adapts to others."""

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Learn from the training speakers, and write what ``estimate`` needs into the method's folder.

        Args:
            model: The network; it comes back unchanged.
            training: The training speakers, with their reference alignment as targets.
            seed: Seed of all random numbers.
        """
        ...


class MethodConfig(StrictModel):
    """Base class of the options of adaptation methods.

    Attributes:
        kind: Name of the method.
        on: Name of an earlier pass that changes features, by transforms or by vectors beside them; the method adapts to
            the changed features. None for features as they are.
        speakers: Class of the speakers that the method estimates.
        transforms_features: Whether the method changes features, by a transform or by a vector beside them, so that
            others may go on top of it.
        uses_gaussians: Whether it estimates transforms with the Gaussian mixtures of the ladder's last rung. These
            mixtures, or a network on their features, then score the transformed features. A method that also learns
            from the training speakers is given their features before any transform.
        needs_filterbanks: Whether it needs a network on log mel filterbanks without differences.
        needs_vectors: Whether it needs a network that takes a vector of the speaker.
    """

    kind: str
    on: str | None = None

    speakers: ClassVar[type[ReadableSpeakers]]
    transforms_features: ClassVar[bool] = False
    uses_gaussians: ClassVar[bool] = False
    needs_filterbanks: ClassVar[bool] = False
    needs_vectors: ClassVar[bool] = False

    @abstractmethod
    def make(self, folder: Path | None) -> AdaptationMethod:
        """The method with these options.

        Args:
            folder: Folder for what the method learns from the training speakers; None for a method that does not learn
                from them.
        """

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes, from 0 at the bottom; None for all."""
        return None

    @property
    def goes_on(self) -> bool:
        """Whether the parameters can go on with each recording; the method is then an ``IncrementalMethod``."""
        return False


def speaker_of_each(speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> Sequence[str]:
    """The speaker of each utterance, given that of all or one for each."""
    return [speakers] * len(utterances) if isinstance(speakers, str) else speakers


def check_lenders(over: Collection[str]) -> None:
    """Refuse a control without others whose parameters it could average.

    Raises:
        SpeakerError: There are none.
    """
    if not over:
        raise SpeakerError("no other speakers to average over; a control needs at least one")


def warn_unadapted(reason: str, names: Sequence[str], count: int) -> None:
    """Log a warning that names the speakers who stay unadapted, if there are any.

    Args:
        reason: Why: "all their frames have weight 0".
        names: Names of these speakers.
        count: Number of all speakers.
    """
    if names:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        logger.warning("%d of %d speakers stay unadapted, %s: %s", len(names), count, reason, shown)
