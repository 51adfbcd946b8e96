"""The stages of sequence training: lattices of the training recordings, and a network that goes on from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.nnet.checkpoint import save_model
from lhuc_asr.nnet.lattice_store import LatticeStore
from lhuc_asr.nnet.sequence_source import SequenceSource, sequence_source
from lhuc_asr.nnet.sequence_trainer import SequenceConfig, train_sequences
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.language import graph_stage_name
from lhuc_asr.pipeline.lattice_parts import make_lattices
from lhuc_asr.pipeline.network_config import SequenceNetworkConfig
from lhuc_asr.pipeline.networks import NetworkOptions, write_epoch
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.resolved_pass import Pass
from lhuc_asr.pipeline.sequence_lattices import LATTICES_FOLDER, LatticesOptions, lattice_files, own_speed


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
        partial(make_lattices, experiment, network.start, folder / LATTICES_FOLDER),
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
        outputs=[path for split in (TRAIN, HELDOUT) for path in lattice_files(folder / LATTICES_FOLDER, split)],
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
    store, references = lattice_files(folder / LATTICES_FOLDER, split)
    lattices, topology = LatticeStore(store), experiment.topology
    aligned = Alignment(references, experiment.features(split, options.features or ""), topology.pdf_count)
    source = replace(own_speed(experiment, split, options), targets=aligned.array)
    return sequence_source(source, lattices, topology.silence_pdfs.tolist())
