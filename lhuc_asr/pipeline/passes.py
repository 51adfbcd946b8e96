"""Passes over a split: adapted or not, searched, scored.

The first pass of a network decodes without adaptation. Every other pass of the recipe's table adapts a network to
each speaker of the split, on what an earlier pass found there or on the reference, or combines the amplitudes of two
passes that did, and decodes again. Each pass has an acoustic scale and an insertion penalty of its own, tuned on the
held-out speakers by running the same pass over them, or those of another: see ``tuned_as``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, adaptation_sets, crossed_sets
from lhuc_asr.adapt.environment import combine
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig, LhucSpeakers
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, PreparedMethod
from lhuc_asr.adapt.methods import make_method
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.adapt.two_pass import TwoPass, speaker_frames, targets_of, transcripts_of
from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.atomic import atomic_folder, read_json, write_json, write_json_lines
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import Hypothesis, to_row
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.store import FeatureStore, FeatureTable, StoredUtterance
from lhuc_asr.hmm.alignment import Alignment, write_alignment
from lhuc_asr.hmm.topology import load as load_topology
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE, alignment_path, reference_targets
from lhuc_asr.pipeline.config import SI, CombineConfig, ExperimentConfig, PassConfig, first_pass
from lhuc_asr.pipeline.language import order_folder, tuning_folder
from lhuc_asr.pipeline.splits import HELDOUT, TRAIN
from lhuc_asr.score.wer import WerReport, score, write_wer

logger = logging.getLogger(__name__)

WER_FILE, HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE = "wer.json", "hypotheses.jsonl", "pdfs.ali", "search.json"


def networks(config: ExperimentConfig) -> list[str]:
    """Names of the networks that the recipe's passes need, the speaker-independent one first."""
    needed = {plan.network for plan in config.passes.values()}
    return [SI, *(network for network in config.networks if network in needed)]


def network_of(config: ExperimentConfig, name: str) -> str:
    """The network of a pass."""
    if name in config.passes:
        return config.passes[name].network
    return next(network for network in networks(config) if first_pass(network) == name)


def first_passes(config: ExperimentConfig) -> list[str]:
    """Names of the passes without adaptation, the speaker-independent network's first."""
    return [first_pass(network) for network in networks(config)]


def pass_names(config: ExperimentConfig) -> list[str]:
    """Names of all passes, in the order in which they are made."""
    return [*first_passes(config), *config.passes]


def pass_outputs(config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str) -> list[Path]:
    """What a pass over a split leaves: its files, and the speakers where it adapts."""
    files = [layout.decode(split, name) / file for file in (HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE, WER_FILE)]
    return [*files, layout.speakers(name, split)] if name in config.passes else files


def run_pass(config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, alignment: str) -> None:
    """Make a pass over a split: adapt where it adapts, decode, score.

    Over the held-out speakers the search is tuned, unless it is another pass'; over others it is the one tuned there.

    Args:
        config: The recipe.
        layout: The experiment's folder.
        split: The split.
        name: Of the pass.
        alignment: ``hmm/<alignment>`` has the topology, and the held-out speakers' reference alignment.
    """
    plan = config.passes.get(name)
    two_pass = _two_pass(config, layout, split, network_of(config, name), alignment)
    utterances = read_manifest(layout.manifest(split))
    speakers: AdaptedSpeakers | None = None
    who: list[AdaptationSet] = []
    if plan is not None:
        who = pass_shares(config, layout, split, name, two_pass.store)
        if plan.combine is not None:
            speakers = _combine(config, layout, split, plan.combine, two_pass)
        else:
            targets = _targets(config, layout, split, plan, two_pass, alignment)
            speakers = two_pass.adapt(method_of(config, layout, name), targets, who, config.seed)
        with atomic_folder(layout.speakers(name, split)) as folder:
            speakers.save(folder)
    with SearchPool(_graph_folder(config, layout, split), config.workers) as searchers:
        if split == HELDOUT and tuned_as(config, name) == name:
            scores = list(two_pass.likelihoods(speakers, who))
            chosen, record = _tuned(config, searchers, scores, utterances, name)
            hypotheses = list(searchers.search_all(scores, chosen))
        else:
            chosen = tuned_search(config, layout, name)
            record = chosen.model_dump(mode="json")
            hypotheses = two_pass.decode(searchers, chosen, speakers, who, f"{name} over {split}")
    folder = layout.decode(split, name)
    speaker_of = {utterance.id: utterance.speaker for utterance in utterances}
    write_json_lines(folder / HYPOTHESES_FILE, (to_row(h, speaker_of[h.utterance]) for h in hypotheses))
    write_alignment(folder / ALIGNMENT_FILE, two_pass.store, targets_of(hypotheses))
    write_json(folder / SEARCH_FILE, record)
    report = _score(hypotheses, utterances)
    write_wer(folder / WER_FILE, report)
    logger.info("%s, %s: WER %.2f %% (%d / %d)", split, name, 100 * report.wer, report.errors, report.words)


