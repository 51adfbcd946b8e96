"""The work of a pass over a split: adapt if the pass adapts, decode, compute error rates.

A pass is a resolved one (``plan.Pass``); nothing here reads the configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.environment import combine
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, PreparedMethod
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.stacked import StackedMethod
from lhuc_asr.adapt.targets import alignment_targets
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import atomic_folder, write_json, write_json_lines
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.runlog import progress, stopwatch
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.hypothesis import Hypothesis, to_row
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.outputs import Rescoring
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.lang.language_model import ARPA_FILE
from lhuc_asr.lang.tags import without_tags
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.earlier_pass import (
    ADAPTATION_FILE,
    ALIGNMENT_FILE,
    HYPOTHESES_FILE,
    SEARCH_FILE,
    WER_FILE,
    AdaptationCost,
    EarlierPass,
    crossed_of,
    scores_of,
    sets_of,
    speakers_of,
    tuned_search,
    two_pass,
)
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.language import HISTORIES_FOLDER
from lhuc_asr.pipeline.resolved_pass import Adaptation, Combination, Output, Pass, Preparation, stage_of
from lhuc_asr.pipeline.tuning import tune
from lhuc_asr.pipeline.voices import read_vectors
from lhuc_asr.score.wer import WerReport, score, write_wer

logger = logging.getLogger(__name__)


def pass_outputs(experiment: AlignedExperiment, split: str, plan: Pass) -> list[Path]:
    """The files that a pass over a split writes, and the speakers' folder if the pass estimates speakers."""
    folder = experiment.folder.decode(split, plan.name)
    files = [folder / file for file in (HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE, WER_FILE)]
    return [*files, experiment.folder.speakers(split, plan.name)] if plan.estimates else files


def run_pass(experiment: AlignedExperiment, split: str, plan: Pass) -> None:
    """Make a pass of any kind over a split: a first pass, an adapted pass, or one with parameters of earlier passes.

    The scores come from ``adapt/two_pass.py``; the search for the best path is here. A search is tuned over the
    held-out speakers with the first pass of a network, or with a pass that has a search of its own. Over the other
    splits, and for all other passes, the tuned search is read.
    """
    loop = two_pass(experiment, split, plan)
    utterances = experiment.utterances(split)
    scores = _scores(experiment, split, plan, loop)
    with SearchPool(experiment.graph(split), experiment.processes) as searches:
        if split == HELDOUT and plan.tuned:
            known = list(scores)
            search, record = tune(
                plan.name,
                plan.search,
                plan.tuning,
                partial(_reports_near, searches, known, utterances),
            )
            hypotheses = list(searches.search_all(known, search))
        else:
            search = tuned_search(experiment, plan)
            record = search.model_dump(mode="json")
            results = searches.search_all(scores, search)
            hypotheses = list(progress(results, f"{plan.name} over {split}", len(utterances)))
    write_pass(experiment, split, plan, loop.features, hypotheses, record)


def run_outputs(experiment: AlignedExperiment, split: str, plans: Sequence[Pass]) -> None:
    """Take all outputs of one pass over a split from the same lattices.

    Args:
        experiment: The experiment.
        split: The split.
        plans: The pass with each of its outputs; they differ in nothing else.
    """
    plan = plans[0]
    loop, search = two_pass(experiment, split, plan), tuned_search(experiment, plan)
    asked = [
        (each.output.options, _rescoring(experiment, split, each.output)) for each in plans if each.output is not None
    ]
    title, count = f"{stage_of(plan)} over {split}", len(experiment.utterances(split))
    with SearchPool(experiment.graph(split), experiment.processes) as searches:
        results = searches.outputs_all(_scores(experiment, split, plan, loop), search, asked)
        by_utterance = list(progress(results, title, count))
    for each, hypotheses in zip(plans, zip(*by_utterance, strict=True), strict=True):
        write_pass(experiment, split, each, loop.features, hypotheses, search.model_dump(mode="json"))


