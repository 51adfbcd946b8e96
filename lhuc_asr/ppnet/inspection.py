"""The gates of a trained network by groups of users: mean amplitudes of each group, and how far they deviate.

    d_gl = mean over the group's examples of delta_l - the mean over all examples          shape (units of layer l,)
    deviation_g = root mean square of d_gl over all gated units

In a synthetic corpus it is known how much each group differs. The rank correlation (Spearman) of the deviations with
the known amounts tells how well the groups that differ are recovered.
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
        feature: Name of the field by whose categories the examples are grouped.
        groups: Names of the G groups.
        examples: Number of examples of each group, shape (G,).
        means: Mean amplitudes of each group, by the gate's name, shape (G, units).
        overall: Mean amplitudes of all examples, by the gate's name, shape (units,).
    """

    feature: str
    groups: tuple[str, ...]
    examples: np.ndarray
    means: dict[str, np.ndarray]
    overall: dict[str, np.ndarray]

    def deviations(self) -> np.ndarray:
        """Distance of each group from the mean of all examples, shape (G,)."""
        distances = np.concatenate([means - self.overall[name] for name, means in self.means.items()], axis=1)
        result: np.ndarray = np.sqrt((distances**2).mean(axis=1))
        return result

    def save(self, path: Path) -> None:
        """Write JSON, for the figure and for other programs; the group that deviates most comes first."""
        deviations = self.deviations()
        order = np.argsort(-deviations, kind="stable")
        content = {
            "feature": self.feature,
            "overall": {name: means.tolist() for name, means in self.overall.items()},
            "groups": [
                {
                    "name": self.groups[place],
                    "examples": int(self.examples[place]),
                    "deviation": float(deviations[place]),
                    "amplitudes": {name: means[place].tolist() for name, means in self.means.items()},
                }
                for place in order
            ],
        }
        write_json(path, content)


def inspect_gates(ranker: Ranker, batches: Iterable[Batch], by: str, device: torch.device) -> GateReport:
    """Mean amplitudes by the categories of a field.

    Args:
        ranker: A ranker whose network has gates.
        batches: The examples to inspect.
        by: Name of a field of kind ``id`` or ``category``.
        device: Device of the network.

    Raises:
        ScoreError: The schema does not have the field, or the network has no gates.
    """
    singles = {feature.name: feature for feature in ranker.schema.features if feature.kind in SINGLE}
    if by not in singles:
        raise ScoreError(f"{by!r} is not a feature of kind id or category, expected one of {', '.join(singles)}")
    table = str(singles[by].table)
    network = ranker.network.to(device).eval()
    sums: dict[str, torch.Tensor] = {}
    counts = torch.zeros(ranker.vocabularies.rows[table], dtype=torch.float64)
    for batch in batches:
        rows = batch.ids[by]
        counts += torch.bincount(rows, minlength=len(counts))
        with torch.no_grad():
            gates = network.gates(batch.to(device))
        for name, amplitudes in gates.items():
            amplitudes = amplitudes.double().cpu()
            if name not in sums:
                sums[name] = torch.zeros(len(counts), amplitudes.shape[1], dtype=torch.float64)
            sums[name].index_add_(0, rows, amplitudes)
    if not sums:
        raise ScoreError(f"a model of kind {network.kind!r} has no gates to inspect")
    seen = counts > 0
    names = _row_names(ranker, table)
    return GateReport(
        by,
        tuple(names[row] for row in seen.nonzero()[:, 0].tolist()),
        counts[seen].numpy(),
        {name: (total[seen] / counts[seen, None]).numpy() for name, total in sums.items()},
        {name: (total.sum(0) / counts.sum()).numpy() for name, total in sums.items()},
    )


def rank_correlation(report: GateReport, known: dict[str, float]) -> tuple[float, float]:
    """Spearman's rho of the groups' deviations with the known amounts, and its p-value.

    Args:
        report: The inspection.
        known: Amount by which each group differs, by the group's name.

    Raises:
        ScoreError: The amount of a group is not known, or all amounts are equal.
    """
    unknown = [name for name in report.groups if name not in known]
    if unknown:
        raise ScoreError(
            f"the known amounts lack {len(unknown)} groups, such as {unknown[0]!r}; give an amount for every group"
        )
    amounts = np.array([known[name] for name in report.groups])
    if np.ptp(amounts) == 0.0:
        raise ScoreError(
            "all groups are known to differ by the same amount: no order to recover; give amounts that differ"
        )
    correlation = stats.spearmanr(report.deviations(), amounts)
    return float(correlation.statistic), float(correlation.pvalue)


# Scales multiply hidden units; the square of this one still is a number.
_LARGEST_SCALE = 1e100


def read_known(path: Path) -> dict[str, float]:
    """Read the amount by which each group differs: the root mean square of its scales' distance from 1.

    Args:
        path: JSON of each group's scales, by the group's name, such as the ``scales.json`` of ``write_synthetic``.

    Raises:
        DamagedFileError: The file holds something else.
    """
    content: Any = read_json(path)
    try:
        return {name: _amount(np.asarray(scales, np.float64)) for name, scales in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{path}: expected a list of scales for each group ({error}); give the scales.json of a synthetic corpus"
        ) from error


def _amount(scales: np.ndarray) -> float:
    if not scales.size or not np.abs(scales).max() <= _LARGEST_SCALE:
        raise ValueError(f"no scales, or one that is not a number up to {_LARGEST_SCALE:g}")
    return float(np.sqrt(np.mean((scales - 1.0) ** 2)))


def _row_names(ranker: Ranker, table: str) -> dict[int, str]:
    """The names of a table's rows."""
    buckets = ranker.vocabularies.buckets.get(table)
    if buckets is not None:
        return {row: f"bucket {row}" for row in range(1, buckets + 1)}
    return {UNSEEN: "(unseen)"} | {row: name for name, row in ranker.vocabularies.categories[table].items()}
