"""The stages that extract features, one for each split and kind: what a new test set needs leaves the others alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.extraction import extract
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.pipeline.acoustic_models import CEPSTRA, LDA
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import recordings_of
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.feature_parts import extract_on_cluster
from lhuc_asr.pipeline.sample_rates import SampleRates


@dataclass(frozen=True)
class FeatureOptions:
    """Everything that the features of a split depend on apart from the recordings.

    Attributes:
        features: Kind of features.
        speeds: Speeds of the recordings.
        by_environment: True if features are normalised in each environment separately; None otherwise.
    """

    features: FeatureConfig
    speeds: tuple[float, ...]
    by_environment: bool | None

    @classmethod
    def of(cls, config: ExperimentConfig, split: str, kind: str) -> FeatureOptions:
        """The options of a recipe whose sample rates are known."""
        features = config.alignment_features if kind == CEPSTRA else config.features
        by_environment = config.normalised_by == "environment" or None
        return cls(features.resolved, config.speeds if split == TRAIN else (1.0,), by_environment)


def feature_stages(
    stages: Stages, experiment: Experiment, config: ExperimentConfig, of_tests: Iterable[str], corpus_read: bool
) -> None:
    """Add the stages of all features that are computed from recordings.

    Args:
        stages: The stages; that of the corpus comes before.
        experiment: The experiment.
        config: The recipe, with sample rates.
        of_tests: Kinds of features that passes over test sets take.
        corpus_read: Whether the folder has the corpus.
    """
    of_tests = set(of_tests)
    for split in (TRAIN, HELDOUT, *config.test_sets):
        recordings = recordings_of(experiment, split, corpus_read)
        for kind in ("", CEPSTRA):
            if kind == CEPSTRA and split not in (TRAIN, HELDOUT) and of_tests.isdisjoint((CEPSTRA, LDA)):
                continue  # Gaussians do not decode
            stages.run(
                feature_stage_name(split, kind),
                partial(_extract_features, experiment, split, kind),
                options=FeatureOptions.of(config, split, kind),
                after=[recordings],
                outputs=[experiment.folder.features(split, kind)],
            )


def feature_stage_name(split: str, kind: str = "") -> str:
    """Name of the stage that writes ``features/<split>_<kind>``, "" for the networks' own features.

    A rung itself writes those of the training and held-out speakers that it transforms.
    """
    return f"{kind or 'features'} of {split}"


def _extract_features(experiment: Experiment, split: str, kind: str, options: FeatureOptions) -> None:
    folder = experiment.folder
    if split == TRAIN and not kind:
        SampleRates.read(folder.sample_rate).log_for(options.features.sample_rate)
    place, utterances, apart = folder.features(split, kind), experiment.utterances(split), bool(options.by_environment)
    if experiment.ray is not None:
        arguments = place, utterances, options.features, options.speeds
        extract_on_cluster(experiment.ray, *arguments, by_environment=apart)
        return
    extract(place, utterances, options.features, experiment.processes, options.speeds, by_environment=apart)
