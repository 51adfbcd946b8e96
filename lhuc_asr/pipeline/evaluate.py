"""Passes over a split: tuned on held-out speakers, decoded, scored, compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.lhuc import Lhuc
from lhuc_asr.base.atomic import atomic_folder, read_json, read_json_lines, write_json, write_json_lines, write_text
from lhuc_asr.corpus.utterance import Utterance, read_manifest
from lhuc_asr.decode.hypothesis import Hypothesis, to_row
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE, reference_targets
from lhuc_asr.pipeline.experiment import Layout
from lhuc_asr.pipeline.language import tuning_folder
from lhuc_asr.pipeline.recipe import ExperimentConfig
from lhuc_asr.pipeline.splits import HELDOUT
from lhuc_asr.pipeline.two_pass import TwoPass, targets_of, transcripts_of
from lhuc_asr.score.figures import save_figure, speaker_wer_figure
from lhuc_asr.score.significance import Comparison
from lhuc_asr.score.tables import PassScore, compare_passes, table_text, wer_table, write_speaker_csv
from lhuc_asr.score.wer import WerReport, pool, read_wer, score, write_wer

logger = logging.getLogger(__name__)

SI, LHUC, LHUC_ORACLE = "si", "lhuc", "lhuc_oracle"
WER_FILE, HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE = "wer.json", "hypotheses.jsonl", "pdfs.ali", "search.json"
COMPARISON_FILE, TABLE_FILE, SPEAKERS_FILE, FIGURE_FILE = (
    "comparison.json",
    "table.txt",
    "speakers.csv",
    "speakers.png",
)


def tune(config: ExperimentConfig, layout: Layout, alignment: str) -> None:
    """Choose acoustic scale and insertion penalty of each pass on the held-out training speakers."""
    utterances = read_manifest(layout.manifest(HELDOUT))
    two_pass = _two_pass(config, layout, HELDOUT, alignment)
    with SearchPool(tuning_folder(config, layout.lang), config.workers) as searchers:
        scores = list(two_pass.likelihoods())
        chosen = _best_search(config, searchers, scores, utterances, SI, layout)
        hypotheses = list(searchers.search_all(scores, chosen))
        speakers = two_pass.adapt(Lhuc(config.lhuc), targets_of(hypotheses), config.lhuc.silence_weight, config.seed)
        adapted = list(two_pass.likelihoods(speakers))
        _best_search(config, searchers, adapted, utterances, LHUC, layout)


def passes_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Names of the passes that an experiment makes over each test split."""
    return (SI, LHUC, LHUC_ORACLE) if config.oracle else (SI, LHUC)


def pass_outputs(config: ExperimentConfig, layout: Layout, split: str) -> list[Path]:
    """What the passes over a split leave: the files of each, and the speakers of those that adapt."""
    names = passes_of(config)
    files = (HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE, WER_FILE)
    return [
        *(layout.decode(split, name) / file for name in names for file in files),
        *(layout.speakers(name, split) for name in names if name != SI),
    ]


def run_two_pass(config: ExperimentConfig, layout: Layout, split: str, alignment: str) -> None:
    """First pass, adaptation, second pass over a test split, with the searches that were tuned."""
    two_pass = _two_pass(config, layout, split, alignment)
    utterances = read_manifest(layout.manifest(split))
    with SearchPool(layout.lang, config.workers) as searchers:

        def adapt_and_decode(name: str, pdfs: Mapping[str, np.ndarray]) -> None:
            speakers = two_pass.adapt(Lhuc(config.lhuc), pdfs, config.lhuc.silence_weight, config.seed)
            with atomic_folder(layout.speakers(name, split)) as folder:
                speakers.save(folder)
            second = two_pass.second_pass(searchers, tuned_search(config, layout, LHUC), speakers)
            _write_pass(config, layout, split, name, second, utterances, two_pass.store)

        first = two_pass.first_pass(searchers, tuned_search(config, layout, SI))
        _write_pass(config, layout, split, SI, first, utterances, two_pass.store)
        adapt_and_decode(LHUC, targets_of(first))
        if config.oracle:
            references = reference_targets(config, layout, split, two_pass.model, alignment)
            adapt_and_decode(LHUC_ORACLE, references)


def compare_split(layout: Layout, split: str, names: Sequence[str], seed: int) -> list[PassScore]:
    """Table, CSV and figure of a split's passes, from their wer.json files; the first is compared with."""
    folder = layout.decode(split)
    reports = {name: read_wer(folder / name / WER_FILE) for name in names}
    passes = compare_passes(split, reports, np.random.default_rng(seed))
    write_json(folder / COMPARISON_FILE, {p.name: _comparison_row(p.comparison) for p in passes if p.comparison})
    write_text(folder / TABLE_FILE, table_text(wer_table(passes)))
    write_speaker_csv(folder / SPEAKERS_FILE, reports)
    figure = speaker_wer_figure(folder / SI / WER_FILE, folder / LHUC / WER_FILE, SI, LHUC)
    save_figure(figure, folder / FIGURE_FILE)
    return passes


