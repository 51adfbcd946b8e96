"""Trainings on the frames of ``corner_frames``, which may be ended after an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from corner_frames import PDFS

from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

CPU = torch.device("cpu")
SHAPE = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.2, context=1)
# A rate so high that some epochs make the held-out loss worse.
BUMPY = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.5, stop_below=0.0, max_epochs=6))
CALM = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.05, max_epochs=6))
AVERAGED = TrainerConfig(
    batch_size=32, average_epochs=3, schedule=NewbobConfig(learning_rate=0.15, stop_below=0.0, max_epochs=6)
)

DECAYING = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.2, decay_to=0.002, max_epochs=4))


def corner_model(seed: int = 0, shape: DnnConfig = SHAPE) -> Dnn:
    model = Dnn(shape, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


class KilledError(Exception):
    """Raised in place of a killed process."""


class Run:
    """One call of ``train``, which a chosen epoch may kill."""

    def __init__(self, path: Path, training: FrameSource, heldout: FrameSource, config: TrainerConfig) -> None:
        self.path, self.training, self.heldout, self.config = path, training, heldout, config
        self.epochs: list[dict[str, Any]] = []

    def __call__(self, kill_after: int | None = None, seed: int = 3, model: Dnn | None = None) -> Dnn:
        def on_epoch(figures: dict[str, Any]) -> None:
            self.epochs.append(figures)
            if kill_after is not None and figures.get("epoch") == kill_after:
                raise KilledError

        model = corner_model() if model is None else model
        return train(model, self.training, self.heldout, self.config, self.path, seed, CPU, on_epoch)


def same(one: Dnn, other: Dnn) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
