"""An experiment as stages and readers see it: what is in the folder, opened by name.

It does not hold the configuration. The work of a stage is given an experiment and the options that the stage's key is
made of, so it cannot read an option that the key lacks. Stages that come after the aligners and the language models are
given an ``AlignedExperiment``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lhuc_asr.adapt.gaussian_model import gaussian_model
from lhuc_asr.adapt.speaker_data import AlignmentModel
from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.base.experiment_folder import (
    ANOTHER_FOLDER,
    CONFIG_FILE,
    LOG_FILE,
    RUN_FILE,
    ExperimentFolder,
    record_run,
    refuse_another,
)
from lhuc_asr.base.locks import locked
from lhuc_asr.base.runlog import logged_to
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm import topology
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.layered_network import LayeredNetwork
from lhuc_asr.pipeline.acoustic_models import SAT, ModelPlace, last_alignment
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.inputs import check_files
from lhuc_asr.pipeline.sample_rates import SampleRates

logger = logging.getLogger(__name__)

# A language model of an experiment: n-grams of another order, one that lattices are rescored with, or the recipe's own.
LanguageModelName = int | str | None
# In ``lang/``: the language model that has not seen the held-out speakers' transcripts, and its graph.
TUNING_FOLDER = "tuning"


@dataclass(frozen=True)
class Experiment:
    """The folder of an experiment or of one fold, with files opened by name, and the processes and device to use.

    Attributes:
        folder: Paths of the files.
        name: Name of the experiment's folder, such as ``an4``; for a fold, with the fold's, ``an4_folds5/fold1``.
        processes: Number of processes for features and search, and number of threads for alignment.
        device: Device that networks run on: ``cpu``, ``cuda``.
        ray: The cluster that work is divided among; None for this machine alone.
    """

    folder: ExperimentFolder
    name: str
    processes: int
    device: str
    ray: RayConfig | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, config: ExperimentConfig) -> Experiment:
        """The experiment of a recipe, or of one fold, in the configuration's folder."""
        path = config.folder.absolute()
        return cls(
            folder=ExperimentFolder(config.folder),
            name=path.name if config.folds == 1 else f"{path.parent.name}/{path.name}",
            processes=config.workers,
            device=config.device,
            ray=config.cluster,
        )

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words that can be recognised, with their pronunciations."""
        return read_lexicon_folder(self.folder.lang)

    def topology_of(self, alignment: str) -> ContextDependency:
        """The states of the phones in ``hmm/<alignment>``."""
        return topology.load(self.folder.topology(alignment))

    def utterances(self, split: str) -> list[Utterance]:
        """The utterances of a split."""
        return read_manifest(self.folder.manifest(split))

    def features(self, split: str, kind: str = "") -> FeatureStore:
        """The features of a split: the networks' own, or of another kind."""
        return FeatureStore(self.folder.features(split, kind))

    def aligned(self, alignment: str, split: str) -> Alignment:
        """The alignment of a split in ``hmm/<alignment>``."""
        pdf_count = self.topology_of(alignment).pdf_count
        return Alignment(self.folder.alignment(alignment, split), self.features(split), pdf_count)

    def network(self, name: str) -> LayeredNetwork:
        """A trained network, in evaluation mode, on the experiment's device."""
        return load_model(self.folder.network(name)).to(self.device)

    def lang(self, lm: LanguageModelName = None) -> Path:
        """The folder of a language model and its graph; that of the recipe's own has the lexicon too."""
        return self.folder.lang if lm is None else self.folder.lang / (lm if isinstance(lm, str) else f"order{lm}")


