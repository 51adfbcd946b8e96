"""The stages that train networks: speaker-independent ones, and speaker-adaptive ones with their speakers' rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch

from lhuc_asr.adapt.sat import SatConfig, fold_row_zero, train_speaker_adaptive
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.numerics import PRIOR_PSEUDO_FRAMES
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.checkpoint import save_model
from lhuc_asr.nnet.frames import FrameSource, priors
from lhuc_asr.nnet.layered_network import LayeredNetwork
from lhuc_asr.nnet.shapes import AnyShape
from lhuc_asr.nnet.trainer import TrainerConfig, train
from lhuc_asr.nnet.vector_tensors import VectorTensors
from lhuc_asr.pipeline.acoustic_models import rung_dimension
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.pass_config import Rung
from lhuc_asr.pipeline.plan import trained_network
from lhuc_asr.pipeline.resolved_pass import WithoutRows
from lhuc_asr.pipeline.training_shards import OpenStore, sharded, shards_stage_name
from lhuc_asr.pipeline.voices import read_vectors, read_voices, voices_stage_name

# In a network's folder: one file per training speaker and speed, and speaker-independent.safetensors.
SPEAKERS_FOLDER = "speakers"


@dataclass(frozen=True)
class NetworkOptions:
    """Everything that a network depends on.

    Attributes:
        dnn: Shape of the network.
        trainer: How it is trained.
        feature_dimension: Number of features per frame, D.
        seed: Seed of the weights, of the order of frames, and of dropout.
        sat: How the training speakers' rows are trained with the network, or how it is trained on without rows; None
            for ``si``.
        features: The rung whose features it is trained on; None for the networks' own.
        voices: Name of the network whose i-vectors it takes, mostly its own; None for one that takes none.
        shard_minutes: Speech in a shard of the frames, which their order depends on; None without shards.
    """

    dnn: AnyShape
    trainer: TrainerConfig
    feature_dimension: int
    seed: int
    sat: SatConfig | WithoutRows | None = None
    features: Rung | None = None
    voices: str | None = None
    shard_minutes: float | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, name: str) -> NetworkOptions:
        """The options of a recipe's network: ``si``, a speaker-adaptively trained network, or its control."""
        kind = config.rung_features(name)
        dimension = rung_dimension(config, kind) if kind else config.features.dimension
        trained, voices = trained_network(config, name), config.voices_of(name)
        minutes = None if config.shards is None else config.shards.minutes
        return cls(config.shape_of(name), config.trainer, dimension, config.seed, trained, kind, voices, minutes)


def network_stage(
    stages: Stages,
    experiment: Experiment,
    name: str,
    options: NetworkOptions,
    aligned: Aligned,
    store: OpenStore | None = None,
) -> None:
    """Add the stage that trains ``am/<name>`` on an alignment; training resumes where a killed run stopped.

    Args:
        stages: The stages; those that it reads come before.
        experiment: The experiment.
        name: Name of the network.
        options: Its options.
        aligned: The alignment.
        store: Opens the store with the shards of its training frames; None without shards.
    """
    stage, sat = f"network {name}", options.sat
    start = [] if sat is None or sat.start is None else [f"network {sat.start}"]
    voices = [] if options.voices is None else [voices_stage_name(options.voices)]
    shards = [] if store is None else [shards_stage_name(options.features)]
    stages.run(
        stage,
        partial(_train, experiment, name, aligned.alignment, store, partial(stages.key, stage)),
        options=options,
        after=[aligned.stage, *start, *voices, *shards],
        outputs=[experiment.folder.network(name)],
        together=True,
    )


def _train(
    experiment: Experiment,
    name: str,
    alignment: str,
    store: OpenStore | None,
    stage_key: Callable[[], str],
    options: NetworkOptions,
) -> None:
    """Train a network; a saved state is resumed only if its file name contains the stage's key.

    With rows, ``am/<name>/model.safetensors`` is an ordinary network with row 0 folded into the weights: decoding
    with it is the first pass with row 0, and speakers adapted on it start at row 0. ``am/<name>/speakers/`` has the
    training speakers.
    """
    model: AcousticModel
    model, sources = untrained_network(experiment, alignment, options)
    if store is not None:
        sources[TRAIN] = sharded(sources[TRAIN], experiment, options.features, store())
    path, sat = experiment.folder.network(name), options.sat
    arguments = (
        path.parent / f"training-{stage_key()[:16]}.safetensors",
        options.seed,
        torch.device(experiment.device),
        partial(write_epoch, experiment, name),
    )
    if sat is not None and sat.start is not None:
        model = experiment.network(sat.start)
    speakers = None
    if not isinstance(sat, SatConfig):
        schedule = None if sat is None else sat.schedule
        trainer = options.trainer if schedule is None else options.trainer.model_copy(update={"schedule": schedule})
        model = train(model, sources[TRAIN], sources[HELDOUT], trainer, *arguments)
    else:
        bank = train_speaker_adaptive(model, sources[TRAIN], sources[HELDOUT], sat, options.trainer, *arguments)
        model, speakers = fold_row_zero(bank)
    if not ranks().is_first:
        return
    if speakers is not None:
        # The folder is replaced whole, so that speakers of an earlier run are gone. The model comes last, because it is
        # the output that says that the stage is done.
        with atomic_folder(path.parent / SPEAKERS_FOLDER) as temporary:
            speakers.save(temporary)
    save_model(path, model)
    # The state is kept until now in case the run is killed after the last epoch.
    for state in path.parent.glob("training-*.safetensors"):
        state.unlink()


def untrained_network(
    experiment: Experiment, alignment: str, options: NetworkOptions
) -> tuple[LayeredNetwork, dict[str, FrameSource]]:
    """A network with random weights and the alignment's priors, and the frames to train and to evaluate it on."""
    pdf_count = experiment.topology_of(alignment).pdf_count
    extractor, sources = None, {}
    if options.voices is not None:
        extractor = read_voices(experiment, options.voices, options.feature_dimension)
    for split in (TRAIN, HELDOUT):
        sources[split] = frame_source(experiment, alignment, split, options)
    model = options.dnn.make(options.feature_dimension, pdf_count, 0 if extractor is None else extractor.dimension)
    if extractor is not None:
        model.vectors = VectorTensors(extractor.tensors(), "a network in training")
    model.initialise(torch.Generator().manual_seed(options.seed))
    model.log_prior.copy_(priors(sources[TRAIN].targets, pdf_count, PRIOR_PSEUDO_FRAMES))
    return model, sources


def frame_source(
    experiment: Experiment, alignment: str, split: str, options: NetworkOptions, chosen: Collection[str] | None = None
) -> FrameSource:
    """The frames of a split as a network is trained on them, with their pdfs in ``hmm/<alignment>``.

    Args:
        experiment: The experiment.
        alignment: Name of the alignment.
        split: The split.
        options: Options of the network.
        chosen: Ids of the utterances to take; None for all, at all speeds.
    """
    targets, store = experiment.aligned(alignment, split), experiment.features(split, options.features or "")
    vectors = None if options.voices is None else read_vectors(experiment, options.voices, split, store, dropped=True)
    utterances = [each for each in store.utterances if chosen is None or each.id in chosen]
    context = options.dnn.splicing(options.feature_dimension).context
    return FrameSource(store.array, targets.array, utterances, context, vectors)


def write_epoch(experiment: Experiment, name: str, figures: dict[str, object]) -> None:
    """Write the figures of an epoch of a network to the experiment's log of figures."""
    if ranks().is_first:
        experiment.folder.metrics.write(f"am/{name}", **figures)
