"""Feature-space maximum likelihood linear regression, fMLLR or CMLLR: an affine transform of a speaker's features.

Gales 1998, "Maximum likelihood linear transformations for HMM-based speech recognition", sec. 4. Statistics are those
of the speaker's frames and the Gaussians that they are aligned to; row_updates.py has the maximisation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SingularError
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.posteriors import GaussianPosteriors
from lhuc_asr.hmm.row_updates import RowStatistics, check_blocks, maximum
from lhuc_asr.hmm.scatter import product_sum, weighted_scatter
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms, far_from_voices

logger = logging.getLogger(__name__)

# Forms of A, from the richest: a matrix; one with equal blocks on its diagonal; a diagonal one; the identity, with b
# alone estimated.
Form = Literal["full", "block", "diagonal", "offset"]
FORMS: tuple[Form, ...] = ("full", "block", "diagonal", "offset")
# Frames, weighted, that a speaker must have for each form; without frames there is nothing to estimate.
MinCounts = Annotated[dict[Form, Annotated[float, Field(gt=0.0, le=1e9)]], Field(min_length=1)]
# Speakers that are estimated at once: each has 0.5 MB of statistics at 40 features, and twice that of intermediates.
BATCH_SPEAKERS = 32
# A frame's posteriors add up to 1 within the rounding of float32, so that 500 frames may count as 499.99996.
COUNT_ROUNDING = 1e-6


class FmllrEstimation(StrictModel):
    """Options of the estimation.

    Attributes:
        min_counts: Frames, weighted, that a speaker must have for each form of transform. A speaker gets the richest
            form that they have enough for, and the identity where they have too few for any. Kaldi's fmllr-min-count
            is {"full": 500}; {"full": 500, "diagonal": 100, "offset": 50} uses shorter recordings too.
        sweeps: Number of updates of every row (Kaldi's fmllr-num-iters).
        blocks: Number of equal blocks of the form "block": 3 for cepstra with first and second differences.
    """

    min_counts: MinCounts = Field(default={"full": 500.0})
    sweeps: int = Field(40, ge=1, le=10_000)
    blocks: int = Field(3, ge=1, le=10_000)

    def form(self, count: float) -> Form | None:
        """The form of transform for a speaker with ``count`` frames; None for the identity."""
        return next((form for form in FORMS if form in self.min_counts and enough(count, self.min_counts[form])), None)

    def mask(self, form: Form | None, dimension: int) -> torch.Tensor:
        """The numbers of W = [A; b] that a form estimates: 1, and 0 for the others, shape (D, D + 1), float32.

        Raises:
            TransformError: D features cannot be cut into the options' blocks.
        """
        ones, offset = torch.ones(dimension, dimension), torch.full((dimension, 1), float(form is not None))
        if form == "block":
            check_blocks(dimension, self.blocks)
            size = dimension // self.blocks
            matrix = torch.block_diag(*[torch.ones(size, size)] * self.blocks)
        else:
            matrix = {"full": ones, "diagonal": torch.eye(dimension)}.get(form or "", 0.0 * ones)
        return torch.cat([matrix, offset], dim=1)


@dataclass(frozen=True)
class FmllrEstimate:
    """Transforms of S speakers and what they gain.

    Attributes:
        transforms: The transforms.
        forms: Form of each speaker's transform; None for the identity.
        count: Frames of each speaker, weighted, shape (S,), float64.
        improvement: Gain in log-likelihood per frame over the identity, log |det A| included, in nats, shape (S,).
    """

    transforms: SpeakerTransforms
    forms: tuple[Form | None, ...]
    count: torch.Tensor
    improvement: torch.Tensor


def fmllr_statistics(
    name: str, posteriors: GaussianPosteriors, gmm: DiagonalGmm, features: torch.Tensor
) -> RowStatistics:
    """Statistics of a speaker's frames.

    The posteriors may come from another model and its features of the same frames (Kaldi's gmm-est-fmllr-gpost), if
    its Gaussians are the same in another space, as those of ``GmmStatistics.of`` are.

    Args:
        name: The speaker.
        posteriors: Posteriors of the frames, weighted: silence less, frames without an alignment by 0.
        gmm: The model whose likelihood the transform raises.
        features: Features to transform, shape (T, D), float32.
    """
    values = features[posteriors.order]
    values = torch.cat([values, torch.ones(len(values), 1)], dim=1)
    precision = gmm.variance.reciprocal()
    weighted_mean, weight = posteriors.expectations(torch.cat([gmm.mean * precision, precision], dim=1)).chunk(2, 1)
    return RowStatistics(
        (name,),
        posteriors.occupancy.sum().reshape(1),
        product_sum(weighted_mean, values).unsqueeze(0),
        weighted_scatter(weight, values).unsqueeze(0),
    )


def estimate_fmllr(statistics: RowStatistics, config: FmllrEstimation | None = None) -> FmllrEstimate:
    """Estimate the transform of every speaker.

    A speaker's transform is the same to the bit, whoever else is estimated. A warning names the speakers with too few
    frames, whose transform is the identity.

    Args:
        statistics: Statistics of the speakers, stacked.
        config: Options; None for Kaldi's.

    Raises:
        SingularError: A speaker's statistics are singular, or not finite.
        TransformError: The features cannot be cut into the options' blocks.
    """
    config = config or FmllrEstimation()
    estimate = _estimated(statistics, config)
    warn_of_few_frames(statistics.names, statistics.count.tolist(), min(config.min_counts.values()))
    return estimate


def estimate_speakers(
    parts: Iterable[RowStatistics], config: FmllrEstimation | None = None, *, warns: bool = True
) -> SpeakerTransforms:
    """Estimate the transforms of speakers one batch after the other, so that few statistics are held at a time.

    The transform of a speaker whose statistics are singular or not finite, or lead farther than any voice, is the
    identity; a warning names them, as it does those with too few frames.

    Args:
        parts: Statistics of each speaker.
        config: Options; None for Kaldi's.
        warns: Whether these warnings are given; False for all but the last of several estimates from the same frames.

    Raises:
        TransformError: The features cannot be cut into the options' blocks.
    """
    config = config or FmllrEstimation()
    names: list[str] = []
    counts: list[float] = []
    transforms: list[torch.Tensor] = []
    unusable: list[str] = []
    waiting = iter(parts)
    while batch := list(islice(waiting, BATCH_SPEAKERS)):
        for estimated, usable in _each_usable(batch, config):
            names += estimated.names
            far = far_from_voices(estimated.matrices)
            unit = SpeakerTransforms.identity(estimated.names, estimated.matrices.shape[1]).matrices
            transforms.append(torch.where(far[:, None, None], unit, estimated.matrices))
            unusable += [name for name, gone in zip(estimated.names, far.tolist(), strict=True) if gone or not usable]
        counts += [float(part.count) for part in batch]
    if warns:
        warn_of_unusable(unusable, len(names))
        warn_of_few_frames(names, counts, min(config.min_counts.values()))
    return SpeakerTransforms(tuple(names), torch.cat(transforms) if transforms else torch.empty(0, 0, 1).double())


def warn_of_unusable(names: Sequence[str], count: int) -> None:
    """Log the names of the speakers whose statistics give no transform, if there are any, of ``count`` speakers."""
    if names:
        logger.warning(
            "%d of %d speakers stay unadapted, their frames are too much alike, or not finite: %s",
            len(names), count, ", ".join(names[:10]),
        )  # fmt: skip


def _each_usable(parts: Sequence[RowStatistics], config: FmllrEstimation) -> Iterator[tuple[SpeakerTransforms, bool]]:
    """Transforms of speakers, together if all their statistics are usable; whether they are."""
    statistics = RowStatistics.stacked(parts)
    try:
        transforms, usable = _estimated(statistics, config).transforms, True
    except SingularError:
        transforms, usable = SpeakerTransforms(statistics.names, statistics.identity()), False
    if usable or len(parts) == 1:
        yield transforms, usable
        return
    for part in parts:
        yield from _each_usable([part], config)


def _estimated(statistics: RowStatistics, config: FmllrEstimation) -> FmllrEstimate:
    not_finite = [name for name, finite in zip(statistics.names, statistics.finite.tolist(), strict=True) if not finite]
    if not_finite:
        raise SingularError(
            f"{', '.join(not_finite)}: the features are not finite; check the recordings, or leave them out"
        )
    forms = tuple(config.form(count) for count in statistics.count.tolist())
    matrices, improvement = statistics.identity(), torch.zeros_like(statistics.count)
    for form in FORMS:
        speakers = [place for place, chosen in enumerate(forms) if chosen == form]
        for first in range(0, len(speakers), BATCH_SPEAKERS):
            places = speakers[first : first + BATCH_SPEAKERS]
            part = statistics.of(places)
            estimated = _of_form(part, form, config)
            gain = (part.objective(estimated) - part.objective(part.identity())) / part.count
            matrices[places], improvement[places] = estimated, gain
    return FmllrEstimate(SpeakerTransforms(statistics.names, matrices), forms, statistics.count, improvement)


def _of_form(statistics: RowStatistics, form: Form, config: FmllrEstimation) -> torch.Tensor:
    if form == "full":
        return maximum(statistics, config.sweeps)
    if form == "block":
        return maximum(statistics, config.sweeps, config.blocks)
    if form == "diagonal":
        # Rows do not depend on each other: one update of each is the maximum.
        return maximum(statistics, 1, statistics.dimension)
    transforms, features = statistics.identity(), torch.arange(statistics.dimension)
    moved = statistics.quadratic[:, features, features, -1]
    transforms[..., -1] = (statistics.linear[..., -1] - moved) / statistics.quadratic[..., -1, -1]
    return transforms


def enough(count: float, minimum: float) -> bool:
    """Whether posteriors whose sum is ``count`` are those of ``minimum`` frames or more."""
    return count >= minimum * (1.0 - COUNT_ROUNDING)


def warn_of_few_frames(names: Sequence[str], counts: Sequence[float], minimum: float) -> None:
    """Log the names of the speakers that have fewer than ``minimum`` frames, if there are any."""
    # A count that is not a number is another fault.
    known = [(name, count) for name, count in zip(names, counts, strict=True) if not math.isnan(count)]
    few = [f"{name} ({count:.0f})" for name, count in known if not enough(count, minimum)]
    if few:
        logger.warning(
            "%d of %d speakers have fewer than %g frames of speech and keep their features as they are: %s; give "
            "more of their speech",
            len(few), len(names), minimum, ", ".join(few[:10]),
        )  # fmt: skip
