"""The words of utterances as the lexicon writes them, and forced alignments to these words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lhuc_asr.features.extraction import spoken_at
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.aligner import align_blocks, pdfs_of, transcript_graphs
from lhuc_asr.hmm.viterbi import BEAM
from lhuc_asr.lang.corruption import corrupt
from lhuc_asr.lang.coverage import aligned_words
from lhuc_asr.lang.tags import is_tag
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.scoring import score_blocks
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.experiment import AlignedExperiment, Experiment

logger = logging.getLogger(__name__)


def transcripts(experiment: Experiment, split: str, speeds: Sequence[float] = (1.0,)) -> dict[str, tuple[str, ...]]:
    """The words of each utterance of a split, at each speed, as the lexicon writes them."""
    utterances = experiment.utterances(split)
    words = {utterance.id: aligned_words(utterance.words, experiment.lexicon) for utterance in utterances}
    return {spoken_at(speed, name): spoken for speed in speeds for name, spoken in words.items()}


def reference_pdfs(
    experiment: AlignedExperiment,
    split: str,
    place: ModelPlace,
    model: AcousticModel,
    max_unaligned: float,
    corrupted: float = 0.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Pdfs (T,) of a split's utterances, force-aligned to the reference transcripts: the oracle's targets.

    Utterances with a word that the lexicon lacks are left out, as are those without any word; no first pass can find
    such a word either.

    Args:
        experiment: The experiment.
        split: The split.
        place: Place of the network that aligns.
        model: That network.
        max_unaligned: Maximum fraction of the utterances that fail to align.
        corrupted: Fraction of the words that are replaced by other words of the lexicon.
        seed: Seed for choosing which words are replaced, and by what.

    Raises:
        AlignmentError: More utterances than ``max_unaligned`` fail to align.
    """
    store = experiment.features_of(place, split)
    blocks = partial(score_blocks, model, store)
    return pdfs_along(experiment, split, store.utterances, blocks, max_unaligned, corrupted=corrupted, seed=seed)


@dataclass(frozen=True)
class PathWeights:
    """Factors on the parts of a path's cost, as in a search; pauses and pronunciations have their full weight.

    Attributes:
        acoustic_scale: Factor on the log-likelihoods.
        transition_scale: Factor on the log probabilities of staying in and leaving HMM states.
    """

    acoustic_scale: float = 1.0
    transition_scale: float = 1.0


def pdfs_along(
    experiment: AlignedExperiment,
    split: str,
    utterances: Sequence[StoredUtterance],
    scored: Callable[[Sequence[StoredUtterance]], Iterable[tuple[list[StoredUtterance], np.ndarray]]],
    max_unaligned: float | None,
    weights: PathWeights = PathWeights(),
    corrupted: float = 0.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """``reference_pdfs`` of some utterances of a split, which may be scored by anything.

    Args:
        experiment: The experiment.
        split: The split.
        utterances: The utterances.
        scored: Function that gives blocks of those that can be aligned, and their log-likelihoods, shape (N, K).
        max_unaligned: Maximum fraction of the utterances that fail to align; None where the caller counts.
        weights: Weights of scores and transitions.
        corrupted: Fraction of the words that are replaced by other words of the lexicon.
        seed: Seed for choosing which words are replaced, and by what.

    Raises:
        AlignmentError: More utterances than ``max_unaligned`` fail to align.
    """
    lexicon, words = experiment.lexicon, transcripts(experiment, split)
    known = [u for u in utterances if words[u.id] and not lexicon.missing(words[u.id])]
    if len(known) < len(utterances):
        left_out = len(utterances) - len(known)
        logger.info("%s: %d utterances have words that the lexicon lacks; no reference targets", split, left_out)
    if not known:
        return {}
    if corrupted:
        spoken = {utterance.id: words[utterance.id] for utterance in known}
        words = corrupt(spoken, [word for word in lexicon.words if not is_tag(word)], corrupted, seed)
    graphs = transcript_graphs(known, words, lexicon, experiment.topology, weights.transition_scale)
    blocks = ((block, np.float32(weights.acoustic_scale) * scores) for block, scores in scored(known))
    # As wide as without a scale.
    beam = BEAM * weights.acoustic_scale
    return pdfs_of(align_blocks(blocks, graphs, experiment.processes, max_unaligned, beam)[0])
