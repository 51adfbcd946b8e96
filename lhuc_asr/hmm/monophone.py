"""Monophone training from a flat start: equal segmentation, then align and estimate, mixtures growing.

Every iteration after the flat start estimates the Gaussians, and most iterations align the utterances again first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.features.store import StoredUtterance, blocks_of
from lhuc_asr.hmm.gaussian_features import GaussianFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.topology import ContextDependency, MonophoneTopology
from lhuc_asr.hmm.training import (
    BLOCK_FRAMES,
    GaussianModel,
    Growth,
    MixtureConfig,
    TrainingData,
    TrainingState,
    estimated,
    train_mixtures,
)
from lhuc_asr.hmm.transcript import linear_states


class MonophoneConfig(MixtureConfig):
    """Options of monophone training, after the flat start."""

    iterations: int = Field(30, ge=2, le=10_000)
    growing_iterations: int = Field(22, ge=1, le=10_000)
    gaussians: int = Field(1000, ge=1, le=10_000_000)


def train_monophones(
    features: GaussianFeatures, data: TrainingData, config: MonophoneConfig, seed: int
) -> GaussianModel:
    """Train from a flat start.

    Args:
        features: Features of the utterances.
        data: The utterances.
        config: Sizes and iterations.
        seed: Seed of the directions in which Gaussians are split.

    Raises:
        AlignmentError: A word is not in the lexicon, or too many utterances cannot be aligned.
    """
    topology = MonophoneTopology.initial(data.lexicon.phones)
    pdfs = _equal_segmentation(data, topology)
    flat = GaussianModel(topology, _flat_gmm(features, data.utterances, topology.pdf_count))
    start = estimated(TrainingState(flat, features, pdfs, torch.empty(0)), data.utterances)
    growth = Growth("monophones", config.iterations, config.growing_iterations, config.gaussians, _aligns_again)
    return train_mixtures(start, data, growth, seed).model


def _equal_segmentation(data: TrainingData, topology: ContextDependency) -> dict[str, np.ndarray]:
    missing = data.lexicon.missing({word for u in data.utterances for word in data.transcripts[u.id]})
    if missing:
        raise AlignmentError(
            f"{len(missing)} words are not in the lexicon: {' '.join(missing[:10])}; "
            "add them or choose a policy for such words"
        )
    pdfs = {}
    for utterance in data.utterances:
        states = linear_states(data.transcripts[utterance.id], data.lexicon, topology)
        if utterance.frames >= len(states):
            pdfs[utterance.id] = states[np.arange(utterance.frames) * len(states) // utterance.frames]
    if not pdfs:
        raise AlignmentError(
            "every utterance is shorter than its transcript allows; check that text and audio belong together"
        )
    return pdfs


def _flat_gmm(features: GaussianFeatures, utterances: Sequence[StoredUtterance], pdf_count: int) -> DiagonalGmm:
    frames, total, square = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for block in blocks_of(utterances, BLOCK_FRAMES):
        values = features.of(block).double()
        frames += len(values)
        total = total + values.sum(0)
        square = square + values.square().sum(0)
    mean = total / frames
    return DiagonalGmm.flat(mean, square / frames - mean.square(), pdf_count)


def _aligns_again(iteration: int) -> bool:
    """Whether an iteration aligns first: each of the first ten, when everything moves, then every second one."""
    return iteration <= 10 or iteration % 2 == 0
