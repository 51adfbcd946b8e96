"""The acoustic models that passes decode with: networks, and the Gaussian mixtures of the ladder's rungs.

Passes, graphs and features ask by name where a model is, which features it takes and whose states it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.pass_config import Rung

# Features of the first rungs, which take the cepstra and their differences as they are; see ``ExperimentFolder``.
CEPSTRA = "mfcc"
# Features in the space of the rung of this name: spliced cepstra, transformed by LDA and MLLT.
LDA: Rung = "lda_mllt"
# Features that the training speakers' fMLLR transforms have moved; the rung of this name makes them.
SAT: Rung = "fmllr_sat"


@dataclass(frozen=True)
class ModelPlace:
    """What a model is made of; without arguments, a network on the networks' own features.

    Attributes:
        gaussian: Whether the model is Gaussian mixtures, in ``hmm/<name>``, and not a network, in ``am/<name>``.
        features: Kind of the features that it takes: those in ``features/<split>_<kind>``, "" for the networks' own.
        trained_on: Kind of the training recordings' features, which speakers' transforms may have moved.
        states: Name of the topology, in ``hmm/``, whose pdfs it has; None for the last alignment's.
    """

    gaussian: bool = False
    features: str = ""
    trained_on: str = ""
    states: str | None = None


def last_alignment(config: ExperimentConfig) -> str:
    """Name, in ``hmm/``, of the alignment that the networks of the passes are trained on."""
    return realigned(config.realignments) if config.realignments else config.aligners[-1]


def realigned(number: int) -> str:
    """Name of a realignment's folder in ``hmm/``, given the number of the realignment, from 1."""
    return f"dnn{number}"


def model_place(config: ExperimentConfig, name: str) -> ModelPlace:
    """The place of a model that a pass may decode with.

    The last rung has the states of the last alignment: a network that aligns anew changes their probabilities of
    staying, and not which states there are.
    """
    rung = next((each for each in config.aligners if each == name), None)
    if rung is not None:
        features = features_of_rung(config, rung)
        last = rung == config.aligners[-1]
        return ModelPlace(True, features, SAT if rung == SAT else features, None if last else rung)
    on = config.rung_features(name)
    return ModelPlace() if on is None else ModelPlace(False, features_of_rung(config, on), on)


def rung_dimension(config: ExperimentConfig, rung: Rung) -> int:
    """Number of features per frame that a rung's Gaussians model."""
    return config.lda_mllt.dimension if features_of_rung(config, rung) == LDA else config.alignment_features.dimension


def features_of_rung(config: ExperimentConfig, rung: Rung) -> str:
    """Kind of the features that a rung's Gaussians model, before speakers' transforms."""
    upto = config.aligners[: config.aligners.index(rung) + 1]
    return LDA if LDA in upto else CEPSTRA
