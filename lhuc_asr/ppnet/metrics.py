"""Figures of predicted probabilities: how well they rank examples, and how well they are calibrated.

    AUC                 probability that a random positive is ranked above a random negative; a tie counts half
    GAUC                AUC of each user's own examples, averaged with the number of the user's examples as weight
    log loss            mean of -log p(label), nats per example
    calibration         sum of probabilities / sum of labels: 1 where as many clicks came as were predicted
    calibration error   mean distance of probability and share of clicks over bins of equally many examples

GAUC leaves out users whose labels are all equal, as an AUC needs both, and examples whose user is missing. Source:
G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, section 6.2, whose weight is a
user's impressions too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.batch import NO_USER

with extra("rank"):
    from sklearn.metrics import log_loss, roc_auc_score

CALIBRATION_BINS = 20

Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TaskMetrics:
    """The figures of one task, as this module's description defines them.

    Attributes:
        auc: AUC; None where all labels are equal.
        gauc: GAUC; None where the labels of each user are equal.
        log_loss: Log loss, nats per example.
        calibration: Calibration; None where no label is 1.
        calibration_error: Calibration error, over bins of equally many examples.
        examples: Number of examples.
    """

    auc: float | None
    gauc: float | None
    log_loss: float
    calibration: float | None
    calibration_error: float
    examples: int


def task_metrics(labels: Numbers, probabilities: Numbers, users: npt.NDArray[np.integer]) -> TaskMetrics:
    """The figures of one task.

    Args:
        labels: 0 or 1, shape (N,).
        probabilities: Probabilities of label 1, shape (N,).
        users: Number of each example's user, shape (N,); ``NO_USER`` where the user is missing.

    Raises:
        ScoreError: There are no examples, or a probability is not a number.
    """
    if not len(labels):
        raise ScoreError("no examples to evaluate on: is the split empty?")
    if not np.isfinite(probabilities).all():
        bad = int(np.flatnonzero(~np.isfinite(probabilities))[0])
        raise ScoreError(f"example {bad} (counted from 0) has probability {probabilities[bad]}: the model diverged")
    probabilities = np.asarray(probabilities, np.float64)
    positives = float(labels.sum())
    both = 0 < positives < len(labels)
    known = users != NO_USER
    return TaskMetrics(
        auc=float(roc_auc_score(labels, probabilities)) if both else None,
        gauc=gauc(labels[known], probabilities[known], users[known]) if known.any() else None,
        log_loss=float(log_loss(labels, probabilities, labels=[0, 1])),
        calibration=float(probabilities.sum() / positives) if positives else None,
        calibration_error=calibration_error(labels, probabilities),
        examples=len(labels),
    )


def gauc(labels: Numbers, scores: Numbers, users: npt.NDArray[np.integer]) -> float | None:
    """AUC by user, weighted by the user's number of examples; None where no user has both labels.

    Args:
        labels: 0 or 1, shape (N,).
        scores: Scores, larger for a likelier 1, shape (N,).
        users: Number of each example's user, shape (N,).

    Example:
        >>> gauc(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.3, 0.3]), np.array([5, 5, 8, 8]))
        0.75
    """
    _, aucs, examples = user_aucs(labels, scores, users)
    both = ~np.isnan(aucs)
    return float(np.average(aucs[both], weights=examples[both])) if both.any() else None


def user_aucs(
    labels: Numbers, scores: Numbers, users: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """AUC of each user's own examples.

    Args:
        labels: 0 or 1, shape (N,).
        scores: Scores, larger for a likelier 1, shape (N,).
        users: Number of each example's user, shape (N,).

    Returns:
        The users' numbers, ascending, their AUC, and their number of examples, shape (U,) each. A user's AUC is the
        Mann-Whitney statistic of the user's examples: for P positives among n examples with ranks from 1, ties sharing
        their mean rank, (sum of the positives' ranks - P (P + 1) / 2) / (P (n - P)); NaN where P is 0 or n.
    """
    order = np.lexsort((scores, users))
    labels, scores, users = labels[order], scores[order], users[order]
    first_of_user = np.append(True, users[1:] != users[:-1])
    first_of_tie = first_of_user | np.append(True, scores[1:] != scores[:-1])
    user, tie = np.cumsum(first_of_user) - 1, np.cumsum(first_of_tie) - 1
    # Places from 0 in the whole order, a tie's in its middle; then ranks from 1 within the user.
    places = np.flatnonzero(first_of_tie) + (np.bincount(tie) - 1) / 2
    ranks = places[tie] - np.flatnonzero(first_of_user)[user] + 1
    examples, positives = np.bincount(user), np.bincount(user, labels)
    pairs = positives * (examples - positives)
    wins = np.bincount(user, ranks * labels) - positives * (positives + 1) / 2
    aucs = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return users[first_of_user], aucs, examples


def calibration_error(labels: Numbers, probabilities: Numbers, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between mean probability and share of ones, over bins of equally many examples in order.

    Examples with the same probability each count with their common share of ones, since it is chance which bin they
    fall into.
    """
    _, tie = np.unique(probabilities, return_inverse=True)
    labels = (np.bincount(tie, labels) / np.bincount(tie))[tie]
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    distances = [abs(float(probabilities[part].mean() - labels[part].mean())) for part in parts]
    return float(np.average(distances, weights=[len(part) for part in parts]))
