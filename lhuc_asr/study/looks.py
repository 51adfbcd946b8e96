"""Experiments that make no new pass: they look at what one of the recipe's passes did."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lhuc_asr.adapt.lhuc import LhucSpeakers
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.features.context import splice
from lhuc_asr.features.store import FeatureStore, StoredUtterance
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.topology import load as load_topology
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, SpeakerState
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE, reference_targets
from lhuc_asr.pipeline.config import ExperimentConfig, first_pass
from lhuc_asr.pipeline.experiment import last_alignment
from lhuc_asr.pipeline.passes import ALIGNMENT_FILE, WER_FILE, load_speakers, network_of, pass_shares
from lhuc_asr.score.figures import save_figure
from lhuc_asr.score.speaker_figures import amplitudes_figure, frames_figure, gains_figure, tsne_figure
from lhuc_asr.score.wer import read_wer

logger = logging.getLogger(__name__)

# A row of a table.
Row = dict[str, Any]

# Of the picture of hidden activations: more is slow to compute and dark to look at.
TSNE_SPEAKERS, TSNE_STATES, TSNE_FRAMES_EACH = 6, 8, 20


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Attributes:
        config: The recipe.
        layout: The experiment's folder.
        folds: Those of its folds; itself where it has none.
        split: The test split.
        name: The pass.
        figure: The file that the figure goes to.
    """

    config: ExperimentConfig
    layout: ExperimentFolder
    folds: Sequence[ExperimentFolder]
    split: str
    name: str
    figure: Path

    @property
    def before(self) -> str:
        """The first pass of the same network."""
        return first_pass(network_of(self.config, self.name))

    def of(self, **values: Any) -> Row:
        """A row of the table."""
        return {"split": self.split, "pass": self.name, **values}


@dataclass(frozen=True)
class Analysis:
    """A way to look at a pass.

    Attributes:
        title: What is looked at: the figure's title.
        paper: What the paper (Swietojanski, Li, Renals 2016) found.
        look: Writes the figure, and returns the rows of the table.
    """

    title: str
    paper: str
    look: Callable[[Look], list[Row]]


def _gains(at: Look) -> list[Row]:
    before, after = (read_wer(at.layout.decode(at.split, name) / WER_FILE) for name in (at.before, at.name))
    save_figure(gains_figure(before, after, f"{at.split}: {at.name} against {at.before}"), at.figure)
    rows = []
    for speaker, score in before.speakers.items():
        own = after.speakers[speaker]
        errors = {"errors_before": score.errors, "errors_after": own.errors}
        rows.append(at.of(speaker=speaker, words=score.words, **errors, change=own.wer - score.wer))
    return sorted(rows, key=lambda row: (row["change"], row["speaker"]))


