"""The errors of each speaker in each pass of finished experiments, as one table, and comparisons of its passes.

    python benchmarks/by_speaker.py write TABLE.csv EXP...            # folds, each with speakers of its own
    python benchmarks/by_speaker.py compare TABLE.csv PASS:BASE...    # a line of a table in Markdown for each pair

A table is small enough to keep where experiments are not, and what was pooled from folds can be computed again from it:
p is that of the recipes (``score/significance.py``), and intervals are, but for the signs that are drawn. The
matched-pairs test needs recordings, and is not made.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.score.significance import ratio_interval, sign_flip_p

SPLIT = "test"
FIRST = ("speaker", "words")


def write(table: Path, experiments: list[Path]) -> None:
    """Add the speakers and passes of experiments to a table; errors that are there already are replaced."""
    rows = {row["speaker"]: row for row in _read(table)} if table.exists() else {}
    for experiment in experiments:
        for path in sorted((experiment / "decode" / SPLIT).glob("*/wer.json")):
            for speaker, figures in json.loads(path.read_text(encoding="utf-8"))["speakers"].items():
                row = rows.setdefault(speaker, {"speaker": speaker, "words": str(figures["words"])})
                row[path.parent.name] = str(figures["errors"])
    passes = sorted({name for row in rows.values() for name in row} - set(FIRST))
    with atomic_path(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*FIRST, *passes), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[speaker] for speaker in sorted(rows))


def compare(table: Path, pairs: list[str]) -> None:
    """Print a comparison of each pass with its base, over the speakers that both have."""
    rows = _read(table)
    for pair in pairs:
        name, _, base = pair.partition(":")
        own = [row for row in rows if row[name] and row[base]]
        after, before = (np.array([int(row[each]) for row in own]) for each in (name, base))
        words = sum(int(row["words"]) for row in own)
        low, high = ratio_interval(before, after, np.random.default_rng(0))
        change = after - before
        counts = f"{(change < 0).sum()} / {(change > 0).sum()} / {(change == 0).sum()}"
        sys.stdout.write(
            f"| `{name}` | {after.sum()} | {100 * after.sum() / words:.2f} % | `{base}` {before.sum()} | "
            f"{100 * (after.sum() / before.sum() - 1):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] % | "
            f"{sign_flip_p(change):.2g} | {counts} | {len(own)} |\n"
        )


def _read(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    verb, path, *names = sys.argv[1:]
    if verb == "write":
        write(Path(path), [Path(name) for name in names])
    else:
        compare(Path(path), names)