def _rescoring(experiment: AlignedExperiment, split: str, output: Output) -> Rescoring | None:
    """The language models that lattices are rescored with for an output; None where they are not."""
    if output.language_model is None:
        return None
    new = experiment.language_model(split, output.language_model) / HISTORIES_FOLDER
    return Rescoring(experiment.language_model(split) / ARPA_FILE, new)


def _reports_near(
    searches: SearchPool,
    scores: Sequence[Scores],
    utterances: Sequence[Utterance],
    search: SearchConfig,
    others: Sequence[SearchConfig],
) -> list[WerReport]:
    """The errors of searches with other scales and penalties, from the lattices of one search."""
    names = [name for name, _ in scores]
    reports = []
    # Words of every utterance at every setting, then the other way round.
    spoken = searches.words_at_all(scores, search, LatticeConfig(), others)
    for words in zip(*spoken, strict=True):
        hypotheses = [Hypothesis(name, each, (), 0.0, True) for name, each in zip(names, words, strict=True)]
        reports.append(scored(hypotheses, utterances))
    return reports


def prepare(experiment: AlignedExperiment, preparation: Preparation) -> None:
    """Let a method learn from the training speakers, at the recordings' own speed.

    A method on top of vectors learns from features with the training utterances' vectors: with that of nobody, what it
    learns would not be of the network as it is when the method adapts.

    A method that adapts only on clean recordings also learns only from clean recordings: the parameters are then the
    speaker's, and not the environment's.

    Raises:
        CorpusError: There is no training recording in the environments to learn from.
        ValueError: The method learns nothing from the training speakers.
    """
    method = preparation.method.make(experiment.folder.prepared(preparation.name))
    if not isinstance(method, PreparedMethod):
        raise ValueError(f"{preparation.name}: the method learns nothing from the training speakers")
    loop, where = two_pass(experiment, TRAIN, preparation), preparation.environments
    if preparation.method.uses_gaussians and preparation.place is not None:
        loop = replace(loop, features=experiment.features(TRAIN, preparation.place.features))
    spoken: dict[str, list[tuple[StoredUtterance, int]]] = {}
    for utterance in experiment.utterances(TRAIN):
        if where is None or utterance.environment in where:
            stored = loop.features.by_id[utterance.id]
            spoken.setdefault(utterance.speaker, []).append((stored, stored.frames))
    if not spoken:
        raise CorpusError(
            f"passes: {preparation.method.kind} learns from training recordings in {', '.join(where or ())}, but there "
            "are none; correct data.environments of the pass, or the recipe's noise"
        )
    aligned = experiment.aligned(experiment.alignment, TRAIN)
    pdfs = {stored.id: aligned[stored.id] for theirs in spoken.values() for stored, _ in theirs}
    targets = alignment_targets(pdfs, loop.silence_pdfs, preparation.silence_weight)
    training = {speaker: loop.speaker_data(targets, theirs) for speaker, theirs in spoken.items()}
    if preparation.voices is not None:
        store = experiment.features_of(preparation.place or ModelPlace(), TRAIN)
        vectors = read_vectors(experiment, preparation.voices, TRAIN, store)
        training = {speaker: _with_vectors(data, spoken[speaker], vectors) for speaker, data in training.items()}
    method.prepare(loop.model, training, preparation.seed)


def _with_vectors(
    data: SpeakerData, utterances: Sequence[tuple[StoredUtterance, int]], vectors: Mapping[str, np.ndarray]
) -> SpeakerData:
    """A speaker's data with the vector of each utterance, (R,), in its rows: features (T, D + R)."""
    beside = np.stack([vectors[stored.id] for stored, _ in utterances])
    rows = beside.repeat([frames for _, frames in utterances], axis=0)
    return replace(data, features=np.concatenate([data.features, rows], axis=1))