def pool_folds(layout: Layout, folds: Sequence[Layout], split: str, names: Sequence[str]) -> None:
    """One report of each pass over the test speakers of all folds."""
    for name in names:
        folders = [fold.decode(split, name) for fold in folds]
        write_wer(layout.decode(split, name) / WER_FILE, pool([read_wer(folder / WER_FILE) for folder in folders]))
        rows = (row for folder in folders for row in read_json_lines(folder / HYPOTHESES_FILE))
        write_json_lines(layout.decode(split, name) / HYPOTHESES_FILE, rows)


def tuned_search(config: ExperimentConfig, layout: Layout, name: str) -> SearchConfig:
    """The search of a pass, as tuned on the held-out speakers."""
    chosen = read_json(layout.decode(HELDOUT, name) / SEARCH_FILE)["chosen"]
    return config.search.model_copy(update=chosen)


def _two_pass(config: ExperimentConfig, layout: Layout, split: str, alignment: str) -> TwoPass:
    model = load_model(layout.acoustic_model(SI) / MODEL_FILE).to(config.device)
    topology = MonophoneTopology.load(layout.hmm(alignment) / TOPOLOGY_FILE)
    return TwoPass(model, FeatureStore(layout.features(split)), topology.silence_pdfs)


def _best_search(
    config: ExperimentConfig,
    searchers: SearchPool,
    scores: Sequence[tuple[str, np.ndarray]],
    utterances: Sequence[Utterance],
    name: str,
    layout: Layout,
) -> SearchConfig:
    """Try the scales, with the best the penalties, and both once more."""
    tried: list[dict[str, float]] = []

    def wer_of(scale: float, penalty: float) -> float:
        for row in tried:
            if (row["acoustic_scale"], row["insertion_penalty"]) == (scale, penalty):
                return row["wer"]
        search = config.search.model_copy(update={"acoustic_scale": scale, "insertion_penalty": penalty})
        wer = _score(list(searchers.search_all(scores, search)), utterances).wer
        tried.append({"acoustic_scale": scale, "insertion_penalty": penalty, "wer": wer})
        return wer

    options, penalty = config.tuning, config.search.insertion_penalty
    for _ in range(2):  # the best scale depends on the penalty, and the other way round
        scale = _best_of(options.acoustic_scales, partial(wer_of, penalty=penalty))
        penalty = _best_of(options.insertion_penalties, partial(wer_of, scale))
    chosen = {"acoustic_scale": scale, "insertion_penalty": penalty}
    logger.info(
        "%s: acoustic scale %g, insertion penalty %g (held out %.2f %%)",
        name,
        scale,
        penalty,
        100 * wer_of(scale, penalty),
    )
    write_json(layout.decode(HELDOUT, name) / SEARCH_FILE, {"chosen": chosen, "tried": tried})
    return config.search.model_copy(update=chosen)


def _best_of(options: Sequence[float], wer_of: Callable[[float], float]) -> float:
    """The option with the lowest error rate; of equals the middle one, farthest from where errors rise."""
    wers = [wer_of(option) for option in options]
    best = [option for option, wer in zip(options, wers, strict=True) if wer == min(wers)]
    return best[len(best) // 2]


def _write_pass(
    config: ExperimentConfig,
    layout: Layout,
    split: str,
    name: str,
    hypotheses: Sequence[Hypothesis],
    utterances: Sequence[Utterance],
    store: FeatureStore,
) -> None:
    folder = layout.decode(split, name)
    speaker_of = {utterance.id: utterance.speaker for utterance in utterances}
    write_json_lines(folder / HYPOTHESES_FILE, (to_row(h, speaker_of[h.utterance]) for h in hypotheses))
    write_alignment(folder / ALIGNMENT_FILE, store, targets_of(hypotheses))
    search = tuned_search(config, layout, SI if name == SI else LHUC)
    write_json(folder / SEARCH_FILE, search.model_dump(mode="json"))
    report = _score(hypotheses, utterances)
    write_wer(folder / WER_FILE, report)
    logger.info("%s, %s: WER %.2f %% (%d / %d)", split, name, 100 * report.wer, report.errors, report.words)


def _score(hypotheses: Sequence[Hypothesis], utterances: Sequence[Utterance]) -> WerReport:
    return score(
        {utterance.id: utterance.text for utterance in utterances},
        transcripts_of(hypotheses),
        {utterance.id: utterance.speaker for utterance in utterances},
    )


def _comparison_row(comparison: Comparison) -> dict[str, object]:
    return {
        "before": comparison.before,
        "after": comparison.after,
        "relative": comparison.relative if np.isfinite(comparison.relative) else None,
        "interval_relative": [bound if np.isfinite(bound) else None for bound in comparison.interval_relative],
        "p_value": comparison.p_value,
        "speakers_better": comparison.speakers_better,
        "speakers_worse": comparison.speakers_worse,
        "speakers_equal": comparison.speakers_equal,
    }
