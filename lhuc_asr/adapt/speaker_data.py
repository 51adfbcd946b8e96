"""One speaker's adaptation data: features, targets, recordings, and the model that aligned the training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.targets import FrameTargets, joined
from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AlignmentError, CheckpointError, CorpusError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS, samples_of
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.acoustic_model import AcousticModel

NO_RECORDINGS = "the adaptation data has features only; this method needs the recordings too"


@dataclass(frozen=True)
class AlignmentModel:
    """The Gaussian mixtures of the last rung of the ladder; fMLLR collects its statistics with them.

    Their pdfs are the network's pdfs.

    Attributes:
        adapted: File of the mixtures, which model features that speakers' transforms have moved.
        unadapted: File of the same Gaussians in unadapted features; None if the rung was not trained with transforms,
            so that its mixtures are both.
        pdf_count: Number of pdfs, K.
    """

    adapted: Path
    unadapted: Path | None
    pdf_count: int

    @cached_property
    def gmms(self) -> tuple[DiagonalGmm, DiagonalGmm]:
        """The mixtures of unadapted and of adapted features; they are read on first use.

        Raises:
            CheckpointError: A file is missing or damaged, or the two have other Gaussians.
        """
        adapted = DiagonalGmm.load(self.adapted, self.pdf_count)
        if self.unadapted is None:
            return adapted, adapted
        unadapted = DiagonalGmm.load(self.unadapted, self.pdf_count, adapted.dimension)
        if not torch.equal(unadapted.pdf, adapted.pdf):
            raise CheckpointError(
                f"{self.unadapted}: its Gaussians are not those of {self.adapted}; delete both and run again"
            )
        return unadapted, adapted


@dataclass(frozen=True)
class SpeakerData:
    """All of one speaker's adaptation data.

    Attributes:
        features: Normalised features of the utterances, one after the other, shape (T, D), or (T, D + R) with a vector
            of the speaker in each row, float32.
        lengths: Number of frames of each utterance. Splicing does not cross from one utterance into the next.
        targets: Targets of all frames, shape (T,).
        recordings: The utterances that the features were computed from, in the same order; empty if they are unknown.
            A recording may be longer than the frames in ``features``, because adaptation data can be limited.
        alignment_model: The model that aligned the training data; None if it did not come with the network.
    """

    features: np.ndarray
    lengths: tuple[int, ...]
    targets: FrameTargets
    recordings: tuple[Utterance, ...] = ()
    alignment_model: AlignmentModel | None = None

    def __post_init__(self) -> None:
        frames = len(self.features)
        if sum(self.lengths) != frames or len(self.targets.pdf) != frames:
            raise AlignmentError(
                f"{frames} frames, {sum(self.lengths)} in the utterances' lengths, {len(self.targets.pdf)} targets"
            )
        if self.recordings and len(self.recordings) != len(self.lengths):
            raise AlignmentError(f"{len(self.lengths)} utterances with {len(self.recordings)} recordings")

    @classmethod
    def of(
        cls,
        utterances: Sequence[tuple[np.ndarray, FrameTargets]],
        recordings: Sequence[Utterance] = (),
        alignment_model: AlignmentModel | None = None,
    ) -> SpeakerData:
        """The data of several utterances.

        Args:
            utterances: Features (T, D) and targets (T,) of each utterance; at least one.
            recordings: The utterances that the features were computed from, if they are known.
            alignment_model: The model that aligned the training data, if it is known.
        """
        return cls(
            np.concatenate([features for features, _ in utterances]),
            tuple(len(features) for features, _ in utterances),
            joined([targets for _, targets in utterances]),
            tuple(recordings),
            alignment_model,
        )

    def check_fits(self, name: str, model: AcousticModel) -> None:
        """Refuse data of another network.

        Args:
            name: The speaker's name, for the message.
            model: The network.

        Raises:
            AlignmentError: The features or the targets do not fit the network.
        """
        self.check_features_fit(name, model)
        pdf = self.targets.pdf
        if pdf.size and pdf.max() >= model.pdf_count:
            frame = int(np.argmax(pdf.max(axis=1)))
            raise AlignmentError(
                f"speaker {name!r}: pdf {int(pdf.max())} in frame {frame}, but the network has pdfs 0 to "
                f"{model.pdf_count - 1}: the targets are of another tree; align or decode with this network's own"
            )

    def check_features_fit(self, name: str, model: AcousticModel) -> None:
        """Refuse features of another network; arguments as ``check_fits``.

        Raises:
            AlignmentError: The features do not fit the network.
        """
        dimension = self.features.shape[1] if self.features.ndim == 2 else 0
        if not model.splicing.fits(dimension):
            raise AlignmentError(
                f"speaker {name!r}: features of shape {self.features.shape}, but the network takes "
                f"{model.feature_dimension} per frame; compute them with the options that it was trained with"
            )

    def sample_rate(self) -> int:
        """Sample rate of the first recording, hertz.

        Raises:
            CorpusError: The recordings are unknown.
            AudioError: The recording cannot be read.
        """
        if not self.recordings:
            raise CorpusError(NO_RECORDINGS)
        return probe(self.recordings[0].audio).sample_rate

    def waveforms(self, sample_rate: int) -> Iterator[np.ndarray]:
        """The samples of each utterance, cut to the frames in ``features``, shapes (N,), float32.

        Args:
            sample_rate: Sample rate of the result, hertz.

        Raises:
            CorpusError: The recordings are unknown.
            AudioError: A recording cannot be read.
        """
        if not self.recordings and self.lengths:
            raise CorpusError(NO_RECORDINGS)
        window, shift = (samples_of(s, sample_rate) for s in (FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS))
        for utterance, frames in zip(self.recordings, self.lengths, strict=True):
            yield read_audio(utterance, sample_rate)[: window + (frames - 1) * shift]
