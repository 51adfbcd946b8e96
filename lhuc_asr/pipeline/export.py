"""The recognizer's model of an experiment, which adapts to new speakers as one of the experiment's passes does."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.base.hashed_folder import hashes
from lhuc_asr.base.stages import RecordedStages, Stages
from lhuc_asr.base.version import __version__
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.lhuc.identity import model_hash
from lhuc_asr.pipeline.acoustic_models import LDA, ModelPlace
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment, Experiment, fold_of, read_experiment
from lhuc_asr.pipeline.order import add_stages, model_stage_name
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.plan import passes_of, with_needed
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass
from lhuc_asr.recognizer.model_folder import (
    GMM_FILE,
    LANG_FILES,
    MODEL_JSON,
    MODELS,
    PREPARED_FOLDER,
    SPACE_FILE,
    TOPOLOGY_FILE,
    UNADAPTED_GMM_FILE,
    ModelDescription,
    ModelFiles,
    network_file,
)
from lhuc_asr.recognizer.pass_description import PassDescription

# This fraction of the training utterances is no longer than the longest piece of a long recording. With each AN4 test
# speaker's recordings joined into one, pieces of 5 s (this fraction) cost 6 % more errors than the utterances
# themselves, pieces of 10 s 18 %, and of 20 s 25 %: the language model knows one utterance, not what follows it.
USUAL_FRACTION = 0.95
# Pieces are at most this long, however long the training utterances are.
LONGEST_PIECE_SECONDS = 20.0


@dataclass(frozen=True)
class ModelOptions:
    """Everything that the description of a model depends on.

    Attributes:
        without_speaker: The pass that decodes recordings of which no speaker is given.
        adapted: The pass that the model adapts like.
        features: Features of the networks.
        alignment_features: Features of the Gaussian mixtures.
        lattice: Options of lattices.
        tests: Names of the test sets, whose recordings are decoded whole.
        by_environment: True if features are normalised in each environment separately; None otherwise.
    """

    without_speaker: Pass
    adapted: Pass
    features: FeatureConfig
    alignment_features: FeatureConfig
    lattice: LatticeConfig
    tests: tuple[str, ...]
    by_environment: bool | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, name: str) -> ModelOptions:
        """The options of a recipe's model that adapts like one of the passes."""
        passes = passes_of(config)
        resolved = config.features.resolved, config.alignment_features.resolved
        by_environment = config.normalised_by == "environment" or None
        plans = _without_speaker(passes[name], passes), passes[name]
        return cls(*plans, *resolved, config.lattice, config.test_sets, by_environment)

    @property
    def passes(self) -> list[Pass]:
        """The passes of the model, each after those that it needs; the last one adapts."""
        return with_needed([self.without_speaker, self.adapted])

    @property
    def stages(self) -> list[str]:
        """Names of the stages that the model is made of; the stages before them count too."""
        names = ["corpus", "graph"]
        for plan in self.passes:
            prepared = [] if plan.preparation is None else [f"prepare {plan.preparation.name}"]
            names += [model_stage_name(plan), *prepared, f"{plan.searched_as} over {HELDOUT}"]
        return list(dict.fromkeys(names))


def _without_speaker(adapted: Pass, passes: Mapping[str, Pass]) -> Pass:
    """The pass that decodes recordings of which no speaker is given: it adapts to nothing but their features.

    A network that was trained on transformed features, or with vectors of speakers, does not know others.
    """
    below = adapted.adaptation.on if isinstance(adapted.adaptation, Adaptation) else None
    for plan in (adapted, below):
        # The upper one first: a vector on top of a transform leaves the network's other parameters alone too.
        method = plan.adaptation.method if plan is not None and isinstance(plan.adaptation, Adaptation) else None
        if plan is not None and method is not None and (method.uses_gaussians or method.needs_vectors):
            return plan
    return passes[first_pass(adapted.network)]


def model_stage(stages: Stages, experiment: AlignedExperiment, options: ModelOptions) -> None:
    """Add the stage that turns the experiment's folder into a model's, unless the pass does not suit a new speaker."""
    if _obstacle(options.adapted) is not None:
        return
    stages.run(
        "model",
        partial(_write_description, experiment),
        options=options,
        after=options.stages,
        outputs=[experiment.folder.folder / MODEL_JSON],
    )


def remove_unsuited(folder: Path, options: ModelOptions) -> None:
    """Remove the model of an earlier run with another first pass, if this run's does not suit a new speaker.

    It would be taken for a model that adapts like this run's pass.
    """
    if _obstacle(options.adapted) is not None:
        (folder / MODEL_JSON).unlink(missing_ok=True)


def _write_description(experiment: AlignedExperiment, options: ModelOptions) -> None:
    MODELS.write(experiment.folder.folder, _describe(experiment, options))


