"""The stages of sequence training: lattices of the training recordings, and a network that goes on from another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.word_lattice import WordLattice, WordLatticeConfig
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.hmm.alignment import Alignment, write_alignment
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.checkpoint import save_model
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.lattice_store import LatticeStore, write_lattices
from lhuc_asr.nnet.sequence_source import SequenceSource, sequence_source
from lhuc_asr.nnet.sequence_trainer import SequenceConfig, train_sequences
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.language import graph_stage_name
from lhuc_asr.pipeline.network_config import SequenceNetworkConfig
from lhuc_asr.pipeline.networks import NetworkOptions, frame_source, write_epoch
from lhuc_asr.pipeline.pass_config import first_pass
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
        max_unaligned: Maximum fraction of the references that fail to align.
        max_without_lattice: Maximum fraction of the recordings without a lattice.
    """

    first: Pass
    network: NetworkOptions
    lm_order: int | None
    lattice: LatticeConfig
    word_lattice: WordLatticeConfig
    transition_scale: float
    max_unaligned: float
    max_without_lattice: float


@dataclass(frozen=True)
class SequenceOptions:
    """Everything that a network with sequence training depends on, apart from the lattices.

    Attributes:
        network: How it takes its features, and its seed.
        first: The first pass of the network that it starts from, for the acoustic scale of its search.
        sequence: Options of the training.
    """

    network: NetworkOptions
    first: Pass
    sequence: SequenceConfig


def lm_order_of(config: ExperimentConfig, network: SequenceNetworkConfig) -> int | None:
    """Order of the language model of a network's lattices; None for the recipe's own."""
    return None if network.lm_order == config.lm.order else network.lm_order


def sequence_stages(
    stages: Stages,
    experiment: AlignedExperiment,
    config: ExperimentConfig,
    name: str,
    passes: Mapping[str, Pass],
    aligner: str,
) -> None:
    """Add the stages that make a network's lattices, and train it on them.

    Args:
        stages: The stages; the network that it starts from, the graphs, and the tuned search of this network's first
            pass come before.
        experiment: The experiment.
        config: The recipe.
        name: Name of the network.
        passes: All passes of the recipe, by name.
        aligner: Name of the stage that aligned the training recordings.

    Raises:
        ValueError: The network has no sequence training.
    """
    network = config.networks[name]
    if not isinstance(network, SequenceNetworkConfig):
        raise ValueError(f"{name}: the network has no sequence training")
    first, options = passes[first_pass(network.start)], NetworkOptions.of(config, network.start)
    folder, order = experiment.folder.network(name).parent, lm_order_of(config, network)
    lattices, start = f"lattices of {name}", f"network {network.start}"
    stages.run(
        lattices,
        partial(_write_lattices, experiment, network.start, folder / LATTICES_FOLDER),
        options=LatticesOptions(
            first,
            options,
            order,
            network.lattice,
            network.word_lattice,
            config.transition_scale,
            config.max_unaligned,
            network.max_without_lattice,
        ),
        after=[start, graph_stage_name(None, order), f"{first.searched_as} over {HELDOUT}"],
        outputs=[path for split in (TRAIN, HELDOUT) for path in _files(folder / LATTICES_FOLDER, split)],
    )
    stage = f"network {name}"
    stages.run(
        stage,
        partial(_train, experiment, name, network.start, partial(stages.key, stage)),
        options=SequenceOptions(options, first, network.sequence),
        after=[start, lattices, aligner],
        outputs=[experiment.folder.network(name)],
        together=True,
    )


def _files(folder: Path, split: str) -> tuple[Path, Path]:
    """The store of a split's lattices, and the alignment of its references."""
    return folder / split, folder / f"{split}.ali"


def _write_lattices(experiment: AlignedExperiment, start: str, folder: Path, options: LatticesOptions) -> None:
    """Search the training recordings, at their own speed, and those of the held-out speakers; align their references.

    The network aligns the references itself, so that their pdfs are those of the paths with these words in the
    lattices. Both splits have the language model of the tests, which has seen the training transcripts: references
    should be in their lattices.
    """
    model, search = experiment.network(start), tuned_search(experiment, options.first)
    with SearchPool(experiment.graph(TRAIN, options.lm_order), experiment.processes) as searches:
        for split in (TRAIN, HELDOUT):
            source = _source(experiment, split, options.network)
            named = (utterance.id for utterance in source.utterances)
            made = searches.word_lattices_all(
                _scores(model, source), search, options.lattice, options.word_lattice, options.max_without_lattice
            )
            title = f"lattices of {split}"
            pairs = zip(named, progress(made, title, len(source.utterances)), strict=True)
            denominators = ((utterance, _denominator(each)) for utterance, each in pairs if each is not None)
            store, references = _files(folder, split)
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


def _train(
    experiment: AlignedExperiment, name: str, start: str, stage_key: Callable[[], str], options: SequenceOptions
) -> None:
    """Train a network on its lattices; a saved state is resumed only if its file name contains the stage's key."""
    path = experiment.folder.network(name)
    training, heldout = (_sequences(experiment, split, path.parent, options.network) for split in (TRAIN, HELDOUT))
    model = train_sequences(
        experiment.network(start),
        training,
        heldout,
        options.sequence,
        tuned_search(experiment, options.first).acoustic_scale,
        path.parent / f"training-{stage_key()[:16]}.safetensors",
        options.network.seed,
        torch.device(experiment.device),
        lambda figures: write_epoch(experiment, name, {"objective": options.sequence.objective, **figures}),
    )
    if not ranks().is_first:
        return
    save_model(path, model)
    for state in path.parent.glob("training-*.safetensors"):
        state.unlink()


def _sequences(experiment: AlignedExperiment, split: str, folder: Path, options: NetworkOptions) -> SequenceSource:
    store, references = _files(folder / LATTICES_FOLDER, split)
    lattices, topology = LatticeStore(store), experiment.topology
    aligned = Alignment(references, experiment.features(split, options.features or ""), topology.pdf_count)
    source = replace(_source(experiment, split, options), targets=aligned.array)
    return sequence_source(source, lattices, topology.silence_pdfs.tolist())


def _source(experiment: AlignedExperiment, split: str, options: NetworkOptions) -> FrameSource:
    """The frames of a split's recordings at their own speed."""
    spoken = {utterance.id for utterance in experiment.utterances(split)}
    return frame_source(experiment, experiment.alignment, split, options, spoken)
