"""One Gaussian for each pdf of a tree, from the statistics that the tree was built from: no pass over the data."""

from __future__ import annotations

import logging

import numpy as np
import torch

from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.gmm import MIN_GAUSSIAN_FRAMES, DiagonalGmm, GmmStatistics
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.hmm.tree_statistics import TreeStatistics

logger = logging.getLogger(__name__)


def pdf_statistics(statistics: TreeStatistics, topology: ContextDependency) -> GmmStatistics:
    """Statistics of each pdf's frames, as of one Gaussian a pdf.

    Args:
        statistics: Statistics of the states of triphones.
        topology: Any topology of the same phones.

    Raises:
        AlignmentError: The statistics are of another phone set.
    """
    pdfs = AlignedPhones(*statistics.contexts.T).pdfs(topology)
    sums = np.zeros((topology.pdf_count, statistics.sums.shape[1]))
    np.add.at(sums, pdfs, statistics.sums)
    dimension = sums.shape[1] // 2
    occupancy, first, second = torch.from_numpy(sums).split([1, dimension, dimension], dim=1)
    return GmmStatistics(occupancy.squeeze(1), first, second)


def single_gaussians(statistics: GmmStatistics) -> DiagonalGmm:
    """The model with the maximum likelihood Gaussian of each pdf; a pdf with too few frames gets that of all frames.

    Args:
        statistics: Statistics of ``pdf_statistics``.
    """
    frames = statistics.occupancy.sum()
    mean = statistics.first.sum(0) / frames
    variance = statistics.second.sum(0) / frames - mean.square()
    rare = torch.nonzero(statistics.occupancy < MIN_GAUSSIAN_FRAMES).flatten().tolist()
    if rare:
        logger.warning(
            "%d pdfs have fewer than %g frames, and begin as the Gaussian of all frames: %s",
            len(rare), MIN_GAUSSIAN_FRAMES, ", ".join(map(str, rare[:10])),
        )  # fmt: skip
    return DiagonalGmm.flat(mean, variance, len(statistics.occupancy)).update(statistics)
