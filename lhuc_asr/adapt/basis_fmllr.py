"""Basis fMLLR as an adaptation method: a transform of a few coefficients, for seconds of speech.

``hmm/basis_fmllr.py`` has the estimation. The basis is learned from the training speakers, whose features have not been
moved by any transform.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lhuc_asr.adapt.fmllr import speaker_statistics
from lhuc_asr.adapt.method import ReadableSpeakers
from lhuc_asr.adapt.prepared import PreparedConfig, prepared_file
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.hmm.basis_fmllr import BasisFmllrEstimation, BasisStatistics, FmllrBasis
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.hmm.training import summed
from lhuc_asr.nnet.acoustic_model import AcousticModel

BASIS_FILE = "basis.safetensors"


class BasisFmllrConfig(PreparedConfig):
    """Options of basis fMLLR.

    Attributes:
        kind: Name of the method.
        estimates: Number of estimates on the same targets; the posteriors of each come from the one before.
        min_count: Frames, weighted, below which a speaker's features stay as they are.
        coefficients_per_frame: Number of coefficients for each frame that a speaker has.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = TransformedSpeakers
    transforms_features: ClassVar[bool] = True
    uses_gaussians: ClassVar[bool] = True
    not_prepared: ClassVar[frozenset[str]] = frozenset({"estimates", "min_count", "coefficients_per_frame"})

    kind: Literal["basis_fmllr"] = "basis_fmllr"
    estimates: int = Field(2, ge=1, le=100)
    min_count: float = Field(50.0, gt=0.0, le=1e9)
    coefficients_per_frame: float = Field(0.2, gt=0.0, le=1e6)

    def make(self, folder: Path | None) -> BasisFmllr:
        """The method with these options."""
        return BasisFmllr(self, folder)


class BasisFmllr:
    """Basis fMLLR as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the basis.
    """

    def __init__(self, config: BasisFmllrConfig, folder: Path | None) -> None:
        self.config = config
        self._path = prepared_file(folder, BASIS_FILE)

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write the basis of the training speakers.

        Args:
            model: The model; it comes back unchanged.
            training: The training speakers, with features that no transform has moved.
            seed: Without effect.

        Raises:
            AlignmentError: A speaker's targets or features do not fit the Gaussian mixtures.
            CorpusError: The data has no Gaussian mixtures.
            TransformError: Every frame has weight 0, or the covariance of the frames is singular.
        """
        unmoved = SpeakerTransforms.identity(tuple(training), model.feature_dimension)
        parts = (speaker_statistics(name, data, unmoved, first=True) for name, data in training.items())
        FmllrBasis.from_statistics(summed(BasisStatistics.of(part) for part in parts)).save(self._path)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> TransformedSpeakers:
        """Estimate the transforms of all speakers; nothing is random.

        Args:
            model: The model; it comes back unchanged.
            speakers: Each speaker's data, with the Gaussian mixtures that the transforms are estimated with.
            seed: Without effect.

        Raises:
            AlignmentError: A speaker's targets or features do not fit the model or the Gaussian mixtures.
            CheckpointError: The basis is missing or damaged.
            CorpusError: The data has no Gaussian mixtures.
        """
        for name, data in speakers.items():
            data.check_fits(name, model)
        basis = FmllrBasis.load(self._path, model.feature_dimension)
        options = BasisFmllrEstimation(
            min_count=self.config.min_count, coefficients_per_frame=self.config.coefficients_per_frame
        )
        transforms = SpeakerTransforms.identity(tuple(speakers), model.feature_dimension)
        last = self.config.estimates
        for number in range(1, last + 1) if speakers else ():
            parts = [
                speaker_statistics(name, data, transforms, first=number == 1, of_moved=False)
                for name, data in speakers.items()
            ]
            transforms = basis.estimate(RowStatistics.stacked(parts), options, warns=number == last).transforms
        return TransformedSpeakers(model, transforms)