def _spread(at: Look) -> list[Row]:
    """The figure is of the first fold: units of another fold's network are other units."""
    rows = []
    for fold in at.folds:
        speakers, layers = _read_amplitudes(fold.speakers(at.split, at.name))
        if fold is at.folds[0]:
            title = f"{at.split}: amplitudes of {at.name}, {len(speakers)} speakers"
            save_figure(amplitudes_figure(list(layers.values()), speakers, title), at.figure)
        for site, values in layers.items():
            logs = np.log(np.maximum(values, 1e-3))
            rows.append(
                at.of(
                    folder=fold.folder.name, site=site, speakers=len(speakers), units=values.shape[1],
                    mean_log=float(logs.mean()), deviation_log=float(logs.std()),
                    # Of this spread, what is the speaker's and not the unit's.
                    deviation_between_speakers=float(logs.std(axis=0).mean()),
                    least=float(values.min()), largest=float(values.max()),
                )
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


def _frames(at: Look) -> list[Row]:
    """Each speaker's frames whose best pdf is not that of the reference's alignment, beside his word errors."""
    errors: dict[str, np.ndarray] = {}  # frames, wrong before, wrong after
    for fold in at.folds:
        model, store, speakers = _adapted(at, fold)
        reference = reference_targets(at.config, fold, at.split, model, last_alignment(at.config))
        for utterance, name in _decoded_with(at, fold, store):
            pdfs = reference.get(utterance.id)
            if pdfs is None:
                continue
            spliced, counted = splice(torch.from_numpy(np.array(store[utterance.id])), model.config.context), pdfs >= 0
            wrong = [int(counted.sum())]
            for context in (nullcontext(), speakers.applied(model, name)):
                with torch.no_grad(), context:
                    best = model(spliced).argmax(1).numpy()
                wrong.append(int((best != pdfs)[counted].sum()))
            errors[utterance.speaker] = errors.get(utterance.speaker, np.zeros(3, np.int64)) + wrong
    if not errors:
        logger.warning(
            "%s: no utterance's transcript could be aligned, are its words in the lexicon? left out", at.split
        )
        return []
    before, after = (read_wer(at.layout.decode(at.split, name) / WER_FILE) for name in (at.before, at.name))
    rows = [
        at.of(
            speaker=speaker, frames=int(frames),
            frame_error_before=float(first / frames), frame_error_after=float(second / frames),
            wer_before=before.speakers[speaker].wer, wer_after=after.speakers[speaker].wer,
        )
        for speaker, (frames, first, second) in sorted(errors.items())
    ]  # fmt: skip
    first, second = ([(row[f"frame_error_{when}"], row[f"wer_{when}"]) for row in rows] for when in ("before", "after"))
    save_figure(frames_figure(first, second, f"{at.split}: {at.name} against {at.before}"), at.figure)
    return rows


def _tsne(at: Look) -> list[Row]:
    """Activations of the top hidden layer in frames of the same states, of the first fold's first speakers."""
    fold = at.folds[0]
    model, store, speakers = _adapted(at, fold)
    states = Alignment(fold.decode(at.split, at.before) / ALIGNMENT_FILE, store)
    silence = load_topology(fold.hmm(last_alignment(at.config)) / TOPOLOGY_FILE).silence_pdfs
    chosen = _common_frames(store, states, silence)
    before, after, owners = [], [], []
    for utterance, name in _decoded_with(at, fold, store):
        if frames := chosen.get(utterance.id):
            spliced = splice(torch.from_numpy(np.array(store[utterance.id])), model.config.context)[frames]
            with torch.no_grad():
                before.append(_top_layer(model, spliced))
                with speakers.applied(model, name):
                    after.append(_top_layer(model, spliced))
            owners += [(utterance.speaker, int(states[utterance.id][frame])) for frame in frames]
    title = f"{at.split}: top hidden layer, {at.before} and {at.name}"
    hidden = np.concatenate(before), np.concatenate(after)
    save_figure(tsne_figure(*hidden, owners, title, at.config.seed), at.figure)
    return [
        at.of(when=when, frames=len(owners), between_speakers=_between(values, owners))
        for when, values in zip((at.before, at.name), hidden, strict=True)
    ]


def _common_frames(store: FeatureStore, states: Alignment, silence: np.ndarray) -> dict[str, list[int]]:
    """Some frames of the states that the first speakers are in most, as many of each: by the utterances' ids."""
    utterances = [utterance for own in list(store.speakers.values())[:TSNE_SPEAKERS] for utterance in own]
    spoken = np.concatenate([states[utterance.id] for utterance in utterances])
    pdfs, counts = np.unique(spoken[(spoken >= 0) & ~np.isin(spoken, silence)], return_counts=True)
    common = pdfs[np.argsort(-counts, kind="stable")[:TSNE_STATES]].tolist()
    taken: Counter[tuple[str, int]] = Counter()
    chosen: dict[str, list[int]] = {}
    for utterance in utterances:
        for frame, pdf in enumerate(states[utterance.id].tolist()):
            if pdf in common and taken[utterance.speaker, pdf] < TSNE_FRAMES_EACH:
                taken[utterance.speaker, pdf] += 1
                chosen.setdefault(utterance.id, []).append(frame)
    return chosen


def _top_layer(model: Dnn, spliced: torch.Tensor) -> np.ndarray:
    hidden = spliced
    for layer in model.hidden:
        hidden = layer(hidden)
    return hidden.numpy()


def _between(hidden: np.ndarray, owners: Sequence[tuple[str, int]]) -> float:
    """Of the variance of frames around their state's mean, the share that is between speakers' means there."""
    total = between = 0.0
    for state in {pdf for _, pdf in owners}:
        mean = hidden[[owner[1] == state for owner in owners]].mean(axis=0)
        for speaker in {name for name, pdf in owners if pdf == state}:
            own = hidden[[owner == (speaker, state) for owner in owners]]
            total += float(np.square(own - mean).sum())
            between += len(own) * float(np.square(own.mean(axis=0) - mean).sum())
    return between / total


def _adapted(at: Look, fold: ExperimentFolder) -> tuple[Dnn, FeatureStore, LhucSpeakers]:
    model = load_model(fold.acoustic_model(network_of(at.config, at.name)) / MODEL_FILE)
    return model, FeatureStore(fold.features(at.split)), load_speakers(fold, at.split, at.name, model)


def _decoded_with(at: Look, fold: ExperimentFolder, store: FeatureStore) -> Iterator[tuple[StoredUtterance, str]]:
    """Each utterance, and the name of the amplitudes that it was decoded with."""
    for share in pass_shares(at.config, fold, at.split, at.name, store):
        for utterance in share.used_for:
            yield utterance, share.name


ANALYSES: dict[str, Analysis] = {
    "gains": Analysis(
        "Gains of all speakers in order",
        "errors fall by 7 % on average, and for 89 % of 200 speakers (figure 10)",
        _gains,
    ),
    "spread": Analysis("Amplitudes of all speakers, and their spread by layer", "not looked at", _spread),
    "frames": Analysis(
        "Frame errors and word errors of each speaker",
        "frame errors differ where word errors barely do (table II)",
        _frames,
    ),
    "tsne": Analysis("The top hidden layer before and after", "looked at, no figure given", _tsne),
}
