"""The recognizer's model of an experiment, which adapts to new speakers as one of the experiment's passes does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
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
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment, Experiment, fold_of, read_experiment
from lhuc_asr.pipeline.order import add_stages
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.plan import Adaptation, Pass, passes_of
from lhuc_asr.recognizer.model_folder import (
    GMM_FILE,
    LANG_FILES,
    MODEL_JSON,
    MODELS,
    NETWORK_FILE,
    PREPARED_FOLDER,
    TOPOLOGY_FILE,
    ModelDescription,
    ModelFiles,
)

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
        first: The first pass over a new speaker's recordings.
        adapted: The pass that the model adapts like.
        features: Features of the network.
        alignment_features: Features of the Gaussian mixtures.
        lattice: Options of lattices.
    """

    first: Pass
    adapted: Pass
    features: FeatureConfig
    alignment_features: FeatureConfig
    lattice: LatticeConfig

    @classmethod
    def of(cls, config: ExperimentConfig, name: str) -> ModelOptions:
        """The options of a recipe's model that adapts like one of the passes."""
        passes = passes_of(config)
        first = passes[first_pass(passes[name].network)]
        return cls(first, passes[name], config.features.resolved, config.alignment_features.resolved, config.lattice)

    @property
    def stages(self) -> list[str]:
        """Names of the stages that the model is made of; the stages before them count too."""
        plan = self.adapted
        prepared = [] if plan.preparation is None else [f"prepare {plan.preparation.name}"]
        tuned = [f"{each.searched_as} over {HELDOUT}" for each in (self.first, plan)]
        return ["corpus", "graph", f"network {plan.network}", *prepared, *tuned]


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
            f"the pass {name!r} adapts {way}; a model adapts to a new speaker on the first pass over all recordings: "
            f"choose another of {', '.join(config.passes)} with --pass"
        )
    _check_stages(config, experiment, options)
    description = _describe(experiment, options)
    files = ModelFiles.of(description, experiment.folder.folder)
    with MODELS.replacing(out) as temporary:
        for file, path in files.by_name.items():
            (temporary / file).parent.mkdir(exist_ok=True)
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
    plan, folder = options.adapted, experiment.folder
    adaptation = plan.adaptation
    if not isinstance(adaptation, Adaptation):
        raise ValueError(f"{plan.name}: a model needs a pass that estimates")
    paths = {
        NETWORK_FILE: folder.network(plan.network),
        TOPOLOGY_FILE: folder.topology(experiment.alignment),
        GMM_FILE: folder.gmm(experiment.last_rung),
        **{name: folder.folder / name for name in LANG_FILES},
    }
    if plan.preparation is not None:
        learned = sorted(folder.prepared(plan.preparation.name).iterdir())
        paths |= {f"{PREPARED_FOLDER}/{path.name}": path for path in learned}
    places = {name: path.relative_to(folder.folder).as_posix() for name, path in paths.items()}
    whole, piece = _lengths(experiment)
    return ModelDescription(
        made_by=__version__,
        experiment=experiment.name,
        adapted_pass=plan.name,
        # Not ``experiment.network``: the machine may not have the device that the experiment ran on.
        network=model_hash(load_model(folder.network(plan.network))),
        seed=plan.seed,
        features=options.features,
        alignment_features=options.alignment_features,
        whole_seconds=whole,
        piece_seconds=piece,
        first_search=tuned_search(experiment, options.first),
        adapted_search=tuned_search(experiment, plan),
        lattice=options.lattice,
        method=adaptation.method,
        targets=adaptation.targets.model_copy(update={"source": None}),
        files={name: place for name, place in places.items() if name != place},
        sha256=hashes(paths),
    )


def _obstacle(plan: Pass) -> str | None:
    """What a pass adapts to or on that does not suit a new speaker; None if the pass suits one."""
    adaptation = plan.adaptation
    if not isinstance(adaptation, Adaptation):
        return "to speakers and environments separately"
    if not adaptation.targets.unsupervised:
        return "on reference transcripts"
    if adaptation.source.name != first_pass(plan.network):
        return f"on the words of the pass {adaptation.source.name!r}"
    if plan.lm_order is not None:
        return f"on the words of a search with a language model of order {plan.lm_order}"
    return None if adaptation.data == DataConfig() else "on a part of a speaker's recordings"


def _lengths(experiment: Experiment) -> tuple[float, float]:
    """Length of the longest utterance, and maximum length of a piece, in seconds."""
    train = [utterance.seconds for utterance in experiment.utterances(TRAIN)]
    others = [u.seconds for split in (HELDOUT, *experiment.tests) for u in experiment.utterances(split)]
    return max(train + others), min(float(np.quantile(train, USUAL_FRACTION)), LONGEST_PIECE_SECONDS)
