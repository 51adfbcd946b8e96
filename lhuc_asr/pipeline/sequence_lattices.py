"""The lattices of the training recordings that a network is trained on by sequences, and their references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.lattice_store import write_lattices
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.networks import NetworkOptions, frame_source
from lhuc_asr.pipeline.resolved_pass import Pass
from lhuc_asr.pipeline.transcripts import PathWeights, pdfs_along

# In a network's folder: a store of lattices for each split.
LATTICES_FOLDER = "lattices"


@dataclass(frozen=True)
class LatticesOptions:
    """Everything that the lattices of the training recordings depend on, apart from the network and its alignment.

    Attributes:
        first: The first pass of the network, whose tuned scale and penalty the search has.
        network: How the network takes its features.
        lm_order: Order of the language model; None for the recipe's own.
        lattice, word_lattice: Options of the lattices.
        transition_scale: Factor on the transition costs in the graph.
        max_unaligned: Maximum fraction of the references that fail to align; None where the caller counts.
        max_without_lattice: Maximum fraction of the recordings without a lattice.
    """

    first: Pass
    network: NetworkOptions
    lm_order: int | None
    lattice: LatticeConfig
    word_lattice: WordLatticeConfig
    transition_scale: float
    max_unaligned: float | None
    max_without_lattice: float


def lattice_files(folder: Path, split: str) -> tuple[Path, Path]:
    """The store of a split's lattices, and the alignment of its references."""
    return folder / split, folder / f"{split}.ali"


def write_all_lattices(experiment: AlignedExperiment, start: str, folder: Path, options: LatticesOptions) -> None:
    """Make the lattices of the training recordings, at their own speed, and of the held-out speakers' ones."""
    for split in (TRAIN, HELDOUT):
        write_split(experiment, start, split, lattice_files(folder, split), options)


def write_split(
    experiment: AlignedExperiment, start: str, split: str, places: tuple[Path, Path], options: LatticesOptions
) -> None:
    """Make the lattices of a split, and align its references.

    The network aligns the references itself, so that their pdfs are those of the paths with these words in the
    lattices. Both splits have the language model of the tests, which has seen the training transcripts: references
    should be in their lattices.

    Args:
        experiment: The experiment.
        start: Name of the network.
        split: The split.
        places: The store of the lattices, and the alignment of the references.
        options: The options.

    Raises:
        LatticeError, AlignmentError: Too many recordings have no lattice, or references no alignment.
    """
    model, search, (store, references) = experiment.network(start), tuned_search(experiment, options.first), places
    source = own_speed(experiment, split, options.network)
    with SearchPool(experiment.graph(TRAIN, options.lm_order), experiment.processes) as searches:
        named = (utterance.id for utterance in source.utterances)
        made = searches.word_lattices_all(
            _scores(model, source), search, options.lattice, options.word_lattice, options.max_without_lattice
        )
        pairs = zip(named, progress(made, f"lattices of {split}", len(source.utterances)), strict=True)
        denominators = ((utterance, _denominator(each)) for utterance, each in pairs if each is not None)
        write_lattices(store, denominators, model.pdf_count)
    # With other weights than in the search, the borders of some states and words would be elsewhere than in the
    # lattice, or its pauses and pronunciations be others, and most references not among its paths.
    weights = PathWeights(search.acoustic_scale, options.transition_scale)
    blocks = partial(_blocks, model, source)
    pdfs = pdfs_along(experiment, split, source.utterances, blocks, options.max_unaligned, weights)
    write_alignment(references, experiment.features(split, options.network.features or ""), pdfs)


def _denominator(lattice: WordLattice) -> DenominatorLattice:
    """A word lattice without its words."""
    arcs = lattice.source, lattice.target, lattice.graph_cost, lattice.pdf, lattice.offset
    return DenominatorLattice(lattice.frame, lattice.final, *arcs)


def _scores(model: AcousticModel, source: FrameSource) -> Iterator[tuple[str, np.ndarray]]:
    for utterance in source.utterances:
        spliced, _ = source.whole([utterance])
        with torch.no_grad():
            yield utterance.id, model.log_likelihoods(spliced.to(model.log_prior.device)).cpu().numpy()


def _blocks(
    model: AcousticModel, source: FrameSource, utterances: Sequence[StoredUtterance]
) -> Iterator[tuple[list[StoredUtterance], np.ndarray]]:
    """Each of some utterances of a source, with its scores."""
    scores = _scores(model, replace(source, utterances=utterances))
    return (([each], matrix) for each, (_, matrix) in zip(utterances, scores, strict=True))


def own_speed(experiment: AlignedExperiment, split: str, options: NetworkOptions) -> FrameSource:
    """The frames of a split's recordings at their own speed, with their pdfs."""
    spoken = {utterance.id for utterance in experiment.utterances(split)}
    return frame_source(experiment, experiment.alignment, split, options, spoken)
