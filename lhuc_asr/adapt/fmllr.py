"""fMLLR as an adaptation method: each speaker's features go through an affine transform before the model.

    y = A^s x + b^s      (Gales 1998, "Maximum likelihood linear transformations for HMM-based speech recognition")

The transforms raise the likelihood of Gaussian mixtures of speaker-adaptively trained features. The model that scores
the transformed features is those mixtures themselves, or a network that was trained on such features. Posteriors of the
first estimate come from the mixtures' twin for unadapted features, those of later ones from the adapted mixtures
(Kaldi's steps/decode_fmllr.sh).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.base.errors import AlignmentError, CorpusError
from lhuc_asr.hmm.fmllr import FmllrEstimation, MinCounts, estimate_speakers, fmllr_statistics
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.hmm.training import BLOCK_FRAMES
from lhuc_asr.nnet.acoustic_model import AcousticModel


class FmllrConfig(MethodConfig):
    """Options of fMLLR.

    Attributes:
        kind: Name of the method.
        estimates: Number of estimates on the same targets, each on top of the one before.
        min_counts: Frames, weighted, that a speaker must have for each form of transform; those who have too few for
            any keep their features as they are.
        blocks: Number of equal blocks of the form "block".
    """

    speakers: ClassVar[type[ReadableSpeakers]] = TransformedSpeakers
    transforms_features: ClassVar[bool] = True
    uses_gaussians: ClassVar[bool] = True

    kind: Literal["fmllr"] = "fmllr"
    estimates: int = Field(2, ge=1, le=100)
    min_counts: MinCounts = Field(default={"full": 500.0})
    blocks: int = Field(3, ge=1, le=10_000)

    def make(self, folder: Path | None) -> Fmllr:
        """The method with these options."""
        return Fmllr(self)


class Fmllr:
    """fMLLR as an adaptation method.

    Args:
        config: Options of the method.
    """

    def __init__(self, config: FmllrConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> TransformedSpeakers:
        """Estimate the transforms of all speakers; nothing is random.

        Args:
            model: The model; it comes back unchanged.
            speakers: Each speaker's data, with the Gaussian mixtures that the transforms are estimated with.
            seed: Without effect.

        Raises:
            AlignmentError: A speaker's targets or features do not fit the model or the Gaussian mixtures.
            CorpusError: The data has no Gaussian mixtures.
        """
        for name, data in speakers.items():
            data.check_fits(name, model)
        transforms = SpeakerTransforms.identity(tuple(speakers), model.feature_dimension)
        estimation = FmllrEstimation(min_counts=self.config.min_counts, blocks=self.config.blocks)
        last = self.config.estimates
        for number in range(1, last + 1) if speakers else ():
            parts = (speaker_statistics(name, data, transforms, first=number == 1) for name, data in speakers.items())
            transforms = estimate_speakers(parts, estimation, warns=number == last).after(transforms)
        return TransformedSpeakers(model, transforms)


def speaker_statistics(
    name: str, data: SpeakerData, before: SpeakerTransforms, *, first: bool, of_moved: bool = True
) -> RowStatistics:
    """Statistics of a speaker's frames for the next estimate.

    Args:
        name: The speaker.
        data: The speaker's data.
        before: Transforms of the estimate before.
        first: Whether this is the first estimate, whose posteriors are those of unadapted features.
        of_moved: Whether the statistics are of the features after the estimate before, for a transform that goes on top
            of it; if not, only the posteriors are.

    Raises:
        AlignmentError: The Gaussian mixtures are of other features.
        CorpusError: The data has no Gaussian mixtures.
    """
    if data.alignment_model is None:
        raise CorpusError(
            f"speaker {name!r}: the data has no Gaussian mixtures, which fMLLR needs; give the recipe a ladder: "
            "aligners=[mono,tri,lda_mllt,fmllr_sat]"
        )
    unadapted, adapted = data.alignment_model.gmms
    if adapted.dimension != data.features.shape[1]:
        raise AlignmentError(
            f"speaker {name!r}: {data.features.shape[1]} features per frame, but the Gaussian mixtures model "
            f"{adapted.dimension}; fMLLR is for networks that are trained on the features of the ladder's last rung"
        )
    features = torch.from_numpy(np.array(data.features))
    moved = before.apply(features, [len(features)], [name])
    if of_moved:
        features = moved
    candidates = torch.from_numpy(data.targets.pdf).long()
    weights = torch.from_numpy(data.targets.posterior * data.targets.weight[:, None])
    total = RowStatistics.nothing(name, adapted.dimension)
    blocks = (each.split(BLOCK_FRAMES) for each in (features, moved, candidates, weights))
    for values, heard, pdfs, weight in zip(*blocks, strict=True):
        values, heard = (each.repeat_interleave(pdfs.shape[1], 0) for each in (values, heard))
        posteriors = (unadapted if first else adapted).posteriors(heard, pdfs.flatten(), weight.flatten())
        total = total + fmllr_statistics(name, posteriors, adapted, values)
    return total
