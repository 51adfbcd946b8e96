"""Training of a network: frame cross-entropy by SGD, with newbob on held-out speakers.

How epochs are kept, undone and resumed is in ``epochs.py``, how a run goes on within one in ``epoch_place.py``. At the
end, the weights of the last epochs may be averaged. The statistics of batch normalisation are estimated for each
network that is evaluated, so also for each average; those of sequence training (``sequence_trainer.py``) stay as they
are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.base.ranks import ranks, sharing_threads
from lhuc_asr.base.runlog import progress
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.augment import mask_bands
from lhuc_asr.nnet.companion import ALONE, Companion
from lhuc_asr.nnet.dropout import seeded_training
from lhuc_asr.nnet.epoch_place import EpochPlace
from lhuc_asr.nnet.epochs import Criterion, Evaluation, OnEpoch, run_epochs
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.losses import cross_entropy
from lhuc_asr.nnet.normalisation import batch_normalised, estimating
from lhuc_asr.nnet.schedule import Newbob, NewbobConfig
from lhuc_asr.nnet.training_state import TrainingState, mean_of

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=AcousticModel)

# Number of frames in an evaluation batch.
EVALUATION_BATCH = 4096
# Number of such batches that the statistics of batch normalisation are estimated from. Of 32,768 frames the mean of a
# unit is within some hundredths of its deviation, though neighbouring frames are alike; they take a hundredth of the
# time of an hour's epoch.
STATISTICS_BATCHES = 8


class TrainerConfig(StrictModel):
    """Options of training.

    Attributes:
        batch_size: Number of frames in a mini-batch, over all processes that train together.
        accumulation_steps: Number of parts of a mini-batch that go through the network one after the other, and whose
            gradients are summed, where the whole does not fit into memory; None for 1.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        max_gradient_norm: Maximum norm of a gradient; a longer one is scaled down to it. No
            gradient reaches 1e9.
        band_mask: Limit of the number of features that SpecAugment masks in each training frame; see ``mask_bands``. 0
            for none.
        precision: Type of the matrix products; weights, amplitudes and the loss stay in float32.
        average_epochs: Maximum number of epochs whose weights are averaged after the last one. Of the averages of the
            last 2, 3, ... kept epochs the one with the lowest held-out loss is taken, if it is lower than the last
            epoch's. 1 for none. The state has the weights of as many epochs.
        schedule: Schedule of the learning rate.
    """

    batch_size: int = Field(256, ge=1, le=1_000_000)
    accumulation_steps: int | None = Field(None, ge=1, le=10_000)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=100.0)
    max_gradient_norm: float = Field(5.0, gt=0.0, le=1e9)
    band_mask: int = Field(0, ge=0, le=1000)
    precision: Literal["float32", "bfloat16"] = "float32"
    average_epochs: int = Field(1, ge=1, le=100)
    schedule: NewbobConfig = NewbobConfig()


def train(
    model: ModelT,
    training: FrameSource,
    heldout: FrameSource,
    config: TrainerConfig,
    state_path: Path,
    seed: int,
    device: torch.device,
    on_epoch: OnEpoch,
    companion: Companion = ALONE,
) -> ModelT:
    """Train to the end of the schedule, resuming from ``state_path`` if it exists.

    Args:
        model: The network, initialised or already trained; it is trained in place.
        training: Frames to train on.
        heldout: Frames of other speakers; their loss controls the schedule.
        config: Options of training.
        state_path: File of the state after the last epoch.
        seed: Seed of the frame order and of dropout.
        device: Device that the network runs on.
        on_epoch: Function that is called with the metrics of each epoch, and of the average of the last ones.
        companion: Companion that is trained together with the network.

    Returns:
        The model of the best epoch, or of an average of the last kept ones, in evaluation mode.

    Raises:
        AlignmentError: No training frame, or no held-out frame, has a target.
        CheckpointError: ``state_path`` is the state of another network, or training diverged.
    """
    model.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.schedule.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,  # one pass over the weights
    )
    network = ranks().network(model)
    settle = partial(estimate_statistics, model, training, seed, device, companion)
    state = TrainingState(state_path, model, optimizer, companion, config.average_epochs - 1)

    def epoch(newbob: Newbob) -> float:
        loss = _epoch(state, network, training, config, newbob, seed, device)
        settle()
        return loss

    criterion = Criterion(
        epoch=epoch,
        heldout=partial(evaluate, model, heldout, device),
        after=lambda newbob, loss: newbob.after(loss, config.schedule),
        rates=companion.rates,
    )
    with sharing_threads():
        newbob = run_epochs(state, criterion, config.schedule.learning_rate, on_epoch)
        if config.average_epochs > 1:
            _average(state, settle, heldout, newbob.best_loss, device, on_epoch)
    return model.eval()


def _average(
    state: TrainingState,
    settle: Callable[[], None],
    heldout: FrameSource,
    best_loss: float,
    device: torch.device,
    on_epoch: OnEpoch,
) -> None:
    """Give the network the average of its last kept epochs that has the lowest held-out loss, if one is better.

    ``settle`` estimates the statistics that go with its weights.
    """
    epochs = [*state.earlier, state.learned()]
    chosen, accuracy = 1, evaluate(state.model, heldout, device).accuracy
    for number in range(2, len(epochs) + 1):
        state.learn(mean_of(epochs[-number:]))
        settle()
        evaluation = evaluate(state.model, heldout, device)
        if evaluation.loss < best_loss:
            chosen, best_loss, accuracy = number, evaluation.loss, evaluation.accuracy
    state.learn(mean_of(epochs[-chosen:]))
    settle()
    on_epoch({"averaged_epochs": chosen, "heldout_loss": round(best_loss, 5), "heldout_accuracy": round(accuracy, 5)})
    logger.info(
        "average of the last %d epochs (of 1 to %d, by held-out loss): held out %.4f, accuracy %.2f %%",
        chosen, len(epochs), best_loss, 100 * accuracy,
    )  # fmt: skip


def estimate_statistics(
    model: AcousticModel, source: FrameSource, seed: int, device: torch.device, companion: Companion = ALONE
) -> None:
    """Estimate the statistics of batch normalisation from training frames, if the network has any.

    They depend on nothing but the weights, what the companion has learned, and the seed.

    Args:
        model: The network; it is set to evaluation mode.
        source: The training frames, of which a random part is taken.
        seed: Seed of their choice.
        device: Device that the network runs on.
        companion: Companion of the network, which takes part as in training.
    """
    if not batch_normalised(model):
        return
    companion.begin_epoch(seed)
    batches = source.shuffled(EVALUATION_BATCH, torch.Generator().manual_seed(seed), whole=False)
    with estimating(model):
        for batch in islice(batches, STATISTICS_BATCHES):
            features, _, rows = batch.of()
            with companion.batch(rows):
                model(features.to(device))


def evaluate(model: AcousticModel, source: FrameSource, device: torch.device) -> Evaluation:
    """Loss and frame accuracy of a network.

    Args:
        model: The network; it is set to evaluation mode.
        source: The frames.
        device: Device that the network runs on.

    Raises:
        AlignmentError: No frame has a target.
    """
    model.eval()
    total, right, frames, together = 0.0, 0, 0, ranks()
    with torch.no_grad():
        for features, targets in source.in_order(EVALUATION_BATCH, (together.rank, together.count)):
            logits, targets = model(features.to(device)), targets.to(device)
            total += float(cross_entropy(logits, targets))
            right += int((logits.argmax(1) == targets).sum())
            frames += len(targets)
    loss, hits, counted = together.sum(total, right, frames)
    check_frames(int(counted), source, "evaluate")
    return Evaluation(loss / counted, hits / counted)


def _epoch(
    state: TrainingState,
    network: nn.Module,
    source: FrameSource,
    config: TrainerConfig,
    newbob: Newbob,
    seed: int,
    device: torch.device,
) -> float:
    """Train for one epoch, and return the mean loss. The frame order depends only on the seed and the epoch.

    ``network`` is the model, with gradients over all processes.
    """
    model, optimizer, companion, together = state.model, state.optimizer, state.companion, ranks()
    epoch_seed, all_frames = newbob.seed_of_epoch(seed), sum(u.frames for u in source.utterances)
    for group in optimizer.param_groups:
        group["lr"] = newbob.learning_rate
    model.train()
    companion.begin_epoch(epoch_seed)
    companion.set_rate(newbob.learning_rate / config.schedule.learning_rate)
    with seeded_training(model, together.seed(epoch_seed), device):
        batches = source.shuffled(config.batch_size, torch.Generator().manual_seed(epoch_seed))
        place = EpochPlace(state, newbob, batches, device)
        before, frames = place.restore()
        total = torch.full((), before, device=device)
        for batch in progress(batches, f"epoch {newbob.epochs + 1}", (all_frames - frames) // config.batch_size):
            if config.schedule.decay_to is not None:
                rate = config.schedule.rate_after(newbob.epochs + frames / all_frames)
                companion.set_rate(rate / config.schedule.learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            own, weight = together.part(batch.frames)
            pieces = own.tensor_split(max(1, min(config.accumulation_steps or 1, len(own))))
            for piece in pieces:
                features, targets, rows = batch.of(piece)
                autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
                with together.step(network, last=piece is pieces[-1]):
                    with autocast, companion.batch(rows):
                        logits = network(mask_bands(features.to(device), model.splicing, config.band_mask))
                    loss = cross_entropy(logits.float(), targets.to(device))
                    (loss * weight / len(batch)).backward()
                total += loss.detach() * weight / together.count
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
            optimizer.step()
            companion.step()
            frames += len(batch)
            place.keep(total, frames)
    check_frames(frames, source, "train")
    return together.sum(float(total))[0] / frames


def check_frames(frames: int, source: FrameSource, purpose: str) -> None:
    """Refuse a source without a frame that has a target.

    Args:
        frames: Number of its frames that have one.
        source: The source.
        purpose: What they are for: "train".

    Raises:
        AlignmentError: There are none.
    """
    if frames == 0:
        raise AlignmentError(
            f"no frame of {len(source.utterances)} utterances has a target to {purpose} on; "
            "check that the split is not empty, and that its alignment was made on these features"
        )
