"""The influence of each user on AUC and GAUC, from which intervals over users follow.

A figure A of U users, of whom another sample could have been drawn, is to first order a sum of one number a user:

    AUC    e_u = sum over u's positives of (V - A) / P + sum over u's negatives of (W - A) / N
           V: share of the N negatives that a positive is ranked above; W: share of the P positives that are ranked
           above a negative; a tie counts half (N. Obuchowski, "Nonparametric analysis of clustered ROC curve data",
           Biometrics 53(2), 1997)
    GAUC   e_u = n_u (A_u - A) / sum of n over users with both labels, a ratio's linearisation (W. Cochran, Sampling
           Techniques, 1977, section 6.3)

The e_u sum to 0. The difference of two models on the same examples has d_u = e_u - e'_u, and the standard error

    sqrt(U / (U - 1) sum of d_u^2)

Where a model was trained with several seeds, A and e_u are averaged over them first. An example whose user is missing
is a user of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.ppnet.batch import NO_USER
from lhuc_asr.ppnet.metrics import Numbers, user_aucs

Influences = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UserInfluence:
    """Influences of U users, in the same order for all models that scored the same examples.

    Attributes:
        auc: Influence on the AUC, by the name of the label, shape (U,); NaN where the AUC is not defined.
        gauc: Influence on the GAUC, by the name of the label, shape (U,); NaN for users without both labels.
    """

    auc: dict[str, Influences]
    gauc: dict[str, Influences]

    @classmethod
    def of(
        cls, labels: Numbers, probabilities: Numbers, users: npt.NDArray[np.integer], names: Sequence[str]
    ) -> UserInfluence:
        """The influences in scored examples.

        Args:
            labels: 0 or 1, shape (N, tasks).
            probabilities: Probabilities of label 1, shape (N, tasks).
            users: Number of each example's user, shape (N,); ``NO_USER`` where the user is missing.
            names: Names of the labels.
        """
        numbers = _numbered(users)
        columns = list(zip(names, labels.T, np.asarray(probabilities, np.float64).T, strict=True))
        return cls(
            {name: auc_influence(label, scores, numbers) for name, label, scores in columns},
            {name: gauc_influence(label, scores, numbers, users != NO_USER) for name, label, scores in columns},
        )

    def save(self, path: Path) -> None:
        """Write safetensors, whole or not at all."""
        save_tensors(
            path,
            {
                f"{figure}.{name}": torch.from_numpy(values)
                for figure, by_label in (("auc", self.auc), ("gauc", self.gauc))
                for name, values in by_label.items()
            },
            {},
        )

    @classmethod
    def load(cls, path: Path, names: Sequence[str]) -> UserInfluence:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: The file is missing or damaged, or lacks a label.
        """
        tensors, _ = load_tensors(path)
        try:
            return cls(
                {name: tensors[f"auc.{name}"].numpy() for name in names},
                {name: tensors[f"gauc.{name}"].numpy() for name in names},
            )
        except KeyError as error:
            raise CheckpointError(f"{path}: lacks {error}; delete it and run its stage again") from error


@dataclass(frozen=True, slots=True)
class UserTest:
    """A difference between two models over users.

    Attributes:
        interval: 95 % interval, by Student's t with U - 1 degrees of freedom.
        p_value: Two-sided p.
        users: Number of users that the figure is made of, U.
    """

    interval: tuple[float, float]
    p_value: float
    users: int


def user_test(difference: float, first: Influences, second: Influences) -> UserTest | None:
    """The interval and the p of a difference over users.

    Args:
        difference: The first model's figure less the second's.
        first: The first model's influences, shape (U,); NaN for users that the figure is not made of.
        second: The second model's, in the same order.

    Returns:
        None where fewer than two users make the figure, or no user's ranking differs.
    """
    changes = (first - second)[~np.isnan(first - second)]
    users = len(changes)
    if users < 2 or not changes.any():
        return None
    error = float(np.sqrt(users / (users - 1) * np.square(changes).sum()))
    half = float(stats.t.ppf(0.975, users - 1)) * error
    p_value = float(2 * stats.t.sf(abs(difference) / error, users - 1))
    return UserTest((difference - half, difference + half), p_value, users)


def auc_influence(labels: Numbers, scores: Numbers, users: npt.NDArray[np.integer]) -> Influences:
    """Influence of each user on the AUC, shape (U,).

    Args:
        labels: 0 or 1, shape (N,).
        scores: Scores, larger for a likelier 1, shape (N,).
        users: Number of each example's user, from 0 to U - 1, shape (N,).
    """
    positive = labels > 0
    count, ones = len(labels), int(positive.sum())
    if not 0 < ones < count:
        return np.full(int(users.max()) + 1, np.nan)
    ranks, share = stats.rankdata(scores), np.empty(count)
    # Rank among all less rank among one's own: the number of the others below, ties half.
    share[positive] = (ranks[positive] - stats.rankdata(scores[positive])) / (count - ones)
    share[~positive] = 1.0 - (ranks[~positive] - stats.rankdata(scores[~positive])) / ones
    auc = share[positive].mean()
    parts = (share - auc) / np.where(positive, ones, count - ones)
    return np.asarray(np.bincount(users, parts), np.float64)


def gauc_influence(
    labels: Numbers, scores: Numbers, users: npt.NDArray[np.integer], known: npt.NDArray[np.bool_]
) -> Influences:
    """Influence of each user on the GAUC, shape (U,).

    Args:
        labels: 0 or 1, shape (N,).
        scores: Scores, larger for a likelier 1, shape (N,).
        users: Number of each example's user, from 0 to U - 1, shape (N,).
        known: Whether the example's user is not missing, shape (N,).
    """
    influence = np.full(int(users.max()) + 1, np.nan)
    if known.any():
        names, aucs, examples = user_aucs(labels[known], scores[known], users[known])
        both = ~np.isnan(aucs)
        if both.any():
            weights = examples[both] / examples[both].sum()
            influence[names[both]] = weights * (aucs[both] - np.average(aucs[both], weights=weights))
    return influence


def _numbered(users: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Users numbered from 0; each example without a user is one."""
    own = np.array(users, np.int64)
    missing = own == NO_USER
    own[missing] = NO_USER - np.arange(int(missing.sum()))
    return np.asarray(np.unique(own, return_inverse=True)[1], np.int64)
