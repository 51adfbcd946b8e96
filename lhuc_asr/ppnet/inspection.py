"""What the gates of a trained network say of groups of users: each group's mean amplitudes, and who differs.

    d_gl = mean over the group's examples of delta_l - the mean over all examples          shape (units of layer l,)
    deviation_g = root mean square of d_gl over all gated units

Where how much each group differs is known, as of a synthetic corpus, the rank correlation (Spearman) of the deviations
with what is known tells how well the groups that differ are recovered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from lhuc_asr.base.atomic import DamagedFileError, read_json, write_json
from lhuc_asr.base.errors import ScoreError
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.ranker_folder import Ranker
from lhuc_asr.ppnet.schema import SINGLE
from lhuc_asr.ppnet.vocabulary import UNSEEN


@dataclass(frozen=True)
class GateReport:
    """Mean amplitudes of groups of examples.

    Attributes:
        feature: The feature by whose categories the examples are grouped.
        groups: Names of the G groups.
        examples: Of each group, shape (G,).
        means: Mean amplitude of each group, by the gate's name, shape (G, units).
        overall: Mean amplitude of all examples, by the gate's name, shape (units,).
    """

    feature: str
    groups: tuple[str, ...]
    examples: np.ndarray
    means: dict[str, np.ndarray]
    overall: dict[str, np.ndarray]

    def deviations(self) -> np.ndarray:
        """How far each group is from the mean of all, shape (G,)."""
        distances = np.concatenate([found - self.overall[name] for name, found in self.means.items()], axis=1)
        result: np.ndarray = np.sqrt((distances**2).mean(axis=1))
        return result

    def save(self, path: Path) -> None:
        """Write JSON, for the figure and for other programs, the group that deviates most first."""
        deviations = self.deviations()
        order = np.argsort(-deviations, kind="stable")
        content = {
            "feature": self.feature,
            "overall": {name: found.tolist() for name, found in self.overall.items()},
            "groups": [
                {
                    "name": self.groups[place],
                    "examples": int(self.examples[place]),
                    "deviation": float(deviations[place]),
                    "amplitudes": {name: found[place].tolist() for name, found in self.means.items()},
                }
                for place in order
            ],
        }
        write_json(path, content)


def inspect_gates(ranker: Ranker, batches: Iterable[Batch], by: str, device: torch.device) -> GateReport:
    """Mean amplitudes by the categories of a feature.

    Args:
        ranker: A network with gates.
        batches: The examples to look at.
        by: A feature of kind ``id`` or ``category``.
        device: Where the network runs.

    Raises:
        ScoreError: There is no such feature, or the network has no gates.
    """
    singles = {feature.name: feature for feature in ranker.schema.features if feature.kind in SINGLE}
    if by not in singles:
        raise ScoreError(f"{by!r} is no feature of kind id or category; there are {', '.join(singles)}")
    table = str(singles[by].table)
    network = ranker.network.to(device).eval()
    sums: dict[str, torch.Tensor] = {}
    counts = torch.zeros(ranker.vocabularies.rows[table], dtype=torch.float64)
    for batch in batches:
        rows = batch.ids[by]
        counts += torch.bincount(rows, minlength=len(counts))
        with torch.no_grad():
            found = network.gates(batch.to(device))
        for name, amplitudes in found.items():
            amplitudes = amplitudes.double().cpu()
            if name not in sums:
                sums[name] = torch.zeros(len(counts), amplitudes.shape[1], dtype=torch.float64)
            sums[name].index_add_(0, rows, amplitudes)
    if not sums:
        raise ScoreError(f"a network of kind {network.config.kind!r} has no gates to inspect")
    seen = counts > 0
    names = _row_names(ranker, table)
    return GateReport(
        by,
        tuple(names[row] for row in seen.nonzero()[:, 0].tolist()),
        counts[seen].numpy(),
        {name: (found[seen] / counts[seen, None]).numpy() for name, found in sums.items()},
        {name: (found.sum(0) / counts.sum()).numpy() for name, found in sums.items()},
    )


def rank_correlation(report: GateReport, known: dict[str, float]) -> tuple[float, float]:
    """Spearman's rho of the groups' deviations with how much they are known to differ, and its p-value.

    Raises:
        ScoreError: A group is not known, or all are known to be alike.
    """
    unknown = [name for name in report.groups if name not in known]
    if unknown:
        raise ScoreError(f"of {len(unknown)} groups it is not known how much they differ, as of {unknown[0]!r}")
    amounts = np.array([known[name] for name in report.groups])
    if np.ptp(amounts) == 0.0:
        raise ScoreError("all groups are known to differ by the same amount: there is no order to recover")
    found = stats.spearmanr(report.deviations(), amounts)
    return float(found.statistic), float(found.pvalue)


def read_known(path: Path) -> dict[str, float]:
    """How much each group differs: the root mean square of its scales' distance from 1.

    Args:
        path: JSON, from the name of a group to its scales, as ``write_synthetic`` leaves it in ``scales.json``.

    Raises:
        DamagedFileError: It is something else.
    """
    content: Any = read_json(path)
    try:
        return {
            str(name): float(np.sqrt(np.mean((np.asarray(scales, np.float64) - 1.0) ** 2)))
            for name, scales in content.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path}: expected each group's list of scales ({error})") from error


def _row_names(ranker: Ranker, table: str) -> dict[int, str]:
    """Names of a table's rows."""
    buckets = ranker.vocabularies.buckets.get(table)
    if buckets is not None:
        return {row: f"bucket {row}" for row in range(1, buckets + 1)}
    return {UNSEEN: "(unseen)"} | {row: name for name, row in ranker.vocabularies.categories[table].items()}
