"""SAT-LHUC: a network trained together with row 0 and a row for each training speaker (equations 4 to 6 of the paper).

    L = - sum_t log P(c_t | x_t; theta_SI, theta_LHUC^{m_t}),    m_t = 0 if k_t = 1, else the speaker of frame t

k_t = 1 with probability gamma, so row 0 (theta^0) learns the transform for unknown speakers. k is drawn anew in every
epoch, but not independently for each frame: in every epoch the fraction of frames with k_t = 1 is gamma. The held-out
speakers, whose loss controls newbob, are unknown and are evaluated with row 0.

In a mini-batch, half of the frames use row 0 and only one or two use a given speaker's row. The gradient of a row is
the sum over its frames divided by the size of the whole batch (equation 9), so with SGD the steps of a speaker's row
are hundreds of times shorter than the network's. With ten minutes per speaker, as in the paper, that is enough. With
less data, Adam normalises the steps of each row, with separate averages for each.

After training, row 0 is folded into the weights. The result is an ordinary network: it decodes, and is adapted to new
speakers from neutral amplitudes, which now stand for row 0. With the training speakers' amplitudes divided by those of
row 0, the folded network computes what the trained one does. The division needs an amplitude function with a quotient,
exp or identity: docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator

from lhuc_asr.adapt.sat_clusters import cluster_leaders
from lhuc_asr.base.config import LearningRate, StrictModel
from lhuc_asr.base.errors import CheckpointError, FoldError, SpeakerError
from lhuc_asr.base.ranks import ranks
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.fold import fold
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.companion import Companion
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, check_frames, train

# xi(r) / xi(r0) = xi(quotient(r, r0)) for all r and r0, except r0 = 0 of identity.
QUOTIENTS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "exp": torch.sub,
    "identity": torch.div,
}


class SatConfig(StrictModel):
    """Options of training speakers' rows together with the network.

    Attributes:
        gamma: Fraction of the frames that use row 0.
        switching: Unit that is switched to row 0 as a whole: ``frame``, ``segment`` (an utterance) or ``speaker``.
        amplitude: Name of the amplitude function xi.
        optimizer: Optimizer of the rows: ``adam``, with separate averages for each row, or ``sgd``.
        learning_rate: Step size of the rows in the first epochs; newbob halves it together with the network's.
        row_zero_learning_rate: Step size of row 0, which sees far more frames than a speaker's row; None for that of
            the speakers' rows.
        clusters: Number of clusters of similar speakers, who share a row (``sat_clusters``); a speaker counts once at
            each speed. None for a row for each.
        weight_decay: Pull of a speaker's row towards row 0 in each of its steps, beside the mean gradient of a
            mini-batch: a Gaussian prior around row 0, so that a speaker with little data stays near it.
        start: Name of the speaker-independent network to start from, ``si`` or one with features, vectors or a shape of
            its own; None to start from random weights. A network that was trained to its end gets worse with any step
            that is not tiny, which newbob undoes: start from one that stopped early.
        like: Name of a network with features, vectors or a shape of its own, to take these but not its weights; None
            for those of ``start``, or the recipe's own.
        schedule: Schedule of the network's learning rate; None for the trainer's.
    """

    gamma: float = Field(0.5, gt=0.0, lt=1.0)
    switching: Literal["frame", "segment", "speaker"] = "frame"
    amplitude: Literal["exp", "identity"] = "exp"
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: LearningRate = 0.001
    row_zero_learning_rate: LearningRate | None = None
    clusters: int | None = Field(None, ge=1, le=1_000_000)
    weight_decay: float = Field(0.0, ge=0.0, le=100.0)
    start: str | None = None
    like: str | None = None
    schedule: NewbobConfig | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.start is not None and self.like is not None:
            raise ValueError(f"start has the features of {self.start!r} already; leave out like")
        return self


def train_speaker_adaptive(
    model: AcousticModel,
    training: FrameSource,
    heldout: FrameSource,
    config: SatConfig,
    trainer: TrainerConfig,
    state_path: Path,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[dict[str, Any]], None],
) -> SpeakerBank:
    """Train a network and its speakers' rows to the end of the schedule, resuming from ``state_path``.

    Args:
        model: The network, initialised or already trained; it is trained in place.
        training: Frames to train on. Speakers without a target have no row.
        heldout: Frames of other speakers, evaluated with row 0.
        config: Options of the rows; its schedule, if it has one, replaces the trainer's.
        trainer: Options of the network's training.
        state_path: File of the state after the last epoch.
        seed: Seed of the frame order, of dropout and of the switching.
        device: Device that the network runs on.
        on_epoch: Function that is called with the metrics of each epoch.

    Returns:
        The rows, detached, of the speakers of a cluster the same; ``model`` is their network, in evaluation mode.

    Raises:
        AlignmentError: No training frame, or no held-out frame, has a target.
        ConfigError: There are more clusters than speakers.
        CheckpointError: ``state_path`` is the state of another network, or training diverged.
    """
    if config.schedule is not None:
        trainer = trainer.model_copy(update={"schedule": config.schedule})
    speakers = _speakers(training)
    check_frames(len(speakers), training, "train")
    leaders = {} if config.clusters is None else cluster_leaders(training, speakers, config.clusters)
    model.to(device)
    bank = attach(model, model.sites(), list(speakers), amplitude=config.amplitude)
    try:
        rows = _Rows(bank, training, config, leaders)
        train(model, training, heldout, trainer, state_path, seed, device, on_epoch, rows)
        bank.copy_rows(leaders)
    except SpeakerError as error:  # a row that is not finite is noticed before the loss is
        raise CheckpointError(f"training diverged; lower {rows.rates} ({error})") from error
    finally:
        bank.detach()
    return bank


def fold_row_zero(bank: SpeakerBank) -> tuple[AcousticModel, SpeakerBank]:
    """Fold row 0 into the weights, and divide every speaker's amplitudes by those of row 0.

    Up to rounding, the folded network alone computes what the network computed with row 0. With a speaker's new row it
    computes what the network computed with that speaker's old row.

    Args:
        bank: Bank of an acoustic model; its amplitude function is one of ``QUOTIENTS``.

    Returns:
        The network, in evaluation mode, and its bank, detached; row 0 is neutral.

    Raises:
        FoldError: The amplitude function has no quotient, an amplitude of row 0 is 0, or a row is not finite.
    """
    name = bank.amplitude.name
    if name not in QUOTIENTS:
        raise FoldError(f"amplitudes {name!r} cannot be divided by row 0's; train with {' or '.join(QUOTIENTS)}")
    if not isinstance(bank.model, AcousticModel):
        raise FoldError(f"the bank belongs to a {type(bank.model).__name__}, expected an acoustic model")
    # An example shows which channels each input of a time-delay layer gets. A random one would move a generator.
    prior, width = bank.model.log_prior, bank.model.splicing.width
    example = torch.linspace(-1.0, 1.0, 2 * width, dtype=prior.dtype, device=prior.device).view(2, width)
    model = cast(AcousticModel, fold(bank, "", example))
    folded = SpeakerBank(model, bank.sites, bank.speakers, bank.amplitude)
    with torch.no_grad():
        for site, ours, theirs in zip(bank.sites, folded.tables, bank.tables, strict=True):
            ours.copy_(QUOTIENTS[name](theirs, theirs[:1]))
            if not bool(ours.isfinite().all()):
                raise FoldError(
                    f"site {site.name!r}: row 0 has an amplitude of 0, which nothing can be divided by, or a row is "
                    "not finite; train with a lower learning_rate of the rows"
                )
    return model.eval(), folded


def assign_rows(
    source: FrameSource, rows: Mapping[str, int], config: SatConfig, generator: np.random.Generator
) -> np.ndarray:
    """The row m_t of each frame for one epoch (equation 6); a fraction gamma of the frames with a target gets row 0.

    With switching by ``frame``, floor(gamma T + 1/2) of T frames get row 0, and in each utterance the fraction is gamma
    within one frame. With ``segment`` and ``speaker``, whole segments or speakers are taken in random order, as many as
    bring the number of frames nearest to gamma T; the number is off by at most half a segment or speaker. (Filling the
    rest with short segments would leave fewer frames for their speakers' rows than for others.)

    Args:
        source: The training frames.
        rows: Row of each speaker, 1 or more.
        config: Options of the switching.
        generator: Generator of the random choice.

    Returns:
        A row for each frame of ``source.features``, shape (N,), int32; 0 for frames of utterances that are not in the
        source.
    """
    assigned = np.zeros(len(source.features), np.int32)
    speakers = _speakers(source)
    for speaker, utterances in speakers.items():
        for utterance in utterances:
            assigned[utterance.rows] = rows[speaker]
    if config.switching == "frame":
        seen = chosen = 0
        # In random order: otherwise each utterance would be rounded the same way in every epoch.
        for number in generator.permutation(len(source.utterances)):
            utterance = source.utterances[number]
            frames = utterance.first + np.flatnonzero(source.targets[utterance.rows] >= 0)
            seen += len(frames)
            share = int(config.gamma * seen + 0.5) - chosen
            assigned[generator.choice(frames, share, replace=False, shuffle=False)] = 0
            chosen += share
        return assigned
    groups = list(speakers.values())
    if config.switching == "segment":
        groups = [[utterance] for utterances in groups for utterance in utterances]
    sizes = np.array([sum(_target_frames(source, utterance) for utterance in group) for group in groups], np.int64)
    order = generator.permutation(len(groups))
    sums = np.concatenate([[0], np.cumsum(sizes[order])])
    for number in order[: np.argmin(np.abs(sums - config.gamma * sums[-1]))]:
        for utterance in groups[number]:
            assigned[utterance.rows] = 0
    return assigned


def _speakers(source: FrameSource) -> dict[str, list[StoredUtterance]]:
    """Each speaker's utterances that have a target, in the order of the source."""
    speakers: dict[str, list[StoredUtterance]] = {}
    for utterance in source.utterances:
        if _target_frames(source, utterance):
            speakers.setdefault(utterance.speaker, []).append(utterance)
    return speakers


def _target_frames(source: FrameSource, utterance: StoredUtterance) -> int:
    return int(np.count_nonzero(source.targets[utterance.rows] >= 0))


class _Rows(Companion):
    """The rows as a companion of their network."""

    rates = "trainer.schedule.learning_rate, or learning_rate of the rows (networks)"

    def __init__(self, bank: SpeakerBank, source: FrameSource, config: SatConfig, leaders: Mapping[str, str]) -> None:
        self._bank, self._source, self._config = bank, source, config
        options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._optimizer = bank.optimizer(config.optimizer, **options, over_processes=ranks().count > 1)
        self._rows = {speaker: bank.row(leaders.get(speaker, speaker)) for speaker in bank.speakers}

    def begin_epoch(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._assigned = torch.from_numpy(assign_rows(self._source, self._rows, self._config, generator))

    def set_rate(self, share: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * share

    def batch(self, frames: torch.Tensor) -> AbstractContextManager[SpeakerBank]:
        return self._bank.rows(self._assigned[frames].long())

    def step(self) -> None:
        row_zero_rate, tables = self._config.row_zero_learning_rate, self._bank.tables
        before = [] if row_zero_rate is None else [table[0].detach().clone() for table in tables]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if row_zero_rate is not None:
            # The step of either optimizer is proportional to its rate.
            share = row_zero_rate / self._config.learning_rate
            with torch.no_grad():
                for table, earlier in zip(tables, before, strict=True):
                    table[0] = earlier + share * (table[0] - earlier)

    def learned(self) -> dict[str, torch.Tensor]:
        return {f"r.{site.name}": table for site, table in zip(self._bank.sites, self._bank.tables, strict=True)}

    def state(self) -> dict[str, torch.Tensor]:
        state = self.learned()
        for site, table in zip(self._bank.sites, self._bank.tables, strict=True):
            averages = self._optimizer.state[table].items()
            state |= {f"{name}.{site.name}": value for name, value in averages if isinstance(value, torch.Tensor)}
        return state

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        for site, table in zip(self._bank.sites, self._bank.tables, strict=True):
            own = {
                name.removesuffix(f".{site.name}"): value.to(table.device, copy=True)
                for name, value in state.items()
                if name.endswith(f".{site.name}")
            }
            for name, value in own.items():
                # Adam counts the steps of a row, which is one number.
                expected = (len(table), 1) if name == "steps" else tuple(table.shape)
                if tuple(value.shape) != expected or value.dtype != table.dtype or not bool(value.isfinite().all()):
                    raise RuntimeError(
                        f"{name} at {site.name!r} of shape {tuple(value.shape)}, expected {expected} and finite "
                        f"{table.dtype}"
                    )
            averages = {name: value for name, value in own.items() if name != "r"}
            if averages.keys() - {"steps", "mean", "square", "velocity"}:
                raise KeyError(f"unknown {min(averages)!r}")
            with torch.no_grad():
                table.copy_(own["r"])
            # Before the first epoch there are none, and the optimizer begins its own.
            self._optimizer.state[table] = {"edition": table.edition, **averages} if averages else {}
