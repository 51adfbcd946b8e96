"""Experiments that make no new pass: they look at what the recipe's passes did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, SpeakerState
from lhuc_asr.pipeline.experiment import Layout
from lhuc_asr.pipeline.passes import WER_FILE
from lhuc_asr.pipeline.recipe import SI
from lhuc_asr.score.figures import save_figure
from lhuc_asr.score.speaker_figures import amplitudes_figure, gains_figure
from lhuc_asr.score.wer import read_wer

# A row of a table.
Row = dict[str, object]


@dataclass(frozen=True)
class Analysis:
    """A look at one pass.

    Attributes:
        title: What is looked at: the figure's title.
        look: The experiment's folder, those of its folds (itself where it has none), split, pass, and the path of the
            figure to write -> rows of the table.
    """

    title: str
    look: Callable[[Layout, Sequence[Layout], str, str, Path], list[Row]]


def _gains(layout: Layout, folds: Sequence[Layout], split: str, name: str, figure: Path) -> list[Row]:
    before, after = (read_wer(layout.decode(split, which) / WER_FILE) for which in (SI, name))
    save_figure(gains_figure(before, after, f"{split}: {name} against {SI}"), figure)
    rows: list[Row] = []
    for speaker, score in before.speakers.items():
        own = after.speakers[speaker]
        rows.append(
            {
                "split": split, "pass": name, "speaker": speaker, "words": score.words,
                "errors_before": score.errors, "errors_after": own.errors, "change": own.wer - score.wer,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row["change"], row["speaker"]))


def _amplitudes(layout: Layout, folds: Sequence[Layout], split: str, name: str, figure: Path) -> list[Row]:
    """The figure is of the first fold: units of another fold's network are other units."""
    rows: list[Row] = []
    for fold in folds:
        speakers, layers = _read_amplitudes(fold.speakers(name, split))
        if fold is folds[0]:
            title = f"{split}: amplitudes of {name}, {len(speakers)} speakers"
            save_figure(amplitudes_figure(list(layers.values()), speakers, title), figure)
        for site, values in layers.items():
            logs = np.log(np.maximum(values, 1e-3))
            rows.append(
                {
                    "split": split, "pass": name, "folder": fold.folder.name, "site": site, "speakers": len(speakers),
                    "units": values.shape[1], "mean_log": float(logs.mean()), "deviation_log": float(logs.std()),
                    # Of this spread, what is the speaker's and not the unit's.
                    "deviation_between_speakers": float(logs.std(axis=0).mean()),
                    "least": float(values.min()), "largest": float(values.max()),
                }
            )  # fmt: skip
    return rows


def _read_amplitudes(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the speakers of a pass, and their amplitudes at each site, shape (S, H)."""
    states = [SpeakerState.load(path) for path in sorted(folder.glob("*.safetensors"))]
    states = [state for state in states if state.speaker != SPEAKER_INDEPENDENT]
    layers = {
        site.name: np.stack([amplitude(state.amplitude)(state.r[site.name]).numpy() for state in states])
        for site in states[0].sites
    }
    return [state.speaker for state in states], layers


ANALYSES: dict[str, Analysis] = {
    "gains": Analysis("Gains of all speakers in order", _gains),
    "spread": Analysis("Amplitudes of all speakers, and their spread by layer", _amplitudes),
}
