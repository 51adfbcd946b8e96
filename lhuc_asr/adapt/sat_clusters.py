"""Clusters of training speakers, who share a row in SAT-LHUC: each row then has more frames than one speaker says.

Speakers are compared by how their frames differ from what all speakers together say, whatever was said. With mu(c) the
mean of pdf c over all speakers, a speaker's map is the ridge regression

    x_t - mu(c_t) ~ V^s z(c_t),    V^s = (sum_t (x_t - mu(c_t)) z(c_t)^T) (sum_t z(c_t) z(c_t)^T + tau I)^-1

where z(c) is [mu(c); 1], whitened over all frames. |V^s - V^r|^2 is then the mean squared distance between the two
speakers' predictions, and Ward's method joins speakers by it (Ward 1963).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource

# tau: a speaker with ten seconds of speech is half of the way from the mean of all.
PRIOR_FRAMES = 1000.0
# Directions in which the pdfs' means differ by less, relative to the direction in which they differ most, are left out.
SMALLEST_VARIANCE = 1e-6


def cluster_leaders(
    source: FrameSource, speakers: Mapping[str, Sequence[StoredUtterance]], clusters: int
) -> dict[str, str]:
    """The leader of each speaker's cluster: its first speaker.

    Args:
        source: The training frames.
        speakers: Utterances of each speaker, each speaker with a frame that has a target.
        clusters: Number of clusters.

    Raises:
        ConfigError: There are fewer speakers than clusters.
    """
    if clusters > len(speakers):
        raise ConfigError(
            f"{clusters} clusters for {len(speakers)} training speakers, each speed of a speaker counted; give at most "
            "that many, or leave out clusters"
        )
    if clusters == len(speakers):
        return {speaker: speaker for speaker in speakers}
    maps = speaker_maps(source, speakers)
    numbers = fcluster(linkage(maps, "ward"), clusters, "maxclust").tolist()
    first: dict[int, str] = {}
    return {speaker: first.setdefault(number, speaker) for speaker, number in zip(speakers, numbers, strict=True)}


def speaker_maps(source: FrameSource, speakers: Mapping[str, Sequence[StoredUtterance]]) -> np.ndarray:
    """V^s of each speaker as a row, shape (S, D Z), float64; Z is the number of directions that are kept."""
    pdfs, dimension = int(source.targets.max()) + 1, source.features.shape[1]
    sums, counts = torch.zeros(pdfs, dimension, dtype=torch.float64), torch.zeros(pdfs, dtype=torch.float64)
    for utterances in speakers.values():
        frames, targets = _frames(source, utterances)
        sums.index_add_(0, targets, frames)
        counts += torch.bincount(targets, minlength=pdfs)
    means = sums / counts.clamp(min=1.0)[:, None]
    directions = _whitened(means, counts)
    maps = []
    for utterances in speakers.values():
        frames, targets = _frames(source, utterances)
        z = directions[targets]
        gram = z.T @ z + PRIOR_FRAMES * torch.eye(z.shape[1], dtype=torch.float64)
        maps.append(torch.linalg.solve(gram, z.T @ (frames - means[targets])).flatten())
    return torch.stack(maps).numpy()


def _frames(source: FrameSource, utterances: Sequence[StoredUtterance]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of utterances that have a target, shape (T, D), float64, and their targets (T,)."""
    targets = np.concatenate([source.targets[utterance.rows] for utterance in utterances])
    frames = np.concatenate([source.features[utterance.rows] for utterance in utterances])
    return torch.from_numpy(frames[targets >= 0]).double(), torch.from_numpy(targets[targets >= 0]).long()


def _whitened(means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """z of each pdf, shape (K, Z): [mu; 1] with a second moment of I over all frames."""
    extended = torch.cat([means, torch.ones(len(means), 1, dtype=torch.float64)], dim=1)
    moment = extended.T @ (extended * (counts / counts.sum())[:, None])
    values, vectors = torch.linalg.eigh(moment)
    kept = values > SMALLEST_VARIANCE * values[-1]
    scale: torch.Tensor = vectors[:, kept] / values[kept].sqrt()
    return extended @ scale
