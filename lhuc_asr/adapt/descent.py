"""Gradient descent on speakers' numbers, the network frozen (Swietojanski et al. 2016, sec. III, equations 7 to 9).

Each speaker's cross-entropy is minimised over the speaker's numbers r only: a row of a bank, or what another method
moves (``movable.py``). Speakers share mini-batches, in which each has a block of their own. Their numbers do not affect
each other, so each speaker's result is the same as in a separate run, to the bit on processors of one kind. A speaker's
gradient is the sum over the speaker's frames in a mini-batch, divided by the nominal batch size. Under SGD every frame
then has the same weight, even in a last batch that is not full.

With weights w_t, targets q_t, outputs p_t(r), and outputs p_t(r_0) of the network with row 0, a sweep over a speaker's
frames descends

    F(r) = sum_t w_t H((1 - rho) q_t + rho p_t(r_0), p_t(r))  +  |r - r_0|^2 / (2 sigma^2)

rho is ``kl_weight``: it mixes the outputs of the unadapted network into the targets (Yu et al. 2013). sigma is
``prior_deviation``, the standard deviation of a Gaussian prior around row 0. The prior is one term beside a sum over
frames, so its influence is large if there are few frames (maximum a posteriori).

A single utterance cannot do much harm. A step of SGD is proportional to the number of frames. A step of Adam is about
``learning_rate`` long in every unit, but the number of steps is sweeps x frames / batch size, and r moves hardly
farther than that number times the rate. With the defaults, 2 s of speech make one mini-batch per sweep, and r ends
about 0.025 from neutral. With much data, the errors in the targets are learned too; rho counteracts this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from pydantic import Field

from lhuc_asr.adapt.batches import SpeakerBatches
from lhuc_asr.adapt.method import warn_unadapted
from lhuc_asr.adapt.movable import BankInNetwork, Movable
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.config import LearningRate, StrictModel
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.objective import CandidateTargets, FrameCrossEntropy, Objective, join_targets
from lhuc_asr.nnet.acoustic_model import AcousticModel

# Number of frames that go through the network at once. On a CPU, 1,024 x 512 units x 4 bytes = 2 MB per layer stay in
# the caches; 2,560 frames of ten speakers took a sixth longer. A GPU needs more frames to be busy.
CPU_FRAMES_AT_ONCE, GPU_FRAMES_AT_ONCE = 1_024, 16_384
# A block of a speaker's frames is filled up to this number, or to 2, 4, 8, ... times as many. Its length depends on
# nothing but the speaker's own frames, because libraries sum another number of frames in another order. With 32, a
# block is a whole number of a processor's vectors whatever the width of a layer: functions such as the sigmoid have
# other last bits for what is left over at the end of all blocks.
SHORTEST_BLOCK = 32
# Memory for what is kept between sweeps, in bytes. A minute of speech at 2,048 units takes 49 MB, and a quarter of an
# hour at 512 units, with the unadapted outputs of 2,000 pdfs, 800 MB. Speakers adapt in groups that fit.
KEPT_BYTES = 1 << 30

# Rows (N,) -> penalties (N,), and the same of the speakers' names.
Penalty = Callable[[torch.Tensor], torch.Tensor]
NamedPenalty = Callable[[Sequence[str]], torch.Tensor]
# Number of the sweep, number of the mini-batch within the sweep -> a context for the gradient.
StepContext = Callable[[int, int], AbstractContextManager[object]]


class DescentConfig(StrictModel):
    """Options of the descent.

    The defaults were chosen by frame cross-entropy, with best-path targets, on held-out readers' recordings that were
    not used for adaptation (docs/settings.md). Without rho, smaller rates or fewer sweeps are better.

    Attributes:
        optimizer: ``sgd``, or ``adam`` with separate moments for each speaker.
        learning_rate: Step size of the optimizer.
        sweeps: Number of passes over the data.
        batch_size: Number of frames of one speaker in a mini-batch.
        kl_weight: rho, the share of the unadapted network's outputs in the targets.
        prior_deviation: sigma of the prior on r around row 0; None for no prior, which is an infinite sigma.
        band_mask: Limit of the number of features that SpecAugment masks in each frame of a mini-batch. The targets,
            those of the unadapted network too, are of the frame as it was recorded: the network learns to say the same
            of less. 0 for none.
        bfloat16: Whether matrix products are in bfloat16. They are twice as fast if the processor has bfloat16
            products, and slower if it does not.
    """

    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: LearningRate = 0.005
    sweeps: int = Field(5, ge=1, le=10_000)
    batch_size: int = Field(256, ge=1, le=1_000_000)
    kl_weight: float = Field(0.7, ge=0.0, lt=1.0)
    prior_deviation: float | None = Field(None, ge=1e-6, le=1e6)
    band_mask: int = Field(0, ge=0, le=1000)
    bfloat16: bool = False


class Descent:
    """Gradient descent on speakers' rows.

    Args:
        config: Options of the descent.
    """

    def __init__(self, config: DescentConfig) -> None:
        self.config = config
        self._objective: Objective[CandidateTargets] = FrameCrossEntropy(config.kl_weight)

    def adapt(
        self,
        bank: SpeakerBank,
        model: AcousticModel,
        speakers: Mapping[str, SpeakerData],
        seed: int,
        optimizer: torch.optim.Optimizer | None = None,
        penalty: Penalty | None = None,
        each_step: StepContext | None = None,
    ) -> None:
        """Move rows of a bank, starting from their current values.

        Inside ``bank.computed(...)`` it moves what r is computed from, not the rows. A speaker whose frames all have
        weight 0 stays where they are, and one whose row becomes infinite or not a number ends at row 0; a warning names
        them.

        Args:
            bank: A detached bank with these speakers.
            model: The bank's model.
            speakers: Each speaker's data.
            seed: Seeds the order of each speaker's frames, which does not depend on the other speakers.
            optimizer: Optimizer of the parameters that move; None for the configuration's, of the bank's rows.
            penalty: A function from rows (N,) to penalties (N,), each added once to the sum over all of that speaker's
                frames; None for the configuration's prior.
            each_step: A function from the number of the sweep and of the mini-batch in it to a context for the
                gradient.

        Raises:
            AlignmentError: A speaker's targets or features do not fit the network.
        """
        rows = BankInNetwork(bank, model, torch.bfloat16 if self.config.bfloat16 else None)
        of_names = None if penalty is None else partial(_of_rows, bank, penalty)
        self.move(rows, model, speakers, seed, optimizer, of_names, each_step)

    def move(
        self,
        movable: Movable,
        model: AcousticModel,
        speakers: Mapping[str, SpeakerData],
        seed: int,
        optimizer: torch.optim.Optimizer | None = None,
        penalty: NamedPenalty | None = None,
        each_step: StepContext | None = None,
    ) -> None:
        """Move numbers of any kind; arguments and errors as ``adapt``.

        Args:
            movable: The speakers' numbers in the network.
            penalty: A function from names (N,) to penalties (N,); None for the configuration's prior.
        """
        config = self.config
        if penalty is None and config.prior_deviation is not None:
            penalty = partial(_prior, movable, config.prior_deviation)
        data = [
            SpeakerBatches(name, frames, model, movable, bool(config.kl_weight), seed, config.band_mask)
            for name, frames in speakers.items()
        ]
        optimizer = optimizer or movable.optimizer(config.optimizer, config.learning_rate)
        for group, keep in _groups(data, keep=config.sweeps > 1 and not config.band_mask):
            for speaker in group if keep else ():
                speaker.keep()
            for sweep in range(config.sweeps):
                for speaker in group:
                    speaker.shuffle(sweep)
                for step in range(max(speaker.batches(config.batch_size) for speaker in group)):
                    with nullcontext() if each_step is None else each_step(sweep, step):
                        self._step(movable, optimizer, group, step, penalty)
            for speaker in group:
                speaker.forget()
        mute = [speaker.name for speaker in data if not speaker.batches(1)]
        warn_unadapted("all their frames have weight 0", mute, len(data))
        movable.put_back_diverged(list(speakers))

    def _step(
        self,
        movable: Movable,
        optimizer: torch.optim.Optimizer,
        speakers: Sequence[SpeakerBatches],
        step: int,
        penalty: NamedPenalty | None,
    ) -> None:
        """Take one step with mini-batch ``step`` of every speaker who has that many."""
        size = self.config.batch_size
        by_length: dict[int, list[SpeakerBatches]] = {}
        for speaker in speakers:
            if frames := speaker.frames_in(step, size):
                by_length.setdefault(block_length(frames, size), []).append(speaker)
        optimizer.zero_grad(set_to_none=True)
        frames = CPU_FRAMES_AT_ONCE if movable.device.type == "cpu" else GPU_FRAMES_AT_ONCE
        for length, members in by_length.items():
            at_once = max(1, frames // length)
            for first in range(0, len(members), at_once):
                self._backward(movable, members[first : first + at_once], step, length, penalty)
        optimizer.step()

    def _backward(
        self,
        movable: Movable,
        speakers: Sequence[SpeakerBatches],
        step: int,
        length: int,
        penalty: NamedPenalty | None,
    ) -> None:
        """Add the gradient of some speakers' mini-batches number ``step``, filled up to blocks of ``length`` frames."""
        size, names = self.config.batch_size, [speaker.name for speaker in speakers]
        batches = [speaker.batch(step, size, length) for speaker in speakers]
        logits = movable.logits(torch.cat([batch.psi for batch in batches]), names)
        loss = self._objective(logits, join_targets([batch.targets for batch in batches]))
        if penalty is not None:
            # Each mini-batch has a share of the penalty; the shares of a sweep add up to the whole penalty.
            parts = zip(batches, speakers, strict=True)
            share = torch.stack([batch.targets.weights.sum() / speaker.weight for batch, speaker in parts])
            loss = loss + (share * penalty(names)).sum()
        (loss / size).backward()


