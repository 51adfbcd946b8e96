"""Clusters of training speakers, who share a row in SAT-LHUC: each row then has more frames than one speaker says.

Speakers are compared by how their frames differ from what all speakers together say, whatever was said. With mu(c) the
mean of pdf c over all speakers, a speaker's map is the ridge regression

    x_t - mu(c_t) ~ V^s z(c_t),    V^s = (mean_t (x_t - mu(c_t)) z(c_t)^T) (mean_t z(c_t) z(c_t)^T + lambda I)^-1

where z(c) is mu(c), centred and whitened over all frames, and 1. |V^s - V^r|^2 is then the mean squared distance
between the two speakers' predictions, and Ward's method joins speakers by it (Ward 1963). lambda is a share of a frame:
a speaker with little speech is not drawn to the others for that alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource

# lambda, beside a second moment of z of about I.
RIDGE = 0.1
# Directions in which the pdfs' means vary by less, relative to that in which they vary most, are left out.
SMALLEST_VARIANCE = 1e-6

logger = logging.getLogger(__name__)


def cluster_leaders(
    source: FrameSource, speakers: Mapping[str, Sequence[StoredUtterance]], clusters: int
) -> dict[str, str]:
    """The leader of each speaker's cluster: its first speaker.

    Args:
        source: The training frames.
        speakers: Utterances of each speaker, each speaker with a frame that has a target.
        clusters: Number of clusters; speakers who are exactly alike are not parted, so that there may be fewer.

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
    sizes = sorted(Counter(numbers).values())
    logger.info("%d speakers in %d clusters, of %d to %d", len(speakers), len(sizes), sizes[0], sizes[-1])
    first: dict[int, str] = {}
    return {speaker: first.setdefault(number, speaker) for speaker, number in zip(speakers, numbers, strict=True)}


def speaker_maps(source: FrameSource, speakers: Mapping[str, Sequence[StoredUtterance]]) -> np.ndarray:
    """V^s of each speaker as a row, shape (S, D Z), float64; Z is the number of directions that are kept, and one."""
    pdfs, dimension = int(source.targets.max()) + 1, source.features.shape[1]
    sums, counts = torch.zeros(pdfs, dimension, dtype=torch.float64), torch.zeros(pdfs, dtype=torch.float64)
    for utterances in speakers.values():
        for frames, targets in _frames(source, utterances):
            sums.index_add_(0, targets, frames)
            counts += torch.bincount(targets, minlength=pdfs)
    means = sums / counts.clamp(min=1.0)[:, None]
    z = _whitened(means, counts)
    maps = []
    for utterances in speakers.values():
        gram, cross = z.new_zeros(z.shape[1], z.shape[1]), z.new_zeros(z.shape[1], dimension)
        heard = 0
        for frames, targets in _frames(source, utterances):
            said = z[targets]
            gram += said.T @ said
            cross += said.T @ (frames - means[targets])
            heard += len(frames)
        ridge = RIDGE * torch.eye(len(gram), dtype=torch.float64)
        maps.append(torch.linalg.solve(gram / heard + ridge, cross / heard).flatten())
    return torch.stack(maps).numpy()


def _frames(source: FrameSource, utterances: Sequence[StoredUtterance]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames of each utterance that have a target, shape (T, D), float64, and their targets (T,)."""
    for utterance in utterances:
        targets = torch.from_numpy(source.targets[utterance.rows]).long()
        frames = torch.from_numpy(source.features[utterance.rows]).double()
        yield frames[targets >= 0], targets[targets >= 0]


def _whitened(means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """z of each pdf, shape (K, Z): the means (K, D) centred and whitened over all frames, and 1."""
    share = (counts / counts.sum())[:, None]
    centred = means - (share * means).sum(0)
    values, vectors = torch.linalg.eigh(centred.T @ (share * centred))
    kept = values > SMALLEST_VARIANCE * values[-1]
    whitened = centred @ (vectors[:, kept] / values[kept].sqrt())
    return torch.cat([whitened, torch.ones(len(means), 1, dtype=torch.float64)], dim=1)
