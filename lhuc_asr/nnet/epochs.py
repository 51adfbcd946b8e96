"""The epochs of a training: how each is kept or undone, and how a killed run goes on.

The whole state is written before the first epoch and after every one. A killed run resumes from this state and ends
with the same bits. An epoch that makes the held-out loss worse is undone, as in Kaldi's train_scheduler.sh, and so is
the first one of a network that goes on from another.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import stopwatch
from lhuc_asr.nnet.schedule import Newbob
from lhuc_asr.nnet.training_state import TrainingState

logger = logging.getLogger(__name__)

# A function that is called with the metrics of each epoch.
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy of a network over some frames.

    Attributes:
        loss: What training makes small, mean over the frames: cross-entropy in nats, or what ``sequence_trainer.py``
            says.
        accuracy: Fraction of frames whose pdf is the target: as the most probable one, or as an expectation.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Criterion:
    """What a training lowers.

    Attributes:
        epoch: Function that trains the network for one epoch, and returns the mean loss.
        heldout: Function that evaluates the network on held-out speakers.
        after: Function from a schedule's state and an epoch's held-out loss to the state after the epoch.
        rates: Names of the options with the learning rates, for the message when training diverges.
    """

    epoch: Callable[[Newbob], float]
    heldout: Callable[[], Evaluation]
    after: Callable[[Newbob, float], Newbob]
    rates: str


def run_epochs(state: TrainingState, criterion: Criterion, learning_rate: float, on_epoch: OnEpoch) -> Newbob:
    """Train to the end of the schedule, resuming from the state's file if it exists.

    Args:
        state: The network in training, and its file.
        criterion: What is lowered.
        learning_rate: Learning rate of the first epoch.
        on_epoch: Function that is called with the metrics of each epoch.

    Returns:
        The schedule's state after the last epoch; the network is that of the best one.

    Raises:
        CheckpointError: The file is the state of another network, or training diverged.
    """
    newbob = _resumed(state) if state.exists else _begun(state, criterion, learning_rate)
    while not newbob.finished:
        with stopwatch() as watch:
            state.begin_epoch()
            loss = criterion.epoch(newbob)
            evaluation = criterion.heldout()
        if not math.isfinite(loss + evaluation.loss):
            raise CheckpointError(
                f"epoch {newbob.epochs + 1}: the loss is {loss}, held out {evaluation.loss}: training "
                f"diverged; lower {criterion.rates}"
            )
        rate, better = newbob.learning_rate, evaluation.loss <= newbob.best_loss
        if better:
            state.keep_epoch()
        else:
            state.restore()
        newbob = criterion.after(newbob, evaluation.loss)
        state.save(newbob)
        on_epoch(
            {
                "epoch": newbob.epochs,
                "learning_rate": rate,
                "train_loss": round(loss, 5),
                "heldout_loss": round(evaluation.loss, 5),
                "heldout_accuracy": round(evaluation.accuracy, 5),
                "kept": better,
                "seconds": round(watch.seconds, 2),
            }
        )
        logger.info(
            "epoch %d: rate %g, loss %.4f, held out %.4f, accuracy %.2f %%%s (%.1f s)",
            newbob.epochs, rate, loss, evaluation.loss, 100 * evaluation.accuracy,
            "" if better else ", undone", watch.seconds,
        )  # fmt: skip
    return newbob


def _resumed(state: TrainingState) -> Newbob:
    newbob = state.restore()
    ranks().wait()  # where it is finished, the first process deletes what the others still read
    logger.info("training resumes after epoch %d", newbob.epochs)
    return newbob


def _begun(state: TrainingState, criterion: Criterion, learning_rate: float) -> Newbob:
    """Write the state before the first epoch, which a worse first epoch goes back to."""
    loss = criterion.heldout().loss
    if not math.isfinite(loss):
        raise CheckpointError(
            f"before the first epoch the held-out loss is {loss}: the network or a held-out feature is not finite; "
            "make both again"
        )
    newbob = Newbob(learning_rate, best_loss=loss)
    state.save(newbob)
    return newbob