def method_of(config: ExperimentConfig, layout: ExperimentFolder, name: str) -> AdaptationMethod:
    """How a pass adapts; what it learned from the training speakers lies in ``speakers/prepared/``."""
    return make_method(config.method_of(config.passes[name]), layout.prepared(preparation_of(config, name) or ""))


def preparation_of(config: ExperimentConfig, name: str) -> str | None:
    """The name of what a pass' technique learns from the training speakers; None where it learns nothing from them.

    Passes whose techniques learn the same there have one name.
    """
    plan = config.passes[name]
    settings = config.method_of(plan)
    if plan.combine is not None or not isinstance(settings, PreparedConfig):
        return None
    depends = [plan.network, plan.targets.silence_weight, settings.model_dump_json(exclude=set(settings.not_prepared))]
    if plan.data.environments is not None:
        depends.append(plan.data.environments)
    return f"{settings.kind}-{hashlib.sha256(repr(depends).encode()).hexdigest()[:8]}"


def prepare(config: ExperimentConfig, layout: ExperimentFolder, name: str, alignment: str) -> None:
    """Have a pass' technique learn from the training speakers, at the recordings' own speed.

    Where a pass adapts in some environments alone, the technique learns in these: what a speaker's clean recordings
    are compared with is clean speech, so that amplitudes are the speaker's and not the environment's.

    Raises:
        CorpusError: No training recording was made there.
    """
    method = method_of(config, layout, name)
    if not isinstance(method, PreparedMethod):
        raise TypeError(f"{name} learns nothing from the training speakers")
    plan = config.passes[name]
    two_pass = _two_pass(config, layout, TRAIN, plan.network, alignment)
    found = Alignment(alignment_path(layout, alignment, TRAIN), two_pass.store)
    spoken: dict[str, list[tuple[StoredUtterance, int]]] = {}
    where = plan.data.environments
    for utterance in read_manifest(layout.manifest(TRAIN)):
        if where is None or utterance.environment in where:
            stored = two_pass.store.by_id[utterance.id]
            spoken.setdefault(utterance.speaker, []).append((stored, stored.frames))
    if not spoken:
        raise CorpusError(
            f"passes: {name!r} learns from training recordings in {', '.join(where or ())}; there are none"
        )
    pdfs = {stored.id: found[stored.id] for theirs in spoken.values() for stored, _ in theirs}
    targets = two_pass.alignment_targets(pdfs, plan.targets.silence_weight)
    training = {speaker: speaker_frames(two_pass.store, targets, theirs) for speaker, theirs in spoken.items()}
    method.prepare(two_pass.model, training, config.seed)


def tuned_as(config: ExperimentConfig, name: str) -> str:
    """The pass whose scale and penalty a pass decodes with: itself, unless the recipe says otherwise.

    The first pass of a network that goes on from another has that network's: its scores are as sharp, and what is seen
    is the networks' difference, without the luck of two choices.
    """
    if name in config.passes:
        other = config.passes[name].search_as
        return name if other is None else tuned_as(config, other)
    network = network_of(config, name)
    start = None if network == SI else config.networks[network].start
    return name if start is None else first_pass(start)


def tuned_search(config: ExperimentConfig, layout: ExperimentFolder, name: str) -> SearchConfig:
    """The search of a pass, as tuned on the held-out speakers."""
    chosen = read_json(layout.decode(HELDOUT, tuned_as(config, name)) / SEARCH_FILE)["chosen"]
    return config.search.model_copy(update=chosen)


def _two_pass(config: ExperimentConfig, layout: ExperimentFolder, split: str, network: str, alignment: str) -> TwoPass:
    model = load_model(layout.acoustic_model(network) / MODEL_FILE).to(config.device)
    topology = load_topology(layout.hmm(alignment) / TOPOLOGY_FILE)
    return TwoPass(model, FeatureStore(layout.features(split)), topology.silence_pdfs)


def pass_shares(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, store: FeatureTable
) -> list[AdaptationSet]:
    """What a pass estimates on which utterances of a split, and uses for which."""
    combined = config.passes[name].combine
    if combined is not None:
        return list(_crossed(config, layout, split, combined, store))
    environments = {utterance.id: utterance.environment for utterance in read_manifest(layout.manifest(split))}
    return adaptation_sets(store, environments, config.passes[name].data, config.seed)


def _crossed(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, combined: CombineConfig, store: FeatureTable
) -> dict[AdaptationSet, tuple[str, str]]:
    """The shares of a pass that combines two others, and the rows of the two that each is made of."""
    return crossed_sets(*(pass_shares(config, layout, split, part, store) for part in combined.parts))


