"""A universal background model: one mixture of diagonal Gaussians for the speech of everybody.

Reynolds, Quatieri and Dunn 2000, "Speaker verification using adapted Gaussian mixture models". It is a ``DiagonalGmm``
of one pdf, trained by EM on frames without an alignment, and grown by splitting Gaussians as ``hmm/gmm.py`` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Self

import torch
from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.hmm.gmm import DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.training import Growth, summed

logger = logging.getLogger(__name__)

NAME = "background model"

# Blocks of frames, shape (T, D), float32: the same each time it is called.
Frames = Callable[[], Iterable[torch.Tensor]]


class BackgroundConfig(StrictModel):
    """Options of the training.

    Attributes:
        gaussians: Number of Gaussians at the end.
        iterations: Number of estimations.
        growing_iterations: Number of iterations over which the number of Gaussians grows. The first estimates a single
            one; each later one splits some before it estimates.
    """

    gaussians: int = Field(256, ge=1, le=100_000)
    iterations: int = Field(20, ge=2, le=10_000)
    growing_iterations: int = Field(14, ge=1, le=10_000)

    @model_validator(mode="after")
    def _grows_in_time(self) -> Self:
        if self.growing_iterations > self.iterations:
            raise ValueError(
                f"growing_iterations: {self.growing_iterations}; give at most {self.iterations}, the iterations"
            )
        return self


def train_background(frames: Frames, config: BackgroundConfig, seed: int) -> DiagonalGmm:
    """Train a background model.

    Args:
        frames: The frames.
        config: Options.
        seed: Seed of the directions in which Gaussians are split.

    Raises:
        FeatureError: No frames are given, or a value is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    growth = Growth(NAME, config.iterations, config.growing_iterations, config.gaussians, lambda _: False)
    model, occupancy = _first(frames), None
    for iteration in range(1, config.iterations + 1):
        target = growth.target(1, iteration)
        if occupancy is not None and target > model.gaussians:
            model = model.grown(target, occupancy, generator)
        statistics = summed(background_statistics(model, block) for block in frames())
        model, occupancy = model.update(statistics), statistics.occupancy
    logger.info("%s: %d Gaussians of %d frames", NAME, model.gaussians, int(statistics.occupancy.sum()))
    return model


def background_statistics(
    model: DiagonalGmm, features: torch.Tensor, weights: torch.Tensor | None = None
) -> GmmStatistics:
    """Sums over frames, weighted by the posteriors of the background model's Gaussians.

    Args:
        model: The background model.
        features: Shape (T, D), float32.
        weights: Weight of each frame, shape (T,), float32; None for one.
    """
    return model.accumulate(features, torch.zeros(len(features), dtype=torch.int64), weights)


def _first(frames: Frames) -> DiagonalGmm:
    """One Gaussian for all frames."""
    count, first, second = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for block in frames():
        values = block.double()
        count, first, second = count + len(values), first + values.sum(0), second + values.square().sum(0)
    if not count:
        raise FeatureError(f"{NAME}: no frames to train on; give the features of some speech")
    mean = first / count
    variance = second / count - mean.square()
    if not bool(variance.isfinite().all()):
        raise FeatureError(f"{NAME}: features that are not finite; compute them again")
    return DiagonalGmm.flat(mean, variance, 1)
