"""The words of utterances as the lexicon writes them, and forced alignments to these words."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from lhuc_asr.features.extraction import spoken_at
from lhuc_asr.hmm.aligner import align_blocks, pdfs_of, transcript_graphs
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
    lexicon, store = experiment.lexicon, experiment.features_of(place, split)
    words = transcripts(experiment, split)
    known = [u for u in store.utterances if words[u.id] and not lexicon.missing(words[u.id])]
    if len(known) < len(store.utterances):
        left_out = len(store.utterances) - len(known)
        logger.info("%s: %d utterances have words that the lexicon lacks; no reference targets", split, left_out)
    if not known:
        return {}
    if corrupted:
        spoken = {utterance.id: words[utterance.id] for utterance in known}
        words = corrupt(spoken, [word for word in lexicon.words if not is_tag(word)], corrupted, seed)
    graphs = transcript_graphs(known, words, lexicon, experiment.topology)
    paths, _ = align_blocks(score_blocks(model, store, known), graphs, experiment.processes, max_unaligned)
    return pdfs_of(paths)