def _combine(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, combined: CombineConfig, two_pass: TwoPass
) -> LhucSpeakers:
    """The amplitudes of two earlier passes over a split, combined."""
    speakers, environments = (load_speakers(layout, split, part, two_pass.model).bank for part in combined.parts)
    crossed = _crossed(config, layout, split, combined, two_pass.store)
    rows = {share.name: names for share, names in crossed.items()}
    return LhucSpeakers(combine(speakers, environments, rows, combined.alpha))


def load_speakers(layout: ExperimentFolder, split: str, name: str, model: Dnn) -> LhucSpeakers:
    """The amplitudes of a pass over a split: what every technique saves."""
    return Lhuc(LhucConfig()).load(model, layout.speakers(name, split))


def _targets(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, plan: PassConfig, two_pass: TwoPass, alignment: str
) -> dict[str, FrameTargets]:
    """What each frame of a split is taken for when a pass adapts."""
    options = plan.targets
    if options.kind == "reference":
        pdfs = reference_targets(config, layout, split, two_pass.model, alignment, options.corrupted or 0.0)
        return two_pass.alignment_targets(pdfs, options.silence_weight)
    source = config.source_of(plan)
    if options.kind in ("confidence", "lattice"):
        return two_pass.lattice_targets(_lattices(config, layout, split, source, alignment, options.lm_order), options)
    if order_folder(config, layout.lang, options.lm_order) != layout.lang:
        pdfs = targets_of(_searched_again(config, layout, split, source, alignment, options.lm_order))
    else:
        found = Alignment(layout.decode(split, source) / ALIGNMENT_FILE, two_pass.store)
        pdfs = {utterance.id: found[utterance.id] for utterance in two_pass.store.utterances}
    return two_pass.alignment_targets(pdfs, options.silence_weight)


def _lattices(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, alignment: str, order: int | None
) -> Iterator[LatticeSummary]:
    """What the lattices of an earlier pass over a split say, at the search that was tuned for it."""
    two_pass, speakers, who = _earlier(config, layout, split, name, alignment)
    search = tuned_search(config, layout, name)
    with SearchPool(_graph_folder(config, layout, split, order), config.workers) as searchers:
        scores = two_pass.likelihoods(speakers, who)
        found = searchers.lattices_all(scores, search, config.lattice)
        yield from progress(found, f"lattices of {name} over {split}", len(two_pass.store.utterances))


def _searched_again(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, alignment: str, order: int | None
) -> list[Hypothesis]:
    """What an earlier pass over a split finds with a language model of another order."""
    two_pass, speakers, who = _earlier(config, layout, split, name, alignment)
    search = tuned_search(config, layout, name)
    with SearchPool(_graph_folder(config, layout, split, order), config.workers) as searchers:
        return two_pass.decode(searchers, search, speakers, who, f"{name} over {split} with an order of {order}")


def _earlier(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, name: str, alignment: str
) -> tuple[TwoPass, AdaptedSpeakers | None, list[AdaptationSet]]:
    """The network of an earlier pass over a split, and its speakers where it has some."""
    two_pass = _two_pass(config, layout, split, network_of(config, name), alignment)
    if name not in config.passes:
        return two_pass, None, []
    return (
        two_pass,
        load_speakers(layout, split, name, two_pass.model),
        pass_shares(config, layout, split, name, two_pass.store),
    )


def _graph_folder(config: ExperimentConfig, layout: ExperimentFolder, split: str, order: int | None = None) -> Path:
    folder = order_folder(config, layout.lang, order)
    return tuning_folder(config, folder) if split == HELDOUT else folder


def _tuned(
    config: ExperimentConfig,
    searchers: SearchPool,
    scores: Sequence[tuple[str, np.ndarray]],
    utterances: Sequence[Utterance],
    name: str,
) -> tuple[SearchConfig, dict[str, object]]:
    """Try the scales, with the best the penalties, and both once more; the search, and all that was tried."""
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
    wer = wer_of(scale, penalty)
    logger.info("%s: acoustic scale %g, insertion penalty %g (held out %.2f %%)", name, scale, penalty, 100 * wer)
    chosen = {"acoustic_scale": scale, "insertion_penalty": penalty}
    return config.search.model_copy(update=chosen), {"chosen": chosen, "tried": tried}


def _best_of(options: Sequence[float], wer_of: Callable[[float], float]) -> float:
    """The option with the lowest error rate; of equals the middle one, farthest from where errors rise."""
    wers = [wer_of(option) for option in options]
    best = [option for option, wer in zip(options, wers, strict=True) if wer == min(wers)]
    return best[len(best) // 2]


def _score(hypotheses: Sequence[Hypothesis], utterances: Sequence[Utterance]) -> WerReport:
    return score(
        {utterance.id: utterance.text for utterance in utterances},
        transcripts_of(hypotheses),
        {utterance.id: utterance.speaker for utterance in utterances},
        {utterance.id: utterance.environment for utterance in utterances},
    )
