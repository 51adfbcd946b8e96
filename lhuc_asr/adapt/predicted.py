"""Predicted amplitudes: gate networks predict r from statistics of a speaker's activations, without targets.

The features are normalised speaker by speaker, so their means and variances are the same for everybody and tell nothing
about the speaker. Higher moments and correlations between bands remain, and the hidden units of the network are
non-linear functions of these, trained for speech. The statistics are therefore the mean activations, over all of a
speaker's frames, of the units that get amplitudes. Neither targets nor a first pass are needed. The statistics are
normalised and reduced to a few principal components over the training speakers: some tens of speakers are too few to
learn from thousands of inputs.

``prepare`` estimates amplitudes of the training speakers as ``adapt/lhuc.py`` does, and trains for each layer a gate
(``lhuc/gate.py``) that predicts them. The gates of all layers can then be trained jointly on the cross-entropy of the
training speakers' frames. The idea is that of Geng et al., "On-the-Fly Feature Based Rapid Speaker Adaptation" (arXiv
2203.14593), whose statistics are spectral bases.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import LearnedLhucConfig
from lhuc_asr.adapt.method import ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.movable import put_back_diverged
from lhuc_asr.adapt.prepared import (
    REMEDY,
    PreparedConfig,
    check_finite,
    learned_bank,
    prepared_file,
    read_prepared,
    write_prepared,
)
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.subspace import principal_components
from lhuc_asr.base.config import LearningRate
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import Shape
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.gate import Gate
from lhuc_asr.nnet.acoustic_model import AcousticModel, over_positions

GATES_FILE = "gates.safetensors"


class PredictedConfig(PreparedConfig):
    """Options of predicted amplitudes.

    Attributes:
        kind: Name of the method.
        lhuc: Options of the descent for the training speakers' amplitudes, which the gates learn to predict.
        dimensions: Number of principal components of the statistics, P.
        hidden_units: Number of hidden units of each gate; None for a linear map.
        around: Prediction for an average speaker, before joint training: ``speakers`` for the mean of the training
            speakers, ``unadapted`` for the network without adaptation; see ``BayesConfig.around``.
        steps: Number of steps of Adam on the squared error of r; each step sees all training speakers.
        learning_rate: Step size of Adam.
        weight_decay: Weight decay of the gates' weights, not of their biases. With strong decay every speaker gets the
            mean amplitudes.
        joint_sweeps: Number of sweeps over the training speakers' frames in joint training; 0 for no joint training.
        joint_learning_rate: Step size of Adam in joint training.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["predicted"] = "predicted"
    lhuc: LearnedLhucConfig = LearnedLhucConfig()
    dimensions: int = Field(16, ge=1, le=100_000)
    hidden_units: int | None = Field(None, ge=1, le=65_536)
    around: Literal["speakers", "unadapted"] = "unadapted"
    steps: int = Field(500, ge=1, le=10_000_000)
    learning_rate: LearningRate = 0.01
    weight_decay: float = Field(0.1, ge=0.0, le=1000.0)
    joint_sweeps: int = Field(0, ge=0, le=10_000)
    joint_learning_rate: LearningRate = 1e-3

    def make(self, folder: Path | None) -> Predicted:
        """The method with these options."""
        return Predicted(self, folder)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.lhuc.layers