@dataclass(frozen=True)
class AlignedExperiment(Experiment):
    """An experiment that has alignments and language models.

    Attributes:
        last_rung: Name of the last Gaussian aligner.
        graphs: Name of the folder of the graphs, beside the language models; None for the language models' own.
        alignment: Name of an aligner's folder in ``hmm/``, the last one's. The passes' networks are trained on the
            alignment in this folder, and the graphs have the topology in it.
        separate_tuning_lm: Whether scales are tuned with a language model of their own, in ``lang/tuning/``.
    """

    last_rung: str
    graphs: str | None
    alignment: str
    separate_tuning_lm: bool

    @classmethod
    def of(cls, config: ExperimentConfig) -> AlignedExperiment:
        """The experiment of a recipe in a folder."""
        return cls(
            **vars(Experiment.of(config)),
            last_rung=config.aligners[-1],
            graphs=None,
            alignment=last_alignment(config),
            separate_tuning_lm=config.lm.from_transcripts,
        )

    @cached_property
    def topology(self) -> ContextDependency:
        """The states of the phones, from the last aligner."""
        return self.topology_of(self.alignment)

    @property
    def alignment_model(self) -> AlignmentModel:
        """The Gaussian mixtures of the last rung, whose pdfs are the networks'."""
        rung = self.last_rung
        unadapted = self.folder.unadapted_gmm(rung) if rung == SAT else None
        return AlignmentModel(self.folder.gmm(rung), unadapted, self.topology.pdf_count)

    def model(self, name: str, place: ModelPlace) -> AcousticModel:
        """The acoustic model of that name, a network or Gaussian mixtures, ready to score."""
        return gaussian_model(self.at(name).alignment_model) if place.gaussian else self.network(name)

    def at(self, rung: str | None) -> AlignedExperiment:
        """The experiment as it would be if a rung were the last aligner; None for the experiment itself."""
        return self if rung is None else replace(self, alignment=rung, last_rung=rung, graphs=rung)

    def features_of(self, place: ModelPlace, split: str) -> FeatureStore:
        """The features of a split that a model takes, without transforms of test or held-out speakers."""
        return self.features(split, place.trained_on if split == TRAIN else place.features)

    def language_model(self, split: str, lm: LanguageModelName = None) -> Path:
        """The folder of the language model for a split, which may differ for the held-out speakers."""
        folder = self.lang(lm)
        return folder / TUNING_FOLDER if split == HELDOUT and self.separate_tuning_lm else folder

    def graph(self, split: str, lm_order: int | None = None) -> Path:
        """The folder of the decoding graph for a split.

        Args:
            split: The split; the held-out speakers, on whom scales are tuned, may have a graph of their own.
            lm_order: Order of the language model; None for the recipe's own.
        """
        folder = self.language_model(split, lm_order)
        return folder if self.graphs is None else folder / self.graphs


@dataclass(frozen=True)
class Aligned:
    """An alignment of the training and held-out speakers.

    Attributes:
        alignment: Name of the folder in ``hmm/`` with the topology and the alignments.
        stage: Name of the stage that wrote this folder.
    """

    alignment: str
    stage: str


