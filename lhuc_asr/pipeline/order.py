"""The stages of a recipe in order, from the corpus to the passes.

They are declared once, for a run (``Stages``), for one that is still to come (``PlannedStages``), and for a reader of
the folder who wants to know which of them are finished (``RecordedStages``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lhuc_asr.base.fingerprint import InputFiles
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.lang.language_model import LanguageModelConfig
from lhuc_asr.pipeline.acoustic_models import LDA, ModelPlace
from lhuc_asr.pipeline.aligners import aligners
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import CorpusOptions, corpus_stage
from lhuc_asr.pipeline.experiment import Aligned, AlignedExperiment, Experiment, at_corpus_rate
from lhuc_asr.pipeline.feature_stages import feature_stage_name, feature_stages
from lhuc_asr.pipeline.language import (
    LanguageModelOptions,
    LexiconOptions,
    graph_stage,
    graph_stage_name,
    language_model_stage,
    language_model_stage_name,
    lexicon_stage,
)
from lhuc_asr.pipeline.networks import NetworkOptions, network_stage
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.pass_parts import make_outputs, make_pass
from lhuc_asr.pipeline.passes import pass_outputs, prepare
from lhuc_asr.pipeline.plan import heldout_passes, networks_of, others_in, passes_of, sequence_networks
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass, Preparation, stage_of
from lhuc_asr.pipeline.rungs import rung_stage, space_stage
from lhuc_asr.pipeline.sequence_networks import lm_order_of, sequence_stages
from lhuc_asr.pipeline.training_shards import ShardOptions, shards_stage
from lhuc_asr.pipeline.voices import VoicesOptions, voices_stage, voices_stage_name


def add_stages(
    stages: Stages, config: ExperimentConfig, fold: int | None
) -> tuple[ExperimentConfig, AlignedExperiment]:
    """Add all stages of one experiment, or of one fold of a cross-validation.

    Args:
        stages: The stages of the experiment's folder.
        config: The recipe.
        fold: Number of the fold, from 1; None without cross-validation.

    Returns:
        The recipe at the sample rate of the corpus, and the experiment.
    """
    add_corpus_stage(stages, config, fold)
    config = at_corpus_rate(config)
    return config, add_later_stages(stages, config)


def add_corpus_stage(stages: Stages, config: ExperimentConfig, fold: int | None) -> None:
    """Add the first stage, which the number and the options of the others depend on; arguments as ``add_stages``."""
    corpus_stage(stages, Experiment.of(config), CorpusOptions.of(config, fold))


def add_later_stages(stages: Stages, config: ExperimentConfig, corpus_read: bool = True) -> AlignedExperiment:
    """Add the stages after the corpus.

    Args:
        stages: The stages of the experiment's folder.
        config: The recipe, with sample rates.
        corpus_read: Whether the folder has the corpus; if not, all passes are taken for possible over all splits.
    """
    experiment, passes = Experiment.of(config), passes_of(config)
    networks = networks_of(config)
    sequences = sequence_networks(config, networks)
    graphs = graphs_of(passes.values(), (lm_order_of(config, each) for each in sequences.values()))
    orders = [None, *sorted({order for _, order in graphs if order is not None})]

    lexicon_stage(stages, experiment, LexiconOptions.of(config))
    for order in orders:
        options = LanguageModelOptions.of(config, order)
        language_model_stage(stages, experiment, options, config.test_sets, order)
    for name, lm in rescoring_models(passes.values()).items():
        inputs = None if lm.files == config.lm.files else InputFiles(lm.files)
        options = replace(LanguageModelOptions.of(config, None), lm=lm)
        language_model_stage(stages, experiment, options, config.test_sets, name, inputs)
    kinds = {(plan.place or ModelPlace()).features for plan in passes.values()}
    feature_stages(stages, experiment, config, kinds, corpus_read)
    aligned: Aligned | None = None
    for aligner in aligners(config):
        aligned = aligner.align(stages, experiment, aligned)
    if aligned is None:
        raise ValueError("no aligner: networks need an alignment")
    for test in config.test_sets if LDA in kinds else ():
        space_stage(stages, experiment, test)
    for name in sorted({voices for voices in map(config.voices_of, networks) if voices is not None}):
        voices_stage(stages, experiment, name, VoicesOptions.of(config, name), aligned)
    _network_stages(stages, experiment, config, [name for name in networks if name not in sequences], aligned)

    experiment = AlignedExperiment.of(config)
    for states, order in graphs:
        stage = aligned.stage if states is None else rung_stage(states)
        graph_stage(stages, experiment.at(states), config.transition_scale, stage, order)
    for declared in in_order_of_need(_heldout_stages(stages, experiment, config, passes, aligned.stage)):
        declared.add()
    for split in config.test_sets:
        plans = possible_passes(experiment, split, passes.values()) if corpus_read else passes.values()
        for plan in plans:
            if plan.output is None:
                _pass_stage(stages, experiment, split, plan)
                outputs = [each for each in plans if each.output is not None and each.output.of == plan.name]
                if outputs:
                    _outputs_stage(stages, experiment, split, outputs)
    return experiment


def _network_stages(
    stages: Stages, experiment: Experiment, config: ExperimentConfig, names: Sequence[str], aligned: Aligned
) -> None:
    """Add the stages of networks that are trained on frames, and of the shards that these are read from."""
    options, store = {name: NetworkOptions.of(config, name) for name in names}, None
    if config.shards is not None:
        store = partial(open_store, config.shards.store)
        for kind in sorted({each.features for each in options.values()}, key=str):
            shards_stage(stages, experiment, ShardOptions.of(config, config.shards, kind), store, aligned)
    for name, each in options.items():
        network_stage(stages, experiment, name, each, aligned, store)


@dataclass(frozen=True)
class Declared:
    """A stage, or several in a row, that can be added when some others are there.

    Attributes:
        name: Name of the last stage.
        after: Names of the stages whose results it reads, and of those that only must be there.
        add: Function that adds it.
    """

    name: str
    after: Sequence[str]
    add: Callable[[], None]


def in_order_of_need(declared: Iterable[Declared]) -> list[Declared]:
    """Stages in their order, but each after those of the others that it needs."""
    waiting, ordered = {each.name: each for each in declared}, []

    def place(name: str) -> None:
        if (each := waiting.pop(name, None)) is not None:
            for other in each.after:
                place(other)
            ordered.append(each)

    for name in list(waiting):
        place(name)
    return ordered


def _heldout_stages(
    stages: Stages, experiment: AlignedExperiment, config: ExperimentConfig, passes: Mapping[str, Pass], aligner: str
) -> Iterator[Declared]:
    """The stages of sequence training, preparations, and passes over held-out speakers, which need each other.

    A search is tuned before the lattices that it makes, and what they train; it may be tuned with a pass that needs a
    preparation, or targets from another network with sequence training.
    """
    for name, network in sequence_networks(config, networks_of(config)).items():
        searched = passes[first_pass(network.start)].searched_as
        add = partial(sequence_stages, stages, experiment, config, name, passes, aligner)
        yield Declared(f"network {name}", [f"{searched} over {HELDOUT}"], add)
    # Each preparation runs once, even if several passes need it.
    preparations = {plan.preparation.name: plan.preparation for plan in passes.values() if plan.preparation}
    for preparation in preparations.values():
        add = partial(_preparation_stage, stages, experiment, preparation, aligner)
        yield Declared(f"prepare {preparation.name}", [f"network {preparation.network}"], add)
    for plan in heldout_passes(passes):
        add = partial(_pass_stage, stages, experiment, HELDOUT, plan)
        yield Declared(f"{stage_of(plan)} over {HELDOUT}", _stages_before(HELDOUT, plan), add)


def graphs_of(passes: Iterable[Pass], training: Iterable[int | None] = ()) -> list[tuple[str | None, int | None]]:
    """The graphs that passes, and sequence training, search: the states of each, and the order of its language model.

    None stands for the last alignment's states, and for the recipe's own language model. This graph comes first,
    whether a pass searches it or not: the exported model does.

    Args:
        passes: The passes.
        training: Orders of the language models of the lattices that networks are trained on.
    """
    needed: dict[tuple[str | None, int | None], None] = {(None, None): None}
    for plan in passes:
        needed[plan.states, None] = None
        if isinstance(plan.adaptation, Adaptation) and plan.lm_order is not None:
            needed[plan.adaptation.source.states, plan.lm_order] = None
    return list(needed | dict.fromkeys((None, order) for order in training))


def rescoring_models(passes: Iterable[Pass]) -> dict[str, LanguageModelConfig]:
    """The language models that passes rescore lattices with, by their names below ``lang/``."""
    outputs = (plan.output for plan in passes if plan.output is not None)
    return {each.language_model: each.lm for each in outputs if each.language_model is not None and each.lm is not None}


def possible_passes(experiment: Experiment, split: str, passes: Iterable[Pass]) -> list[Pass]:
    """The passes that can be made over a split: controls need more than one speaker, or environment."""
    counts = others_in((each.speaker, each.environment) for each in experiment.utterances(split))
    return [plan for plan in passes if plan.possible(*counts)]


def _preparation_stage(stages: Stages, experiment: AlignedExperiment, preparation: Preparation, aligner: str) -> None:
    voices = [] if preparation.voices is None else [voices_stage_name(preparation.voices)]
    stages.run(
        f"prepare {preparation.name}",
        partial(prepare, experiment),
        options=preparation,
        after=[f"network {preparation.network}", aligner, *voices],
        outputs=[experiment.folder.prepared(preparation.name)],
    )


def model_stage_name(plan: Pass) -> str:
    """Name of the stage that trains the acoustic model of a pass."""
    return rung_stage(plan.network) if plan.place and plan.place.gaussian else f"network {plan.network}"


def _pass_stage(stages: Stages, experiment: AlignedExperiment, split: str, plan: Pass) -> None:
    stages.run(
        f"{stage_of(plan)} over {split}",
        partial(make_pass, experiment.at(plan.states), split),
        options=plan,
        after=_stages_before(split, plan),
        outputs=pass_outputs(experiment, split, plan),
    )


def _outputs_stage(stages: Stages, experiment: AlignedExperiment, split: str, plans: Sequence[Pass]) -> None:
    """The stage of all outputs of a pass; ``plans`` is the pass with each of them."""
    stages.run(
        f"{stage_of(plans[0])} over {split}",
        partial(make_outputs, experiment.at(plans[0].states), split),
        options=tuple(plans),
        after=list(dict.fromkeys(name for plan in plans for name in _stages_before(split, plan))),
        outputs=[path for plan in plans for path in pass_outputs(experiment, split, plan)],
    )


def _stages_before(split: str, plan: Pass) -> list[str]:
    """Names of the stages whose results a pass reads."""
    after = [
        model_stage_name(plan),
        graph_stage_name(plan.states),
        *(f"{earlier.name} over {split}" for earlier in plan.needed),
    ]
    if split != HELDOUT:
        after.append(feature_stage_name(split, (plan.place or ModelPlace()).features))
    if plan.preparation is not None:
        after.append(f"prepare {plan.preparation.name}")
    if plan.output is not None and plan.output.language_model is not None:
        after.append(language_model_stage_name(plan.output.language_model))
    if isinstance(plan.adaptation, Adaptation) and plan.lm_order is not None:
        after.append(graph_stage_name(plan.adaptation.source.states, plan.lm_order))
    if split != HELDOUT or not plan.tuned:
        after.append(f"{plan.searched_as} over {HELDOUT}")
    return after
