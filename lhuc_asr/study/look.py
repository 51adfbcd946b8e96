"""A look: a table and a figure about finished passes, without a new pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.pipeline.earlier_pass import WER_FILE
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.resolved_pass import Pass
from lhuc_asr.score.figures import save_figure
from lhuc_asr.score.wer import WerReport, read_wer

# A row of a table.
Row = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """A finished pass over a split, and the file of the figure.

    Attributes:
        folder: Folder of the experiment; in a cross-validation, the folder above those of the folds.
        folds: The experiment, or each of its folds.
        split: Name of the test split.
        plan: The pass.
        passes: All passes that were made over the split.
        max_unaligned: Maximum fraction of the references that fail to align.
        figure: File of the figure, ``<split>.png``.
        formats: Further formats of the figure.
    """

    folder: ExperimentFolder
    folds: Sequence[AlignedExperiment]
    split: str
    plan: Pass
    passes: Sequence[Pass]
    max_unaligned: float
    figure: Path
    formats: Sequence[str]

    def draw(self, figure: Any) -> None:
        """Write a figure of matplotlib in its formats."""
        save_figure(figure, self.figure, self.formats)

    @property
    def name(self) -> str:
        """Name of the pass."""
        return self.plan.name

    @property
    def before(self) -> str:
        """Name of the first pass with the same network."""
        return first_pass(self.plan.network)

    def row(self, **values: Any) -> Row:
        """A row of the table."""
        return {"split": self.split, "pass": self.name, **values}

    def wer_reports(self) -> tuple[WerReport, WerReport]:
        """Scores of the first pass and of the pass that is looked at."""
        before, after = (read_wer(self.folder.decode(self.split, name) / WER_FILE) for name in (self.before, self.name))
        return before, after


@dataclass(frozen=True)
class LookKind:
    """A table and a figure that can be made for any pass.

    Attributes:
        title: Title of the figure.
        paper: Finding of the paper (Swietojanski, Li, Renals 2016).
        look: Writes the figure and returns the rows of the table.
        of_amplitudes: Whether the pass has to estimate amplitudes.
        of_all: Whether all passes of the recipe are looked at, and not one.
    """

    title: str
    paper: str
    look: Callable[[Look], list[Row]]
    of_amplitudes: bool = False
    of_all: bool = False
