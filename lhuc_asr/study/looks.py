"""The table of looks: each is a table and a figure about one finished pass of the recipe, without a new pass."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.earlier_pass import ALIGNMENT_FILE, sets_of, speakers_of, two_pass
from lhuc_asr.pipeline.transcripts import reference_pdfs
from lhuc_asr.recognizer.speaker_files import files_of_speakers
from lhuc_asr.score.significance import compare
from lhuc_asr.score.speaker_figures import amplitudes_figure, frames_figure, gains_figure, tsne_figure
from lhuc_asr.study.look import Look, LookKind, Row
from lhuc_asr.study.scales import scales

logger = logging.getLogger(__name__)

# Limits of the figure of hidden activations: with more points it is slow to compute, and too crowded.
TSNE_SPEAKERS, TSNE_STATES, TSNE_FRAMES_EACH = 6, 8, 20


def _gains(look: Look) -> list[Row]:
    """Each speaker's word errors before and after adaptation, in the order of the gains."""
    before, after = look.wer_reports()
    comparison = compare(before, after, np.random.default_rng(look.plan.seed))
    look.draw(gains_figure(before, after, comparison, f"{look.split}: {look.name} against {look.before}"))
    rows = []
    for speaker, score in before.speakers.items():
        own = after.speakers[speaker]
        errors = {"errors_before": score.errors, "errors_after": own.errors}
        rows.append(look.row(speaker=speaker, words=score.words, **errors, change=own.wer - score.wer))
    return sorted(rows, key=lambda row: (row["change"], row["speaker"]))


def _spread(look: Look) -> list[Row]:
    """The spread of each layer's amplitudes.

    The figure shows only the first fold, because the networks of two folds do not have the same units.
    """
    rows = []
    for fold in look.folds:
        speakers, layers = read_amplitudes(fold.folder.speakers(look.split, look.name))
        if fold is look.folds[0]:
            title = f"{look.split}: amplitudes of {look.name}, {len(speakers)} speakers"
            look.draw(amplitudes_figure(list(layers.values()), speakers, title))
        for site, values in layers.items():
            logs = np.log(np.maximum(values, 1e-3))
            rows.append(
                look.row(
                    folder=fold.folder.folder.name, site=site, speakers=len(speakers), units=values.shape[1],
                    mean_log=float(logs.mean()), deviation_log=float(logs.std()),
                    # The spread between speakers alone, without that between units.
                    deviation_between_speakers=float(logs.std(axis=0).mean()),
                    least=float(values.min()), largest=float(values.max()),
                )
            )  # fmt: skip
    return rows