def block_length(frames: int, batch_size: int) -> int:
    """Number of frames that a mini-batch of one speaker is filled up to.

    Args:
        frames: Number of its frames.
        batch_size: Number of frames of a full one.

    Example:
        >>> [block_length(frames, 256) for frames in (1, 33, 129, 256)], block_length(300, 300)
        ([32, 64, 256, 256], 320)
    """
    longest = -(-batch_size // SHORTEST_BLOCK) * SHORTEST_BLOCK
    length = SHORTEST_BLOCK
    while length < frames:
        length *= 2
    return min(length, longest)


def _of_rows(bank: SpeakerBank, penalty: Penalty, speakers: Sequence[str]) -> torch.Tensor:
    return penalty(bank.rows_of(speakers))


def _prior(movable: Movable, deviation: float, speakers: Sequence[str]) -> torch.Tensor:
    """|r - r_0|^2 / (2 sigma^2), shape (N,)."""
    return movable.distance(speakers) / (2 * deviation**2)


def _groups(speakers: Sequence[SpeakerBatches], keep: bool) -> Iterator[tuple[list[SpeakerBatches], bool]]:
    """Groups of speakers who adapt together, and for each group whether its frames fit into ``KEPT_BYTES``.

    A group of one speaker with a long recording may not fit.
    """
    group: list[SpeakerBatches] = []
    for speaker in speakers:
        if not speaker.batches(1):
            continue
        if keep and group and sum(member.bytes_to_keep for member in [*group, speaker]) > KEPT_BYTES:
            yield group, sum(member.bytes_to_keep for member in group) <= KEPT_BYTES
            group = []
        group.append(speaker)
    if group:
        yield group, keep and sum(member.bytes_to_keep for member in group) <= KEPT_BYTES