def at_corpus_rate(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration with the sample rates of its features, which may be those of the recordings.

    Raises:
        CorpusError: The recordings' lowest rate is too low for features.
        ConfigError: The features have too many bins for it.
    """
    rates = SampleRates.read(ExperimentFolder(config.folder).sample_rate)
    features, alignment = config.features, config.alignment_features
    rate, alignment_rate = rates.of_features(features.sample_rate, alignment.sample_rate)
    return config.model_copy(
        update={"features": features.with_rate(rate), "alignment_features": alignment.with_rate(alignment_rate)}
    )


def read_config(path: Path) -> ExperimentConfig:
    """The recipe that an experiment was made with, from its ``config.yaml``.

    Raises:
        ConfigError: The file has options or values that this version does not know.
    """
    try:
        return load_config(ExperimentConfig, path)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; expected a file of this version of lhuc_asr: make the experiment again, lhuc-asr run RECIPE "
            f"exp={path.parent}"
        ) from error


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """A recipe with overrides.

    The ``config.yaml`` that a run wrote is the recipe of the folder that it is in, wherever the folder was moved to.

    Args:
        path: The recipe's YAML file.
        overrides: Settings ``key=value``.

    Raises:
        ConfigError: As ``load_config``.
    """
    config = load_config(ExperimentConfig, path, overrides)
    written_by_run = path.name == CONFIG_FILE and (path.parent / RUN_FILE).is_file()
    if written_by_run and not any(override.startswith("exp=") for override in overrides):
        return config.model_copy(update={"exp": path.parent})
    return config


def read_experiment(path: Path) -> tuple[ExperimentConfig, AlignedExperiment]:
    """A finished experiment, or one fold of a cross-validation, and its configuration.

    Raises:
        ExperimentError: The folder is not an experiment's or is that of a whole cross-validation, or the experiment is
            unfinished.
        ConfigError: The folder's ``config.yaml`` was written by another version.
    """
    folder = ExperimentFolder(path)
    configs = [file for file in (path / CONFIG_FILE, path.parent / CONFIG_FILE) if file.is_file()]
    if not configs or (configs[0].parent != path and not folder.manifest(TRAIN).is_file()):
        raise ExperimentError(f"{path}: not an experiment's folder, it has no {CONFIG_FILE}; give one such as exp/an4")
    config = read_config(configs[0])
    refuse_seeds(config, path)
    if config.folds > 1 and configs[0].parent == path:
        raise ExperimentError(
            f"{path}: a cross-validation has a network for each fold; give one of them, such as {path / 'fold1'}"
        )
    if not folder.sample_rate.is_file():
        raise ExperimentError(f"{path}: the experiment is not finished; finish it with lhuc-asr run")
    config = at_corpus_rate(config.model_copy(update={"exp": path}))
    return config, AlignedExperiment.of(config)


def refuse_seeds(config: ExperimentConfig, path: Path) -> None:
    """Refuse the folder above the experiments of several seeds, each of which is an experiment of its own.

    Raises:
        ExperimentError: The configuration has several seeds.
    """
    if config.seeds is not None:
        one = path / f"seed{config.seeds[0]}"
        raise ExperimentError(
            f"{path}: has an experiment for each of {len(config.seeds)} seeds; give one, such as {one}"
        )


def fold_configs(config: ExperimentConfig) -> list[ExperimentConfig]:
    """The configuration of each fold of a cross-validation, each with its own folder; without folds, ``config``."""
    if config.folds == 1:
        return [config]
    return [config.model_copy(update={"exp": config.folder / f"fold{fold}"}) for fold in range(1, config.folds + 1)]


def seed_configs(config: ExperimentConfig) -> list[ExperimentConfig]:
    """The configuration of the experiment with each seed, each with its own folder; without seeds, ``config``."""
    if config.seeds is None:
        return [config]
    return [
        config.model_copy(update={"seed": seed, "seeds": None, "exp": config.folder / f"seed{seed}"})
        for seed in config.seeds
    ]


def fold_of(config: ExperimentConfig, path: Path) -> int | None:
    """Number of the fold in a folder, from 1; None without cross-validation.

    Raises:
        ExperimentError: The cross-validation has no fold in a folder of that name.
    """
    if config.folds == 1:
        return None
    names = [fold.folder.name for fold in fold_configs(config)]
    name = path.absolute().name
    if name not in names:
        raise ExperimentError(f"{path}: not one of the folds {names[0]} to {names[-1]}; give one of them")
    return names.index(name) + 1


@contextmanager
def opened(config: ExperimentConfig, record: bool = True) -> Iterator[ExperimentFolder]:
    """Keep other runs out of an experiment's folder.

    Args:
        config: The recipe.
        record: Whether the recipe is written to the folder, as ``config.yaml`` and ``run.json``; if a file that it
            names is missing, the folder stays as it was.

    Raises:
        ConfigError, CorpusError: A file that the recipe names is missing.
        ExperimentError: Another run is using the folder, or the folder cannot be written to, holds another experiment
            or files that no run made.
    """
    with locked(config.folder) as folder:
        if record:
            check_folder(config)
            record_run(folder, config, config.seed)
        with logged_to(folder / LOG_FILE):
            yield ExperimentFolder(folder)


def check_folder(config: ExperimentConfig) -> None:
    """Refuse a folder that is not this recipe's, and missing files; nothing is written.

    Raises:
        ConfigError, CorpusError: A file that the recipe names is missing.
        ExperimentError: The folder holds another experiment, or files that no run made.
    """
    refuse_another(config.folder, config, config.name)
    _refuse_other_parts(config.folder / CONFIG_FILE, config)
    check_files(config)


def _refuse_other_parts(path: Path, config: ExperimentConfig) -> None:
    """Refuse the folder of a cross-validation for an experiment without, and the other way round."""
    try:
        before = load_config(ExperimentConfig, path)
    except ConfigError:  # missing, or of another version, whose stages are all run again
        return
    for kind, differ in (
        ("folds", (before.folds > 1) != (config.folds > 1)),
        ("seeds", (before.seeds is None) != (config.seeds is None)),
    ):
        if differ:
            kinds = [f"{kind}={getattr(each, kind)}" for each in (before, config)]
            raise ExperimentError(
                f"{path.parent}: holds an experiment with {kinds[0]}, not {kinds[1]}; {ANOTHER_FOLDER}"
            )
