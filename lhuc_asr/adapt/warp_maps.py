"""Maps of features that do what warps of the frequencies do to them (linear VTLN).

To first order the features at one warp are an affine function of those without. A map is the least squares fit of it,
for features that were normalised to mean 0 and variance 1 at every warp for each speaker. So models and files that take
fMLLR's transforms take VTLN's (Kaldi's gmm-train-lvtln-special; Kim, Umesh, Gales, Hain and Woodland 2004, "Using VTLN
for broadcast news transcription").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.vtln import warped_features

# The warp that changes nothing.
UNWARPED = 1.0
# Number of frames that the identity counts as in a map: a second of speech alone would be fitted too well.
PRIOR_FRAMES = 5.0


def warp_maps(
    speakers: Iterable[Sequence[np.ndarray]], warps: Sequence[float], features: FeatureConfig
) -> torch.Tensor:
    """The map of each warp that fits the features of all speakers best.

    Args:
        speakers: Samples in [-1, 1) of all utterances of each speaker, at the features' sample rate, shapes (N,).
        warps: The V warps.
        features: Kind of the features, before they are normalised for each speaker.

    Returns:
        W = [A b] of each warp, shape (V, D, D + 1), float64; the identity for a warp of 1.

    Raises:
        FeatureError: An utterance has no frame, or a warp leaves a mel bin empty.
    """
    spoken = (_unwarped_and_warped(utterances, warps, features) for utterances in speakers if utterances)
    maps = _least_squares(itertools.chain.from_iterable(spoken), len(warps), features.dimension)
    unwarped = [warp == UNWARPED for warp in warps]
    maps[unwarped] = torch.eye(features.dimension, features.dimension + 1, dtype=torch.float64)
    return maps


def _unwarped_and_warped(
    utterances: Sequence[np.ndarray], warps: Sequence[float], features: FeatureConfig
) -> Iterator[torch.Tensor]:
    """The features of each of a speaker's utterances as they are and at V warps, normalised, shapes (1 + V, T, D).

    They are computed twice, so that memory does not grow with the speaker's speech.
    """
    all_warps = (UNWARPED, *warps)

    def columns(samples: np.ndarray) -> np.ndarray:
        """The features at all warps side by side, shape (T, (1 + V) D)."""
        values = warped_features(samples, features, all_warps)
        return values.reshape(len(values), -1)

    accumulator = CmvnAccumulator(len(all_warps) * features.dimension)
    for samples in utterances:
        accumulator.add(columns(samples))
    cmvn = accumulator.estimate()
    for samples in utterances:
        normalised = cmvn.apply(columns(samples))
        yield torch.from_numpy(normalised.reshape(len(normalised), len(all_warps), -1)).transpose(0, 1)


def _least_squares(blocks: Iterable[torch.Tensor], maps: int, dimension: int) -> torch.Tensor:
    """W with the smallest error from the first to each other of several features of the same frames.

    The identity counts as ``PRIOR_FRAMES`` frames.

    Args:
        blocks: Features of some frames, shapes (1 + V, T, D).
        maps: Number of the maps, V.
        dimension: Number of features, D.

    Returns:
        Shape (V, D, D + 1), float64.
    """
    inner = PRIOR_FRAMES * torch.eye(dimension + 1, dtype=torch.float64)
    outer = PRIOR_FRAMES * torch.eye(dimension, dimension + 1, dtype=torch.float64).repeat(maps, 1, 1)
    for unwarped, *warped in blocks:
        extended = torch.nn.functional.pad(unwarped.double(), (0, 1), value=1.0)
        inner += extended.T @ extended
        outer += torch.stack(warped).double().mT @ extended
    solution: torch.Tensor = torch.linalg.solve(inner, outer.mT)
    return solution.mT
