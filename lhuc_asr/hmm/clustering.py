"""Bottom-up clustering by likelihood: the pair whose merge loses least is merged first (Kaldi's ClusterBottomUp)."""

from __future__ import annotations

import numpy as np

from lhuc_asr.hmm.tree_statistics import log_likelihoods


def merges(sums: np.ndarray, most_loss: float = np.inf) -> list[tuple[int, int]]:
    """Merge clusters until one is left, or every further merge would lose too much.

    Args:
        sums: Frames, sums and sums of squares of each cluster, as in ``TreeStatistics``, shape (N, 1 + 2 D).
        most_loss: Log-likelihood that each merge has to lose less of.

    Returns:
        The merges in their order: (i, j) puts all of cluster j into cluster i, where i < j.
    """
    sums = sums.copy()
    likelihood = log_likelihoods(sums)
    loss = np.full((len(sums), len(sums)), np.inf)  # of the pair (i, j), in the upper triangle
    for i in range(len(sums)):
        loss[i, i + 1 :] = likelihood[i] + likelihood[i + 1 :] - log_likelihoods(sums[i] + sums[i + 1 :])
    result: list[tuple[int, int]] = []
    while len(result) < len(sums) - 1:
        i, j = divmod(int(loss.argmin()), len(sums))
        if loss[i, j] >= most_loss:
            break
        result.append((i, j))
        sums[i] += sums[j]
        likelihood[i] = log_likelihoods(sums[i])
        loss[j] = loss[:, j] = np.inf
        merged = likelihood[i] + likelihood - log_likelihoods(sums[i] + sums)
        loss[i] = np.where(np.isfinite(loss[i]), merged, np.inf)
        loss[:, i] = np.where(np.isfinite(loss[:, i]), merged, np.inf)
    return result