def export(folder: Path, out: Path, adapted_pass: str | None = None) -> ModelDescription:
    """Copy the model of a finished experiment, or of one fold of a cross-validation, into a folder of its own.

    Args:
        folder: The experiment's folder, such as ``exp/an4`` or ``exp/an4_folds5/fold1``.
        out: The folder to make, whole or not at all; a model that was exported there before is replaced.
        adapted_pass: The pass that the model adapts like; None for the recipe's first.

    Raises:
        ExperimentError: The folder is not a finished experiment's, files in it are of other options than its
            ``config.yaml`` has or are not those that the run wrote, a run changes them meanwhile, or ``out`` is
            something else.
        ConfigError: There is no such pass, or the pass does not suit a new speaker.
    """
    config, experiment = read_experiment(folder)
    name = adapted_pass or next(iter(config.passes))
    if name not in config.passes:
        raise ConfigError(f"{name!r} is not a pass that adapts; the experiment has {', '.join(config.passes)}")
    options = ModelOptions.of(config, name)
    if (way := _obstacle(options.adapted)) is not None:
        raise ConfigError(
            f"the pass {name!r} adapts {way}; a model adapts to a new speaker on its own words of all recordings: "
            f"choose another of {', '.join(config.passes)} with --pass"
        )
    _check_stages(config, experiment, options)
    description = _describe(experiment, options)
    files = ModelFiles.of(description, experiment.folder.folder)
    with MODELS.replacing(out) as temporary:
        for file, path in files.by_name.items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / file)
        # A run that began meanwhile has deleted the record of the first stage that it makes anew.
        _check_stages(config, experiment, options)
        MODELS.write(temporary, description.model_copy(update={"files": {}}))
    return description


def _check_stages(config: ExperimentConfig, experiment: AlignedExperiment, options: ModelOptions) -> None:
    """Refuse a folder in which a stage of the model is unfinished, or has other options than ``config.yaml``."""
    stages, folder = RecordedStages(experiment.folder.folder), experiment.folder.folder
    add_stages(stages, config, fold_of(config, folder))
    if stage := stages.first_stale(options.stages):
        raise ExperimentError(
            f"{folder}: the stage {stage!r} is not finished, was run with other options than config.yaml has, or its "
            "files were changed; finish the experiment with lhuc-asr run"
        )


def _describe(experiment: AlignedExperiment, options: ModelOptions) -> ModelDescription:
    """The description of an experiment's model, with the paths of the files in the experiment's folder."""
    folder, passes = experiment.folder, [_described(experiment, options, plan) for plan in options.passes]
    mixtures = experiment.alignment_model
    paths = {
        **{network_file(each.network): folder.network(each.network) for each in passes if each.network is not None},
        TOPOLOGY_FILE: folder.topology(experiment.alignment),
        GMM_FILE: mixtures.adapted,
        **({} if mixtures.unadapted is None else {UNADAPTED_GMM_FILE: mixtures.unadapted}),
        **({SPACE_FILE: folder.space(LDA)} if any(each.in_space for each in passes) else {}),
        **{name: folder.folder / name for name in LANG_FILES},
    }
    for plan in options.passes:
        if plan.preparation is not None:
            learned = sorted(folder.prepared(plan.preparation.name).iterdir())
            paths |= {f"{PREPARED_FOLDER}/{plan.name}/{path.name}": path for path in learned}
    places = {name: path.relative_to(folder.folder).as_posix() for name, path in paths.items()}
    whole, piece = _lengths(experiment, options.tests)
    plan, place = options.adapted, options.adapted.place or ModelPlace()
    return ModelDescription(
        made_by=__version__,
        experiment=experiment.name,
        # On the processor: the machine may not have the device that the experiment ran on.
        network=model_hash(replace(experiment, device="cpu").model(plan.network, place)),
        seed=plan.seed,
        whole_seconds=whole,
        piece_seconds=piece,
        lattice=options.lattice,
        normalised_by="environment" if options.by_environment else "speaker",
        passes=tuple(passes),
        without_speaker=options.without_speaker.name,
        files={name: place for name, place in places.items() if name != place},
        sha256=hashes(paths),
    )


def _described(experiment: AlignedExperiment, options: ModelOptions, plan: Pass) -> PassDescription:
    """The description of a pass of the model."""
    place = plan.place or ModelPlace()
    adaptation = plan.adaptation if isinstance(plan.adaptation, Adaptation) else None
    return PassDescription(
        name=plan.name,
        network=None if place.gaussian else plan.network,
        features=options.alignment_features if place.features else options.features,
        in_space=place.features == LDA,
        search=tuned_search(experiment, plan),
        method=None if adaptation is None else adaptation.method,
        targets=None if adaptation is None else adaptation.targets,
    )


def _obstacle(plan: Pass) -> str | None:
    """What a pass adapts to or on that does not suit a new speaker; None if the pass suits one."""
    adaptation = plan.adaptation
    if not isinstance(adaptation, Adaptation):
        return "to speakers and environments separately"
    if not adaptation.targets.unsupervised:
        return "on reference transcripts"
    if plan.lm_order is not None:
        return f"on the words of a search with a language model of order {plan.lm_order}"
    if adaptation.data != DataConfig():
        return "on a part of a speaker's recordings"
    for earlier in plan.needed:
        if earlier.adaptation is not None and (way := _obstacle(earlier)) is not None:
            return f"on the pass {earlier.name!r}, which adapts {way}"
    return None


def _lengths(experiment: Experiment, tests: Iterable[str]) -> tuple[float, float]:
    """Length of the longest utterance, and maximum length of a piece, in seconds."""
    train = [utterance.seconds for utterance in experiment.utterances(TRAIN)]
    others = [u.seconds for split in (HELDOUT, *tests) for u in experiment.utterances(split)]
    return max(train + others), min(float(np.quantile(train, USUAL_FRACTION)), LONGEST_PIECE_SECONDS)
