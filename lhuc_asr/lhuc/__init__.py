"""Learning hidden unit contributions for any torch model: usable alone, with or without speech."""

from lhuc_asr.lhuc.adapt import adapt
from lhuc_asr.lhuc.adapted_model import AdaptedModel
from lhuc_asr.lhuc.amplitude import Amplitude, amplitude
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.lhuc.attach import attach, match_sites
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.batch import Batch
from lhuc_asr.lhuc.choice import Adaptation, Choice, Look
from lhuc_asr.lhuc.fold import fold
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.gate import Gate
from lhuc_asr.lhuc.hypotheses import GreedyCtc
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.lhuc.objective import CandidateTargets, FrameCrossEntropy, Objective, Targets, join_targets
from lhuc_asr.lhuc.perturbation import Noise, SpecAugment
from lhuc_asr.lhuc.posterior import GaussianPrior, Posterior
from lhuc_asr.lhuc.row_optim import RowAdam, RowSGD
from lhuc_asr.lhuc.sequence_objectives import Consistency, Ctc, Entropy, LabelCrossEntropy, Labels, Unlabelled
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, SpeakerState

__all__ = [
    "SPEAKER_INDEPENDENT",
    "Adaptation",
    "AdaptedModel",
    "Amplitude",
    "Batch",
    "CandidateTargets",
    "Choice",
    "Consistency",
    "Ctc",
    "Entropy",
    "FrameCrossEntropy",
    "Gate",
    "GaussianPrior",
    "GreedyCtc",
    "LabelCrossEntropy",
    "Labels",
    "Look",
    "Noise",
    "Objective",
    "Posterior",
    "RowAdam",
    "RowSGD",
    "Site",
    "SpeakerArchive",
    "SpeakerBank",
    "SpeakerState",
    "SpecAugment",
    "Targets",
    "Unlabelled",
    "adapt",
    "amplitude",
    "attach",
    "fold",
    "frozen",
    "is_model",
    "join_targets",
    "match_sites",
    "model_hash",
    "write_archive",
]
