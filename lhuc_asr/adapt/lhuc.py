"""Test-only LHUC: amplitudes of a frozen speaker-independent network (Swietojanski et al. 2016, sec. III).

For each speaker the cross-entropy of his own frames is minimised over r alone (equations 7 to 9). All speakers
adapt in the same mini-batches, each a block of its own; as rows do not touch each other, the result is what a run
for each speaker alone gives. A speaker's gradient is the sum over his frames of a mini-batch, divided by the
batch's nominal size: each frame counts the same, also in a last batch that is not full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.adapt.targets import SpeakerFrames
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import SiteError
from lhuc_asr.features.context import splice_index
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.nnet.losses import candidate_cross_entropy

# Frames that go through the network at once: 1,024 x 512 units x 4 bytes = 2 MB a layer. Ten speakers' 2,560 at once
# took a sixth longer on a CPU: the activations leave the caches, and their memory is given back and faulted in again.
MAX_FRAMES_AT_ONCE = 1_024


class LhucConfig(StrictModel):
    """How amplitudes are estimated. The defaults are the paper's (sec. V).

    Attributes:
        amplitude: xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None all.
        optimizer: ``sgd``, or ``adam`` with moments of its own for each speaker.
        learning_rate: Its step size.
        weight_decay: Pull towards the speaker-independent row, in units of the mean gradient a frame.
        sweeps: Times that the data is gone through.
        batch_size: Frames of one speaker in a mini-batch.
        silence_weight: Weight of frames of silence; speech has 1.
    """

    amplitude: Literal["exp", "2sigmoid", "identity", "relu"] = "exp"
    layers: tuple[int, ...] | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(0.8, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    sweeps: int = Field(1, ge=1)
    batch_size: int = Field(256, ge=1)
    silence_weight: float = Field(0.01, ge=0.0, le=1.0)


@dataclass(frozen=True)
class LhucSpeakers:
    """The amplitudes of some speakers."""

    bank: SpeakerBank

    @contextmanager
    def applied(self, model: Dnn, speaker: str) -> Iterator[None]:
        """A context in which ``model`` has the amplitudes of ``speaker``.

        Raises:
            SiteError: The amplitudes belong to another model.
        """
        if self.bank.model is not model:
            raise SiteError("these amplitudes belong to another model")
        self.bank.attach()
        try:
            with self.bank.speaker(speaker):
                yield
        finally:
            self.bank.detach()

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        self.bank.save(folder)


class Lhuc:
    """Test-only LHUC as an adaptation method."""

    def __init__(self, config: LhucConfig) -> None:
        self.config = config

    def estimate(self, model: Dnn, speakers: Mapping[str, SpeakerFrames], seed: int) -> LhucSpeakers:
        """Estimate the amplitudes of all speakers together.

        Args:
            model: The speaker-independent network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Of the order of each speaker's frames; it does not depend on who else adapts.

        Raises:
            SiteError: A layer that the network does not have.
        """
        with attached(self.config, model, speakers) as bank:
            optimizer = bank.optimizer(
                self.config.optimizer, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
            )
            descend(model, bank, optimizer, speakers, self.config, seed)
        return LhucSpeakers(bank)

    def load(self, model: Dnn, folder: Path) -> LhucSpeakers:
        """Read the speakers that ``LhucSpeakers.save`` wrote.

        Raises:
            CheckpointError: There is no speaker's file, or one is damaged.
            ModelMismatchError: A speaker belongs to another model.
        """
        bank = SpeakerBank.load(folder, model)
        bank.detach()
        return LhucSpeakers(bank)


@contextmanager
def attached(config: LhucConfig, model: Dnn, speakers: Iterable[str]) -> Iterator[SpeakerBank]:
    """A context in which a new bank of these speakers is attached to the layers that a configuration names.

    Raises:
        SiteError: A layer that the network does not have.
    """
    layers = range(len(model.hidden)) if config.layers is None else config.layers
    wrong = [layer for layer in layers if not 0 <= layer < len(model.hidden)]
    if wrong or not layers:
        raise SiteError(f"layers {wrong or 'none'}: the network has hidden layers 0 to {len(model.hidden) - 1}")
    sites = [f"hidden.{layer}.activation" for layer in layers]
    bank = attach(model, sites, list(speakers), amplitude=config.amplitude)
    try:
        yield bank
    finally:
        bank.detach()


def descend(
    model: Dnn,
    bank: SpeakerBank,
    optimizer: torch.optim.Optimizer,
    speakers: Mapping[str, SpeakerFrames],
    config: LhucConfig,
    seed: int,
    penalty: Callable[[torch.Tensor], torch.Tensor] | None = None,
    each_step: Callable[[int, int], AbstractContextManager[object]] | None = None,
) -> None:
    """Descend on the cross-entropy of each speaker's frames, and on a penalty of his rows.

    Args:
        model: The network; it comes back unchanged.
        bank: Attached to it; has all these speakers.
        optimizer: Of what the bank's amplitudes are computed from.
        speakers: Each speaker's data.
        config: Sweeps and size of the mini-batches.
        seed: Of the order of each speaker's frames.
        penalty: Rows (N,) -> what counts once against all of a speaker's frames, shape (N,); each mini-batch has
            its share of it, as of the frames' weight.
        each_step: Sweep, number of the mini-batch in it -> the context of this step.
    """
    data = [_Frames(bank.row(name), frames, model, seed) for name, frames in speakers.items()]
    with frozen(model):
        for sweep in range(config.sweeps):
            for speaker in data:
                speaker.shuffle(sweep)
            for step in range(max((speaker.batches(config.batch_size) for speaker in data), default=0)):
                optimizer.zero_grad(set_to_none=True)
                active = [speaker for speaker in data if step < speaker.batches(config.batch_size)]
                with nullcontext() if each_step is None else each_step(sweep, step):
                    _differentiate(model, bank, active, step, config.batch_size)
                if penalty is not None:
                    rows = torch.tensor([speaker.row for speaker in active])
                    share = torch.tensor([speaker.share(step, config.batch_size) for speaker in active])
                    values = penalty(rows)
                    (values @ share.to(values) / config.batch_size).backward()
                optimizer.step()


def _differentiate(model: Dnn, bank: SpeakerBank, active: Sequence[_Frames], step: int, size: int) -> None:
    """Gradients of one mini-batch of every speaker who has that many."""
    device = model.log_prior.device
    at_once = max(1, MAX_FRAMES_AT_ONCE // size)
    for first in range(0, len(active), at_once):
        group = active[first : first + at_once]
        spliced, pdfs, posteriors, weights = (
            torch.cat(parts).to(device) for parts in zip(*(speaker.batch(step, size) for speaker in group), strict=True)
        )
        with bank.blocks(torch.tensor([speaker.row for speaker in group])):
            (candidate_cross_entropy(model(spliced), pdfs, posteriors, weights) / size).backward()


class _Frames:
    """One speaker's frames, shuffled by a generator of his own, in batches filled up with frames of weight 0."""

    def __init__(self, row: int, frames: SpeakerFrames, model: Dnn, seed: int) -> None:
        self.row = row
        self._seed = seed
        self._context = model.config.context
        self._features = torch.from_numpy(np.ascontiguousarray(frames.features))
        self._pdfs = torch.from_numpy(frames.targets.pdf).long()
        self._posteriors = torch.from_numpy(frames.targets.posterior)
        self._weights = torch.from_numpy(frames.targets.weight)
        lengths = torch.tensor(frames.lengths)
        ends = torch.cumsum(lengths, 0)
        self._last = torch.repeat_interleave(ends - 1, lengths)
        self._first = torch.repeat_interleave(ends - lengths, lengths)
        # Frames that count for nothing need not pass through the network.
        self._useful = torch.nonzero(self._weights > 0).squeeze(1)
        self._order = self._useful

    def batches(self, size: int) -> int:
        return -(-len(self._useful) // size)

    def share(self, step: int, size: int) -> float:
        """The share of a mini-batch in the weight of all frames."""
        weights = self._weights[self._order[step * size : (step + 1) * size]]
        return float(weights.sum() / self._weights.sum())

    def shuffle(self, sweep: int) -> None:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + sweep)
        self._order = self._useful[torch.randperm(len(self._useful), generator=generator)]

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, ...]:
        """Spliced features (size, (2c+1) D), candidates and their posteriors (size, M), and weights (size,)."""
        frames = self._order[step * size : (step + 1) * size]
        missing = size - len(frames)
        weights = self._weights[frames]
        if missing:
            frames = torch.cat([frames, frames[:1].expand(missing)])
            weights = torch.cat([weights, weights.new_zeros(missing)])
        index = splice_index(frames, self._first[frames], self._last[frames], self._context)
        return self._features[index].flatten(1), self._pdfs[frames], self._posteriors[frames], weights