def _scores(experiment: AlignedExperiment, split: str, plan: Pass, loop: TwoPass) -> Iterator[Scores]:
    """The scores of a pass; the speakers of a pass that estimates them are written first."""
    if plan.estimates:
        with stopwatch() as watch:
            speakers = _adapt(experiment, split, plan, loop)
        cost = AdaptationCost(seconds=round(watch.seconds, 3), sets=len(speakers.speakers))
        write_json(experiment.folder.decode(split, plan.name) / ADAPTATION_FILE, cost.model_dump())
        with atomic_folder(experiment.folder.speakers(split, plan.name)) as temporary:
            speakers.save(temporary)
        return loop.second_pass(speakers, sets_of(experiment, split, plan, loop.features))
    return scores_of(experiment, split, plan, loop)


def _adapt(experiment: AlignedExperiment, split: str, plan: Pass, loop: TwoPass) -> AdaptedSpeakers:
    """Estimate the speakers of a pass, or combine those of two earlier ones."""
    match plan.adaptation:
        case Adaptation(source=source, targets=targets, preparation=preparation) as adaptation:
            learned = None if preparation is None else experiment.folder.prepared(preparation.name)
            earlier = EarlierPass(experiment, split, source, plan, adaptation, loop.model)
            sets = sets_of(experiment, split, plan, loop.features)
            method: AdaptationMethod = adaptation.method.make(learned)
            if adaptation.on is not None:
                method = StackedMethod(_below(experiment, split, adaptation.on, loop), method)
            return loop.adapt(method, earlier, targets, sets, plan.seed)
        case Combination(speaker=speaker, environment=environment, alpha=alpha):
            r_s, r_e = (speakers_of(experiment, split, part, loop.model) for part in (speaker, environment))
            crossed = crossed_of(experiment, split, speaker, environment, loop.features)
            return combine(r_s, r_e, {each.name: names for each, names in crossed.items()}, alpha)
    raise ValueError(f"{plan.name}: the pass does not estimate speakers")


def _below(experiment: AlignedExperiment, split: str, plan: Pass, loop: TwoPass) -> ChangedFeatures:
    """The transforms of the features, or the vectors beside them, that an earlier pass estimated."""
    speakers = speakers_of(experiment, split, plan, loop.model)
    if not isinstance(speakers, ChangedFeatures):
        raise ValueError(f"{plan.name}: the pass does not change features")
    return speakers


def write_pass(
    experiment: AlignedExperiment,
    split: str,
    plan: Pass,
    features: FeatureTable,
    hypotheses: Sequence[Hypothesis],
    search: Mapping[str, object],
) -> None:
    """Write the hypotheses, their pdfs, the search, and the score."""
    folder, utterances = experiment.folder.decode(split, plan.name), experiment.utterances(split)
    speaker_of = {utterance.id: utterance.speaker for utterance in utterances}
    write_json_lines(folder / HYPOTHESES_FILE, (to_row(h, speaker_of[h.utterance]) for h in hypotheses))
    write_alignment(folder / ALIGNMENT_FILE, features, {h.utterance: h.pdfs for h in hypotheses})
    write_json(folder / SEARCH_FILE, search)
    report = scored(hypotheses, utterances)
    write_wer(folder / WER_FILE, report)
    logger.info("%s, %s: WER %.2f %% (%d / %d)", split, plan.name, 100 * report.wer, report.errors, report.words)


def scored(hypotheses: Sequence[Hypothesis], utterances: Sequence[Utterance]) -> WerReport:
    """The errors of hypotheses in words alone: a tag is not one, in a reference or a hypothesis."""
    return score(
        {utterance.id: " ".join(without_tags(utterance.words)) for utterance in utterances},
        {hypothesis.utterance: " ".join(without_tags(hypothesis.words)) for hypothesis in hypotheses},
        {utterance.id: utterance.speaker for utterance in utterances},
        {utterance.id: utterance.environment for utterance in utterances},
    )
