"""Test-only LHUC: amplitudes of a frozen speaker-independent network (Swietojanski et al. 2016, sec. III).

For each speaker the cross-entropy of his own frames is minimised over r alone (equations 7 to 9). All speakers
adapt in the same mini-batches, each a block of its own; as rows do not touch each other, the result is what a run
for each speaker alone gives. A speaker's gradient is the sum over his frames of a mini-batch, divided by the
batch's nominal size: each frame counts the same, also in a last batch that is not full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        sweeps: Times that the data is gone through.
        batch_size: Frames of one speaker in a mini-batch.
        silence_weight: Weight of frames of silence; speech has 1.
    """

    amplitude: Literal["exp", "2sigmoid", "identity", "relu"] = "exp"
    layers: tuple[int, ...] | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(0.8, gt=0.0)
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
        bank = attach(model, self._sites(model), list(speakers), amplitude=self.config.amplitude)
        bank.detach()
        self.adapt(bank, model, speakers, seed)
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

    def adapt(self, bank: SpeakerBank, model: Dnn, speakers: Mapping[str, SpeakerFrames], seed: int) -> None:
        """Move rows of a bank from where they are: to adapt again, or from amplitudes that were found otherwise.

        Args:
            bank: Detached, with amplitudes after hidden layers of the model, and with these speakers.
            model: Its model.
            speakers: Each speaker's data.
            seed: As in ``estimate``.
        """
        bank.attach()
        try:
            data = [_Frames(bank.row(name), frames, model, seed) for name, frames in speakers.items()]
            optimizer = bank.optimizer(self.config.optimizer, lr=self.config.learning_rate)
            with frozen(model):
                for sweep in range(self.config.sweeps):
                    for speaker in data:
                        speaker.shuffle(sweep)
                    for step in range(max((speaker.batches(self.config.batch_size) for speaker in data), default=0)):
                        self._step(model, bank, optimizer, data, step)
        finally:
            bank.detach()

    def _sites(self, model: Dnn) -> list[str]:
        layers = range(len(model.hidden)) if self.config.layers is None else self.config.layers
        wrong = [layer for layer in layers if not 0 <= layer < len(model.hidden)]
        if wrong or not layers:
            raise SiteError(f"layers {wrong or 'none'}: the network has hidden layers 0 to {len(model.hidden) - 1}")
        return [f"hidden.{layer}.activation" for layer in layers]

    def _step(
        self, model: Dnn, bank: SpeakerBank, optimizer: torch.optim.Optimizer, data: Sequence[_Frames], step: int
    ) -> None:
        """One mini-batch of every speaker who has that many."""
        size, device = self.config.batch_size, model.log_prior.device
        active = [speaker for speaker in data if step < speaker.batches(size)]
        optimizer.zero_grad(set_to_none=True)
        at_once = max(1, MAX_FRAMES_AT_ONCE // size)
        for first in range(0, len(active), at_once):
            group = active[first : first + at_once]
            spliced, pdfs, posteriors, weights = (
                torch.cat(parts).to(device)
                for parts in zip(*(speaker.batch(step, size) for speaker in group), strict=True)
            )
            with bank.blocks(torch.tensor([speaker.row for speaker in group])):
                (candidate_cross_entropy(model(spliced), pdfs, posteriors, weights) / size).backward()
        optimizer.step()


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
