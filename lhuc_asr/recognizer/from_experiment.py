"""The recognizer that an experiment has trained, with one of its passes' way of adapting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.version import __version__
from lhuc_asr.lhuc.speaker import model_hash
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE
from lhuc_asr.pipeline.config import ExperimentConfig, first_pass
from lhuc_asr.pipeline.experiment import last_alignment, read_experiment
from lhuc_asr.pipeline.passes import preparation_of, tuned_search
from lhuc_asr.pipeline.splits import HELDOUT, TRAIN, test_names
from lhuc_asr.recognizer.model_folder import MODEL_JSON, ModelDescription, ModelFiles, read_exported

# A piece of a long recording is at most as long as this share of the training utterances. With AN4's recordings of each
# test speaker joined to one, pieces of 5 s (this share) cost 6 % more errors than the utterances themselves, of 10 s
# 18 %, of 20 s 25 %: the language model knows one utterance, not the next after it.
USUAL_SHARE = 0.95
# Pieces are shorter than this, however long the training utterances are.
LONGEST_PIECE_SECONDS = 20.0


def find_model(folder: Path) -> tuple[ModelDescription, ModelFiles]:
    """The model in an exported folder, or that of an experiment's with the first of its passes that adapts.

    Raises:
        ExperimentError: It is neither, or a file is missing or damaged.
    """
    if (folder / MODEL_JSON).exists():
        return read_exported(folder)
    if not folder.is_dir():
        raise ExperimentError(f"{folder}: no such folder; give one that lhuc-asr export made, or an experiment's")
    return of_experiment(folder)


def of_experiment(folder: Path, adapted_pass: str | None = None) -> tuple[ModelDescription, ModelFiles]:
    """The model of a finished experiment, or of one fold of a cross-validation.

    Args:
        folder: The experiment's, such as ``exp/an4`` or ``exp/an4_folds5/fold1``.
        adapted_pass: The pass whose way of adapting the model has; the recipe's first unless given.

    Raises:
        ExperimentError: The folder is no finished experiment.
        ConfigError: There is no such pass, or its way of adapting is none for a new speaker.
    """
    config, layout = read_experiment(folder)
    name = adapted_pass or next(iter(config.passes))
    _check_pass(config, name)
    plan = config.passes[name]
    preparation = preparation_of(config, name)
    files = ModelFiles(
        network=layout.acoustic_model(plan.network) / MODEL_FILE,
        topology=layout.hmm(last_alignment(config)) / TOPOLOGY_FILE,
        lang=layout.lang,
        prepared=None if preparation is None else layout.prepared(preparation),
    )
    try:
        whole, piece = _lengths(config, layout)
        description = ModelDescription(
            made_by=__version__,
            experiment=f"{config.folder.name}/{folder.name}" if config.folds > 1 else config.folder.name,
            adapted_pass=name,
            network=model_hash(load_model(files.network)),
            seed=config.seed,
            features=config.features,
            whole_seconds=whole,
            piece_seconds=piece,
            first_search=tuned_search(config, layout, first_pass(plan.network)),
            adapted_search=tuned_search(config, layout, name),
            lattice=config.lattice,
            method=config.method_of(plan),
            targets=plan.targets,
            sha256=files.hashes(),
        )
    except FileNotFoundError as error:
        raise ExperimentError(
            f"{error.filename}: no such file, the experiment is not finished; lhuc-asr run goes on with it"
        ) from error
    return description, files


def _check_pass(config: ExperimentConfig, name: str) -> None:
    if name not in config.passes:
        raise ConfigError(f"no pass {name!r} that adapts; the experiment has {', '.join(config.passes)}")
    plan = config.passes[name]
    if plan.combine is not None:
        way = "to speakers and environments apart"
    elif plan.targets.kind == "reference":
        way = "on reference transcripts"
    elif config.source_of(plan) != first_pass(plan.network):
        way = f"on what the pass {config.source_of(plan)!r} found"
    elif plan.data != DataConfig():
        way = "on a part of a speaker's recordings"
    else:
        return
    raise ConfigError(
        f"the pass {name!r} adapts {way}; a new speaker is adapted to on the first pass over all that is given: choose "
        f"another of {', '.join(config.passes)} with --pass"
    )


def _lengths(config: ExperimentConfig, layout: ExperimentFolder) -> tuple[float, float]:
    """Seconds of the longest utterance, and of a piece."""
    train = [utterance.seconds for utterance in read_manifest(layout.manifest(TRAIN))]
    others = [u.seconds for split in (HELDOUT, *test_names(config)) for u in read_manifest(layout.manifest(split))]
    return max(train + others), min(float(np.quantile(train, USUAL_SHARE)), LONGEST_PIECE_SECONDS)
