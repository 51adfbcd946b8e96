"""Where an epoch is, on disk: a run that is killed within a long epoch goes on from there, with the same bits.

Beside the weights, an epoch's place is that of its mini-batches and of its random numbers. It is written between two
blocks of frames, so that a run that goes on reads no block twice, and not more often than every few minutes. Each of
several processes has random numbers of its own; another number of processes than before draws others.
"""

from __future__ import annotations

import logging
import math
import time

import torch

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.ranks import ranks
from lhuc_asr.nnet.dropout import random_state, restore_random_state
from lhuc_asr.nnet.loader import ShuffledFrames
from lhuc_asr.nnet.schedule import Newbob
from lhuc_asr.nnet.training_state import REMEDY_WITHIN, Progress, TrainingState

logger = logging.getLogger(__name__)

# Least time between two states: writing one takes well under a second.
SECONDS = 300.0


class EpochPlace:
    """The place of an epoch that is being trained, inside ``seeded_training``.

    Args:
        state: The network in training.
        newbob: The schedule's state before the epoch.
        batches: Mini-batches of the epoch.
        device: Device that the network runs on.
    """

    def __init__(self, state: TrainingState, newbob: Newbob, batches: ShuffledFrames, device: torch.device) -> None:
        self._state, self._newbob, self._batches, self._device = state, newbob, batches, device
        self._written = time.monotonic()

    def restore(self) -> tuple[float, int]:
        """Go to where a killed run was in this epoch, if it has a state.

        Returns:
            Sum of the loss in this process, and number of the frames, before that place; 0 where there is none.

        Raises:
            CheckpointError: The state is damaged, or that of another network or other frames.
        """
        progress = self._state.restore_within(self._newbob)
        if progress is None:
            return 0.0, 0
        together, place = ranks(), progress.place
        before = progress.loss if together.is_first else 0.0
        try:
            self._batches.restore({name: place[f"batches.{name}"] for name in ("place", "generator")})
            if int(place["processes"]) == together.count:
                prefix = f"random.{together.rank}."
                random = {name.removeprefix(prefix): each for name, each in place.items() if name.startswith(prefix)}
                restore_random_state(self._state.model, self._device, random)
                before = float(place["losses"][together.rank])
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            message = f"{self._state.path_within}: the state of other frames ({error}); {REMEDY_WITHIN}"
            raise CheckpointError(message) from error
        together.wait()
        logger.info("epoch %d goes on after %d frames", self._newbob.epochs + 1, progress.frames)
        return before, progress.frames

    def keep(self, loss: torch.Tensor, frames: int) -> None:
        """Write the state if it is time to.

        Args:
            loss: Sum of the loss in this process, a scalar.
            frames: Number of the frames of all processes.
        """
        together = ranks()
        if not (self._batches.between_blocks and together.of_first(time.monotonic() - self._written > SECONDS)):
            return
        losses = together.gathered(loss.detach().cpu())
        if not all(map(math.isfinite, losses)):
            return  # the end of the epoch says so; the last state that is finite stays
        place = {f"batches.{name}": tensor for name, tensor in self._batches.state().items()}
        place |= {"processes": torch.tensor(together.count), "losses": torch.stack(losses)}
        random = random_state(self._state.model, self._device)
        for name, tensor in random.items():
            place |= {f"random.{rank}.{name}": each for rank, each in enumerate(together.gathered(tensor))}
        self._state.save_within(self._newbob, Progress(place, float(sum(losses)), frames))
        self._written = time.monotonic()
