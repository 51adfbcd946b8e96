"""The stage of speaker-adaptive training: a network, and the amplitudes of its training speakers."""

from __future__ import annotations

import torch

from lhuc_asr.adapt.sat import SatConfig, fold_row_zero, train_speaker_adaptive
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.trainer import TrainerConfig
from lhuc_asr.pipeline.acoustics import MODEL_FILE, untrained_network
from lhuc_asr.pipeline.config import SI, ExperimentConfig
from lhuc_asr.pipeline.splits import HELDOUT, TRAIN

# In a network's folder: a file a training speaker (at each speed one of his own), and speaker-independent.safetensors.
SPEAKERS_FOLDER = "speakers"


def train_sat(
    config: ExperimentConfig,
    layout: ExperimentFolder,
    name: str,
    alignment: str,
    trainer: TrainerConfig,
    sat: SatConfig,
    key: str,
) -> None:
    """Train a network with its training speakers' amplitudes, going on where a killed run stopped.

    ``am/<name>/model.safetensors`` is an ordinary network, row 0 in its weights: to decode with it is the first pass
    with row 0, and speakers adapted on it start at row 0. ``am/<name>/speakers/`` has the training speakers on it.

    Args:
        config: The recipe.
        layout: The experiment's folder.
        name: Of the network, ``am/<name>``.
        alignment: ``hmm/<alignment>`` holds the targets.
        trainer: How the network is trained.
        sat: How the speakers' rows are.
        key: Of the stage; a training state with another key is not gone on from.
    """
    model, sources = untrained_network(config, layout, alignment)
    if sat.start == SI:
        model = load_model(layout.acoustic_model(SI) / MODEL_FILE)
    folder, metrics = layout.acoustic_model(name), layout.metrics
    bank = train_speaker_adaptive(
        model,
        sources[TRAIN],
        sources[HELDOUT],
        sat,
        trainer,
        folder / f"training-{key[:16]}.safetensors",
        config.seed,
        torch.device(config.device),
        lambda figures: metrics.write(f"am/{name}", **figures),
    )
    model, speakers = fold_row_zero(bank)
    # Whole, and before the model that says that the stage is done: other speakers of an earlier run are gone.
    with atomic_folder(folder / SPEAKERS_FOLDER) as temporary:
        speakers.save(temporary)
    save_model(folder / MODEL_FILE, model)
    # Kept until now for a run that is killed between the last epoch and here.
    for state in folder.glob("training-*.safetensors"):
        state.unlink()