def read_amplitudes(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the speakers of a pass, and their amplitudes at each site, shape (S, H)."""
    states = [file.amplitudes for file in files_of_speakers([folder]) if file.amplitudes is not None]
    layers = {
        site.name: np.stack([amplitude(state.amplitude)(state.r[site.name]).numpy() for state in states])
        for site in states[0].sites
    }
    return [state.speaker for state in states], layers


def _frames(look: Look) -> list[Row]:
    """Each speaker's frame errors beside their word errors; a frame is wrong if its best pdf is not the reference's."""
    errors: dict[str, np.ndarray] = {}  # frames, wrong before, wrong after
    for fold in look.folds:
        loop = two_pass(fold, look.split, look.plan)
        speakers = speakers_of(fold, look.split, look.plan, loop.model)
        sets = sets_of(fold, look.split, look.plan, loop.features)
        reference = reference_pdfs(fold, look.split, look.plan.place or ModelPlace(), loop.model, look.max_unaligned)
        log_prior = loop.model.log_prior.cpu().numpy()
        for utterance, adapted in loop.second_pass(speakers, sets):
            pdfs = reference.get(utterance)
            if pdfs is None:
                continue
            counted, speaker = pdfs >= 0, loop.features.by_id[utterance].speaker
            # One utterance at a time: the scores of a whole split may not fit into memory.
            unadapted = score_utterance(loop.model, loop.features[utterance])
            # The best pdf by posteriors, not by likelihoods.
            best = [(scores + log_prior).argmax(1) for scores in (unadapted, adapted)]
            wrong = [int(counted.sum()), *(int((each != pdfs)[counted].sum()) for each in best)]
            errors[speaker] = errors.get(speaker, np.zeros(3, np.int64)) + wrong
    if not errors:
        logger.warning(
            "%s: no transcript could be aligned, the split is left out; check that its words are in the lexicon",
            look.split,
        )
        return []
    before, after = look.wer_reports()
    rows = [
        look.row(
            speaker=speaker, frames=int(frames),
            frame_error_before=float(first / frames), frame_error_after=float(second / frames),
            wer_before=before.speakers[speaker].wer, wer_after=after.speakers[speaker].wer,
        )
        for speaker, (frames, first, second) in sorted(errors.items())
    ]  # fmt: skip
    first, second = ([(row[f"frame_error_{when}"], row[f"wer_{when}"]) for row in rows] for when in ("before", "after"))
    look.draw(frames_figure(first, second, f"{look.split}: {look.name} against {look.before}"))
    return rows


def _tsne(look: Look) -> list[Row]:
    """Activations of the top hidden layer in frames of the same states, for some speakers of the first fold.

    Raises:
        ConfigError: The pass does not estimate amplitudes, so it does not adapt hidden layers.
    """
    fold = look.folds[0]
    loop = two_pass(fold, look.split, look.plan)
    model, features = loop.model, loop.features
    speakers = speakers_of(fold, look.split, look.plan, model)
    if not isinstance(speakers, Amplitudes):
        raise ConfigError(f"tsne: {look.name!r} does not estimate amplitudes; choose another pass with --pass")
    states = Alignment(fold.folder.decode(look.split, look.before) / ALIGNMENT_FILE, features, model.pdf_count)
    chosen = _common_frames(features, states, loop.silence_pdfs)
    before, after, owners = [], [], []
    for each in sets_of(fold, look.split, look.plan, features):
        for utterance in each.used_for:
            if frames := chosen.get(utterance.id):
                spliced = model.splicing.utterance(torch.from_numpy(np.array(features[utterance.id])))[frames]
                with torch.no_grad():
                    before.append(_top_layer(model, spliced))
                    with speakers.applied(each.name):
                        after.append(_top_layer(model, spliced))
                owners += [(utterance.speaker, int(states[utterance.id][frame])) for frame in frames]
    title = f"{look.split}: top hidden layer, {look.before} and {look.name}"
    hidden = np.concatenate(before), np.concatenate(after)
    look.draw(tsne_figure(*hidden, owners, title, look.plan.seed))
    return [
        look.row(when=when, frames=len(owners), between_speakers=_between(values, owners))
        for when, values in zip((look.before, look.name), hidden, strict=True)
    ]


def _common_frames(store: FeatureTable, states: Alignment, silence: np.ndarray) -> dict[str, list[int]]:
    """Frames in the most frequent states of the first speakers, as many for each state and speaker, by utterance id."""
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


def _top_layer(model: AcousticModel, spliced: torch.Tensor) -> np.ndarray:
    """Activations (T, H) of the top hidden layer."""
    hidden = spliced.to(model.log_prior.device)
    for layer in model.hidden_layers().values():
        hidden = layer(hidden)
    return hidden.cpu().numpy()


def _between(hidden: np.ndarray, owners: Sequence[tuple[str, int]]) -> float:
    """The fraction of the variance within states that is variance between the speakers' means in a state."""
    total = between = 0.0
    for state in {pdf for _, pdf in owners}:
        mean = hidden[[owner[1] == state for owner in owners]].mean(axis=0)
        for speaker in {name for name, pdf in owners if pdf == state}:
            own = hidden[[owner == (speaker, state) for owner in owners]]
            total += float(np.square(own - mean).sum())
            between += len(own) * float(np.square(own.mean(axis=0) - mean).sum())
    return between / total


LOOKS: dict[str, LookKind] = {
    "gains": LookKind(
        "Gains of all speakers in order",
        "errors fall by 7 % on average, and for 89 % of the 200 speakers (figure 10)",
        _gains,
    ),
    "spread": LookKind("Amplitudes of all speakers, and their spread by layer", "not reported", _spread, True),
    "frames": LookKind(
        "Frame errors and word errors of each speaker",
        "frame errors differ where word errors barely do (table II)",
        _frames,
    ),
    "scale": LookKind("Errors of all passes of a network at each acoustic scale", "not reported", scales, of_all=True),
    "tsne": LookKind("The top hidden layer before and after", "shown in a figure, without numbers", _tsne, True),
}
