"""SAT-LHUC: the network, theta^0 and a row for each training speaker, trained together (equations 4 to 6).

    L = - sum_t log P(c_t | x_t; theta_SI, theta_LHUC^{m_t}),    m_t = 0 if k_t = 1, else the frame's speaker

k_t = 1 with probability gamma. It is drawn anew every epoch, and not by tosses of a coin: the share of frames with
k_t = 1 is gamma in every epoch. Row 0, theta^0, thereby learns the transform for speakers of whom nothing is known.
The held-out speakers, whose loss steers newbob, are such, and are evaluated with it.

Of a mini-batch row 0 sees half, a speaker's row a frame or two. The gradient of a row is the sum over its frames by
the size of the whole batch (equation 9), so with SGD a speaker's row takes steps hundreds of times shorter than the
network's. The paper could afford that, with 10 minutes a speaker; here each row may be normalised by Adam, which
keeps its averages for the row alone.

The result is folded: an ordinary network, theta^0 in its weights, is what decodes and what is adapted to new
speakers, from neutral amplitudes. That they start at row 0 is then no rule that anybody has to remember. With the
training speakers' amplitudes over those of row 0 the folded network computes what the one that was trained computes.
Only amplitudes that can be divided by each other allow this, exp and identity: docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import CheckpointError, FoldError, SpeakerError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.fold import fold
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.companion import Companion
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

# xi(r) / xi(r0) = xi(quotient(r, r0)), for all r and r0 (but r0 = 0 of identity).
QUOTIENTS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "exp": torch.sub,
    "identity": torch.div,
}


class SatConfig(StrictModel):
    """How rows are trained with the network.

    Attributes:
        gamma: Fraction of the frames that take the speaker-independent transform, row 0.
        switching: What takes it or does not as a whole: a ``frame``, a ``segment`` (utterance), a ``speaker``.
        amplitude: xi.
        optimizer: Of the rows: ``adam``, with averages of its own for each row, or ``sgd``.
        learning_rate: Of the rows in the first epochs; newbob halves it with the network's.
        start: ``si``: the network is the speaker-independent one, trained on; None: it starts with random weights.
        schedule: Of the network's rate; None the trainer's.
    """

    gamma: float = Field(0.5, gt=0.0, lt=1.0)
    switching: Literal["frame", "segment", "speaker"] = "frame"
    amplitude: Literal["exp", "identity"] = "exp"
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = Field(0.001, gt=0.0)
    start: Literal["si"] | None = None
    schedule: NewbobConfig | None = None


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
    """Train a network and its speakers' rows to the end of the schedule, going on from ``state_path``.

    Args:
        model: Initialised, or trained already; trained in place.
        training: Frames to train on. Speakers without a target have no row.
        heldout: Frames of other speakers, seen through row 0.
        config: How the rows are trained; its schedule, where it has one, is the network's.
        trainer: How the network is.
        state_path: Where the state of both is kept after every epoch.
        seed: Of the order of frames, of dropout and of the switching.
        device: Where the network runs.
        on_epoch: Called with each epoch's figures.

    Returns:
        The rows, detached; ``model`` is their network, in evaluation mode.

    Raises:
        AlignmentError: No frame to train on, or none that is held out, has a target.
        CheckpointError: ``state_path`` belongs to another network, or training diverged.
    """
    if config.schedule is not None:
        trainer = trainer.model_copy(update={"schedule": config.schedule})
    model.to(device)
    bank = attach(model, model.sites(), list(_speakers(training)), amplitude=config.amplitude)
    try:
        rows = _Rows(bank, training, config)
        train(model, training, heldout, trainer, state_path, seed, device, on_epoch, rows)
    except SpeakerError as error:  # a row that is not finite is noticed before the loss is
        raise CheckpointError(f"training diverged, lower {rows.rates} ({error})") from error
    finally:
        bank.detach()
    return bank


def fold_row_zero(bank: SpeakerBank) -> tuple[AcousticModel, SpeakerBank]:
    """The network with row 0 in its weights, and every speaker's amplitudes over those of row 0.

    The folded network alone computes what row 0 gave, and with a speaker's row what his row gave, but for rounding.

    Args:
        bank: Rows of an acoustic model, their amplitude one of ``QUOTIENTS``.

    Returns:
        The network, in evaluation mode, and its bank, detached; row 0 is neutral.

    Raises:
        FoldError: The amplitude has no quotient, row 0 silences a unit, or a row is not finite.
    """
    name = bank.amplitude.name
    if name not in QUOTIENTS:
        raise FoldError(f"amplitudes {name!r} cannot be divided by row 0's; train with {' or '.join(QUOTIENTS)}")
    model = fold(bank, "")
    if not isinstance(model, AcousticModel):
        raise FoldError(f"the bank belongs to a {type(model).__name__}, expected an acoustic model")
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
    """The row m_t of each frame for one epoch (equation 6); ``config.gamma`` of the frames with a target get row 0.

    Of T such frames ``frame`` gives floor(gamma T + 1/2) to row 0, and of each utterance's its own share within one.
    ``segment`` and ``speaker`` take whole ones in random order, as many as bring the sum nearest to gamma T: it is off
    by at most half of a segment or speaker. (To fill the sum up with short ones would starve their rows.)

    Args:
        source: The training frames.
        rows: The row of each speaker, 1 or more.
        config: How it switches.
        generator: Of the choice.

    Returns:
        Shape (N,), int32, a number a frame of ``source.features``; 0 also for those of other utterances.
    """
    assigned = np.zeros(len(source.features), np.int32)
    speakers = _speakers(source)
    for speaker, utterances in speakers.items():
        for utterance in utterances:
            assigned[utterance.rows] = rows[speaker]
    if config.switching == "frame":
        seen = chosen = 0
        # In random order, or the fraction of a frame that an utterance is rounded by would always be the same.
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
    """The utterances with a target, by their speakers, in the order of the source."""
    speakers: dict[str, list[StoredUtterance]] = {}
    for utterance in source.utterances:
        if _target_frames(source, utterance):
            speakers.setdefault(utterance.speaker, []).append(utterance)
    return speakers


def _target_frames(source: FrameSource, utterance: StoredUtterance) -> int:
    return int(np.count_nonzero(source.targets[utterance.rows] >= 0))


class _Rows(Companion):
    """The rows' part in the training of their network."""

    rates = "trainer.schedule.learning_rate, or learning_rate of the rows (networks)"

    def __init__(self, bank: SpeakerBank, source: FrameSource, config: SatConfig) -> None:
        self._bank, self._source, self._config = bank, source, config
        self._optimizer = bank.optimizer(config.optimizer, lr=config.learning_rate)
        self._rows = {speaker: bank.row(speaker) for speaker in bank.speakers}

    def begin_epoch(self, seed: int, rate_share: float) -> None:
        generator = np.random.default_rng(seed)
        self._assigned = torch.from_numpy(assign_rows(self._source, self._rows, self._config, generator))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * rate_share

    def batch(self, frames: torch.Tensor) -> AbstractContextManager[SpeakerBank]:
        return self._bank.rows(self._assigned[frames].long())

    def step(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for site, table in zip(self._bank.sites, self._bank.tables, strict=True):
            state[f"r.{site.name}"] = table
            averages = self._optimizer.state[table].items()
            state |= {f"{name}.{site.name}": value for name, value in averages if isinstance(value, torch.Tensor)}
        return state

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        for site, table in zip(self._bank.sites, self._bank.tables, strict=True):
            r = state[f"r.{site.name}"]
            if r.shape != table.shape:
                raise RuntimeError(f"rows of shape {tuple(r.shape)} at {site.name!r}, expected {tuple(table.shape)}")
            with torch.no_grad():
                table.copy_(r)
            averages = {
                name.removesuffix(f".{site.name}"): value.to(table.device)
                for name, value in state.items()
                if name.endswith(f".{site.name}") and not name.startswith("r.")
            }
            self._optimizer.state[table] = {"edition": table.edition, **averages}
