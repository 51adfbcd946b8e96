"""The stages of a run before they are run: their number, which of them are finished, and the time that is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.atomic import DamagedFileError, read_json_lines


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run that has not come to it yet.

    Attributes:
        name: Name of the stage.
        finished: Whether the stage would be skipped.
        seconds: Time that it took in an earlier run, maybe with other options; None where no run came to its end.
        depends: Whether a stage that is not finished will be skipped if those before it make the same files again.
    """

    name: str
    finished: bool
    seconds: float | None
    depends: bool = False


def seconds_left(stages: Iterable[PlannedStage]) -> float | None:
    """Time that the unfinished stages take; None where it is not known of one of them."""
    times = [stage.seconds for stage in stages if not stage.finished]
    known = [seconds for seconds in times if seconds is not None]
    return sum(known) if len(known) == len(times) else None


def recorded_seconds(metrics: Sequence[Path]) -> dict[str, float]:
    """Time that each stage took when it was last run, in seconds, by its name.

    Args:
        metrics: Files ``metrics.jsonl`` of experiments with the same stages; the later ones count more. A file that is
            missing or damaged says nothing.
    """
    seconds: dict[str, float] = {}
    for path in metrics:
        # The rows of epochs have seconds too, and other figures.
        rows = (row for row in _rows(path) if row.keys() == {"stage", "time", "seconds"})
        seconds |= {row["stage"]: row["seconds"] for row in rows}
    return seconds


def recorded_epochs(metrics: Path) -> dict[str, list[float]]:
    """Time of each epoch of the last training in each stage of an experiment, in seconds, by the stage's name.

    Args:
        metrics: File ``metrics.jsonl`` of the experiment; if it is missing or damaged it says nothing.
    """
    epochs: dict[str, list[float]] = {}
    for row in _rows(metrics):
        if "epoch" in row:
            earlier = epochs.get(row["stage"], [])[: row["epoch"] - 1]  # training may have begun again
            epochs[row["stage"]] = [*earlier, row["seconds"]]
    return epochs


def _rows(metrics: Path) -> list[dict[str, Any]]:
    try:
        return list(read_json_lines(metrics))
    except (OSError, DamagedFileError):
        return []


def about(seconds: float) -> str:
    """A time in words, as exactly as an estimate deserves.

    Example:
        >>> about(8), about(52), about(80), about(400), about(9000)
        ('a few seconds', 'about 50 seconds', 'about a minute', 'about 7 minutes', 'about 2.5 hours')
    """
    if seconds < 15:
        return "a few seconds"
    if seconds < 57:
        return f"about {round(seconds, -1):.0f} seconds"
    if seconds < 90:
        return "about a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
