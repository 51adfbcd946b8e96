"""Schedules of the learning rate: newbob, and a decay over a number of epochs that is fixed beforehand.

With newbob the rate is constant while each epoch improves the loss by enough, then halved every epoch until the
improvement becomes negligible. A network that goes on from another may be worse after its first epoch: the trainer
undoes an epoch that is worse than the network before it, and until one is kept, newbob halves the rate after each and
tries again.

With ``decay_to`` the rate falls by the same factor in each mini-batch, as in Kaldi's nnet3, so that a few epochs over
much data end with small steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from lhuc_asr.base.config import LearningRate, StrictModel

# Losses below this, in nats per frame, are zero up to rounding.
LOSS_FLOOR = 1e-12


MOST_EPOCHS = 10_000
HIGHEST_RATE = 1000.0
MaxEpochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]


class NewbobConfig(StrictModel):
    """Options of newbob. Improvements are relative to the lowest held-out loss so far.

    Attributes:
        learning_rate: Learning rate of the first epochs, for the mean gradient of a mini-batch.
        halve_below: Halving begins after an epoch that improves the loss by less than this.
        stop_below: Once halving has begun, training ends after an epoch that improves the loss by less than this.
        max_epochs: Maximum number of epochs.
        decay_to: Learning rate that a decay over all of ``max_epochs`` ends with; None for newbob.
    """

    learning_rate: LearningRate = 0.08
    halve_below: float = Field(0.01, ge=0.0, le=10.0)
    stop_below: float = Field(0.001, ge=0.0, le=10.0)
    max_epochs: MaxEpochs = 20
    decay_to: LearningRate | None = None

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.decay_to is not None and self.decay_to > self.learning_rate:
            raise ValueError(f"decay_to {self.decay_to:g}: expected at most learning_rate, {self.learning_rate:g}")
        return self

    def rate_after(self, epochs: float) -> float:
        """Learning rate of the decay after a number of epochs, parts of them too; without a decay the first rate."""
        if self.decay_to is None:
            return self.learning_rate
        share = min(1.0, epochs / self.max_epochs)
        return float(self.learning_rate * (self.decay_to / self.learning_rate) ** share)


@dataclass(frozen=True)
class Newbob:
    """The schedule's state after some epochs.

    Attributes:
        learning_rate: Learning rate of the next epoch.
        best_loss: Lowest held-out loss so far, that of the network before the first epoch included.
        halving: Whether halving has begun.
        epochs: Number of epochs so far.
        kept: Number of them that did not make the held-out loss worse.
        finished: Whether training is over.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    learning_rate: Annotated[float, Field(ge=0.0, le=HIGHEST_RATE)]
    best_loss: Annotated[float, Field(allow_inf_nan=False)] = float("inf")
    halving: bool = False
    epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] = 0
    kept: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] = 0
    finished: bool = False

    def seed_of_epoch(self, seed: int) -> int:
        """The seed of the next epoch in a training with a seed."""
        return seed * 1_000_003 + self.epochs

    def after(self, loss: float, config: NewbobConfig) -> Newbob:
        """The state after an epoch that ended with a held-out ``loss``."""
        # The first kept epoch counts as an improvement. The floor avoids a division by a loss of zero.
        better, first = loss <= self.best_loss, self.kept == 0
        improvement = 1.0 if first else (self.best_loss - loss) / max(self.best_loss, LOSS_FLOOR)
        ended = self.halving and improvement < config.stop_below
        halving = self.halving or improvement < config.halve_below
        undone_first = first and not better
        if config.decay_to is not None:
            return self.after_one_of(config.max_epochs, loss, config.rate_after(self.epochs + 1))
        return replace(
            self,
            learning_rate=self.learning_rate / 2 if halving or undone_first else self.learning_rate,
            best_loss=min(self.best_loss, loss),
            halving=halving,
            epochs=self.epochs + 1,
            kept=self.kept + better,
            finished=ended or self.epochs + 1 >= config.max_epochs,
        )

    def after_one_of(self, epochs: int, loss: float, learning_rate: float) -> Newbob:
        """The state after an epoch of a schedule that is fixed beforehand.

        Args:
            epochs: Number of epochs of the schedule.
            loss: Held-out loss after the epoch.
            learning_rate: Learning rate of the next epoch.
        """
        return replace(
            self,
            learning_rate=learning_rate,
            best_loss=min(self.best_loss, loss),
            epochs=self.epochs + 1,
            kept=self.kept + (loss <= self.best_loss),
            finished=self.epochs + 1 >= epochs,
        )
