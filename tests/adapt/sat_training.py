"""Three speakers whose frames are noisy along different axes, and the training of a network with their rows."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lhuc_asr.adapt.sat import SatConfig, train_speaker_adaptive
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig

PDFS, SEED = 4, 3
CPU = torch.device("cpu")
SHAPE = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.0, context=1)
CALM = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.02, max_epochs=4))
# A rate so high that some epochs make the held-out loss worse.
BUMPY = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.3, stop_below=0.0, max_epochs=6))
AVERAGED = TrainerConfig(
    batch_size=32, average_epochs=3, schedule=NewbobConfig(learning_rate=0.1, stop_below=0.0, max_epochs=6)
)
CORNERS = np.array([[2, 2], [-2, 2], [-2, -2], [2, -2]], np.float32)
# Noise along both axes: ann's frames say little along the second one, bob's along the first.
NOISE = {"ann": (0.5, 3.0), "bob": (3.0, 0.5), "cat": (0.5, 0.5)}


def sat_source(seed: int, speakers: dict[str, tuple[float, float]] = NOISE, each: int = 100) -> FrameSource:
    """Two utterances a speaker, frames around their pdf's corner of a square, each speaker with different noise."""
    generator = np.random.default_rng(seed)
    targets = np.repeat(generator.integers(PDFS, size=len(speakers) * each // 10), 10).astype(np.int32)
    noise = np.repeat(np.array(list(speakers.values())), each, axis=0)
    features = (CORNERS[targets] + noise * generator.standard_normal(noise.shape)).astype(np.float32)
    targets[generator.random(len(targets)) < 0.1] = -1
    utterances = []
    for number, speaker in enumerate(speakers):
        first, cut = number * each, each // 3
        utterances.append(StoredUtterance(f"{speaker}1", speaker, first, cut))
        utterances.append(StoredUtterance(f"{speaker}2", speaker, first + cut, each - cut))
    return FrameSource(features, targets, utterances, Context.both(SHAPE.context))


def sat_model(seed: int = 0) -> Dnn:
    model = Dnn(SHAPE, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


class KilledError(Exception):
    """Raised in place of a killed process."""


def train_sat(
    path: Path,
    config: SatConfig,
    trainer: TrainerConfig = CALM,
    training: FrameSource | None = None,
    kill_after: int | None = None,
    model: Dnn | None = None,
    epochs: list[dict[str, Any]] | None = None,
    device: torch.device = CPU,
) -> SpeakerBank:
    def on_epoch(figures: dict[str, Any]) -> None:
        if epochs is not None:
            epochs.append(figures)
        if kill_after is not None and figures.get("epoch") == kill_after:
            raise KilledError

    training = sat_source(0) if training is None else training
    model = sat_model() if model is None else model
    return train_speaker_adaptive(model, training, sat_source(1), config, trainer, path, SEED, device, on_epoch)


def tables_of(bank: SpeakerBank) -> list[torch.Tensor]:
    return [table.detach() for table in bank.tables]