class Predicted:
    """Predicted amplitudes as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the gates' file.
    """

    def __init__(self, config: PredictedConfig, folder: Path | None = None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Train the gates on the training speakers and write them.

        Raises:
            ConfigError: The method was made without a folder.
            SpeakerError: There are fewer than two training speakers from whom something can be learned.
            AlignmentError: Activations of the training speakers are not finite.
            CheckpointError: The gates diverged.
        """
        path = prepared_file(self._folder, GATES_FILE)
        bank = learned_bank(path, self.config.lhuc, model, training, seed)
        training = {name: training[name] for name in bank.speakers}
        statistics = _statistics(bank, model, training)
        check_finite([statistics])
        mean, bases = principal_components(statistics, self.config.dimensions)
        # The length of a basis vector is a standard deviation. Divided by the square of this length, the vector gives a
        # component of variance 1.
        projection = bases / bases.square().sum(1, keepdim=True).clamp(min=torch.finfo(bases.dtype).tiny)
        conditioning = (statistics - mean) @ projection.T  # (S, P)
        gates = _gates(bank, conditioning.shape[1], self.config.hidden_units, seed)
        rows = [(table.detach()[0], table.detach()[1:]) for table in bank.tables]  # (H,), (S, H)
        if self.config.around == "unadapted":
            rows = [(zero, speakers - speakers.mean(0) + zero) for zero, speakers in rows]
        self._fit(gates, conditioning, [speakers for _, speakers in rows])
        if self.config.joint_sweeps:
            self._fit_jointly(gates, conditioning, model, bank, training, seed)
        write_prepared(path, bank, {"mean": mean, "projection": projection, **gates.state_dict()}, **self._shape)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Predict each speaker's amplitudes from their features; targets are not used.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Not used: nothing is random.

        Raises:
            CheckpointError: The gates have not been prepared, or their file is damaged.
            ModelMismatchError: The gates were prepared with another network or other options.
        """
        bank = new_bank(model, speakers, self.config.lhuc.amplitude, self.config.lhuc.layers)
        path, width = prepared_file(self._folder, GATES_FILE), sum(site.width for site in bank.sites)
        shapes: dict[str, Shape] = {"mean": (width,), "projection": (None, width)}
        # The gates of one input have the names, and all lengths but one, of the gates in the file.
        for name, tensor in _gates(bank, 1, self.config.hidden_units, seed).state_dict().items():
            shapes[name] = tuple(None if length == 1 else length for length in tensor.shape)
        prepared = read_prepared(path, bank, shapes, **self._shape)
        mean, projection = prepared.pop("mean"), prepared.pop("projection")
        gates = _gates(bank, len(projection), self.config.hidden_units, seed)
        try:
            gates.load_state_dict(prepared)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: the gates do not take {len(projection)} inputs; {REMEDY}") from error
        if speakers:
            statistics = _statistics(bank, model, speakers)
            usable = statistics.isfinite().all(1, keepdim=True)
            conditioning = (torch.where(usable, statistics, mean) - mean) @ projection.T
            with torch.no_grad():
                predicted = [gate.r(conditioning) for gate in _each(gates)]
            bank.fill({site.name: r for site, r in zip(bank.sites, predicted, strict=True)})
            put_back_diverged(bank, list(speakers))
            unusable = [name for name, fine in zip(speakers, usable[:, 0].tolist(), strict=True) if not fine]
            warn_unadapted("they have no frames, or activations that are not finite", unusable, len(speakers))
            bank.reset(unusable)
        return Amplitudes(bank)

    @property
    def _shape(self) -> dict[str, int | None]:
        """Options that determine the shapes of the gates' tensors."""
        return {"dimensions": self.config.dimensions, "hidden_units": self.config.hidden_units}

    def _fit(self, gates: nn.ModuleList, conditioning: torch.Tensor, targets: list[torch.Tensor]) -> None:
        """Fit the gates' r to the training speakers' r, shapes (S, H), by least squares."""
        optimizer = _adam(gates, self.config.learning_rate, self.config.weight_decay)
        for _ in range(self.config.steps):
            optimizer.zero_grad(set_to_none=True)
            errors = [(gate.r(conditioning) - r).square() for gate, r in zip(_each(gates), targets, strict=True)]
            torch.stack([error.sum(1).mean() for error in errors]).sum().backward()
            optimizer.step()

    def _fit_jointly(
        self,
        gates: nn.ModuleList,
        conditioning: torch.Tensor,
        model: AcousticModel,
        bank: SpeakerBank,
        training: Mapping[str, SpeakerData],
        seed: int,
    ) -> None:
        """Train the gates of all layers on the cross-entropy of the training speakers' frames."""
        gate_of = {site.name: gate for site, gate in zip(bank.sites, _each(gates), strict=True)}
        optimizer = _adam(gates, self.config.joint_learning_rate, self.config.weight_decay)
        # Each descent has one sweep, because a descent may finish all sweeps of some speakers before it begins with
        # others.
        descent = Descent(self.config.lhuc.model_copy(update={"sweeps": 1, "prior_deviation": None}))
        with bank.computed(lambda site, rows: gate_of[site].r(conditioning[rows - 1])):
            for sweep in range(self.config.joint_sweeps):
                descent.adapt(bank, model, training, seed + sweep, optimizer)


def _gates(bank: SpeakerBank, inputs: int, hidden: int | None, seed: int) -> nn.ModuleList:
    generator = torch.Generator().manual_seed(seed)
    gates = nn.ModuleList(Gate(inputs, site.width, hidden, bank.amplitude, generator) for site in bank.sites)
    return gates.to(bank.tables[0])


def _each(gates: nn.ModuleList) -> list[Gate]:
    return [gate for gate in gates if isinstance(gate, Gate)]


def _adam(gates: nn.ModuleList, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    weights = [parameter for parameter in gates.parameters() if parameter.dim() > 1]
    biases = [parameter for parameter in gates.parameters() if parameter.dim() == 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)


def _statistics(bank: SpeakerBank, model: AcousticModel, speakers: Mapping[str, SpeakerData]) -> torch.Tensor:
    """Mean unscaled activations of the units that get amplitudes, all layers side by side, shape (S, W).

    Of a unit at several positions of the window they are the mean over these too.

    Those of a speaker without frames are not numbers.

    Raises:
        AlignmentError: Features of a speaker do not fit the network.
    """
    adapted = {site.name for site in bank.sites}
    means = []
    with frozen(model), torch.no_grad():
        for name, frames in speakers.items():
            frames.check_features_fit(name, model)
            total = torch.zeros(sum(site.width for site in bank.sites), dtype=torch.float64)
            for utterance in torch.from_numpy(frames.features).split(frames.lengths):
                hidden, activations = model.splicing.utterance(utterance).to(model.log_prior.device), []
                for site, layer in model.hidden_layers().items():
                    hidden = layer(hidden)
                    if site in adapted:
                        activations.append(over_positions(hidden).double().sum(0).cpu())
                total += torch.cat(activations)
            means.append(total / len(frames.features))
    return torch.stack(means).to(bank.tables[0])
