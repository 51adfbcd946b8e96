"""Speaker-independent training: frame cross-entropy by SGD, newbob on held-out speakers.

After every epoch the whole state is written; a run that was killed goes on from there and ends with the same
bits. An epoch that makes the held-out loss worse is undone, as in Kaldi's train_scheduler.sh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import AlignmentError, CheckpointError
from lhuc_asr.base.runlog import progress, stopwatch
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.augment import mask_bands
from lhuc_asr.nnet.companion import ALONE, Companion
from lhuc_asr.nnet.dropout import Dropout
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.losses import cross_entropy
from lhuc_asr.nnet.schedule import Newbob, NewbobConfig

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=AcousticModel)

EVALUATION_BATCH = 4096


class TrainerConfig(StrictModel):
    """How a network is trained.

    Attributes:
        batch_size: Frames in a mini-batch.
        momentum: Of SGD.
        weight_decay: Of SGD.
        max_gradient_norm: Gradients are scaled down to it.
        band_mask: SpecAugment: bands of up to so many features are masked in each training frame.
        precision: Of the matrix products; weights stay in float32.
        schedule: Learning rate and epochs.
    """

    batch_size: int = Field(256, ge=1)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_gradient_norm: float = Field(5.0, gt=0.0)
    band_mask: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    schedule: NewbobConfig = NewbobConfig()


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy (nats a frame), and share of frames whose best pdf is right."""

    loss: float
    accuracy: float


def train(
    model: ModelT,
    training: FrameSource,
    heldout: FrameSource,
    config: TrainerConfig,
    state_path: Path,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[dict[str, Any]], None],
    companion: Companion = ALONE,
) -> ModelT:
    """Train to the end of the schedule, going on from ``state_path`` where it exists.

    Args:
        model: Initialised; trained in place.
        training: Frames to train on.
        heldout: Frames of other speakers, which steer the schedule.
        config: How.
        state_path: Where the state is kept after every epoch.
        seed: Of the order of frames and of dropout.
        device: Where the network runs.
        on_epoch: Called with each epoch's figures.
        companion: What is trained together with the network.

    Returns:
        The model of the best epoch, in evaluation mode.

    Raises:
        AlignmentError: No frame to train on, or none that is held out, has a target.
        CheckpointError: ``state_path`` belongs to another network, or training diverged.
    """
    model.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.schedule.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    newbob = Newbob(config.schedule.learning_rate)
    if state_path.exists():
        newbob = _restore(state_path, model, optimizer, companion)
        logger.info("training goes on after epoch %d", newbob.epochs)
    while not newbob.finished:
        with stopwatch() as watch:
            loss = _epoch(model, optimizer, training, config, newbob, seed, device, companion)
            evaluation = evaluate(model, heldout, device)
        if not torch.isfinite(torch.tensor(loss + evaluation.loss)):
            raise CheckpointError(
                f"epoch {newbob.epochs + 1}: the loss is {loss}, held out {evaluation.loss}: training "
                f"diverged, lower {companion.rates}"
            )
        rate, better = newbob.learning_rate, evaluation.loss <= newbob.best_loss
        if not better and state_path.exists():
            _restore(state_path, model, optimizer, companion)
        newbob = newbob.after(evaluation.loss, config.schedule)
        _save(state_path, model, optimizer, newbob, companion)
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
    return model.eval()


def evaluate(model: AcousticModel, source: FrameSource, device: torch.device) -> Evaluation:
    """Loss and frame accuracy of a model.

    Raises:
        AlignmentError: No frame has a target.
    """
    model.eval()
    total, right, frames = 0.0, 0, 0
    with torch.no_grad():
        for features, targets in source.in_order(EVALUATION_BATCH):
            logits, targets = model(features.to(device)), targets.to(device)
            total += float(cross_entropy(logits, targets))
            right += int((logits.argmax(1) == targets).sum())
            frames += len(targets)
    _check_frames(frames, source, "evaluate")
    return Evaluation(total / frames, right / frames)


def _epoch(
    model: AcousticModel,
    optimizer: torch.optim.SGD,
    source: FrameSource,
    config: TrainerConfig,
    newbob: Newbob,
    seed: int,
    device: torch.device,
    companion: Companion = ALONE,
) -> float:
    """One pass over the training frames; returns the mean loss. The order depends on seed and epoch alone."""
    epoch_seed = seed * 1_000_003 + newbob.epochs
    order = torch.Generator().manual_seed(epoch_seed)
    for group in optimizer.param_groups:
        group["lr"] = newbob.learning_rate
    model.train()
    total = torch.zeros((), device=device)
    frames = 0
    batches = sum(u.frames for u in source.utterances) // config.batch_size
    for number, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.seed(epoch_seed, number)
    companion.begin_epoch(epoch_seed, newbob.learning_rate / config.schedule.learning_rate)
    # SpecAugment (and dropout on a GPU) draw from torch's generator: it is seeded for this epoch, and put back.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(epoch_seed)
        for features, targets, rows in progress(
            source.shuffled(config.batch_size, order), f"epoch {newbob.epochs + 1}", batches
        ):
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
            with autocast, companion.batch(rows):
                logits = model(mask_bands(features.to(device), model.feature_dimension, config.band_mask))
            loss = cross_entropy(logits.float(), targets.to(device))
            optimizer.zero_grad(set_to_none=True)
            (loss / len(targets)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
            optimizer.step()
            companion.step()
            total += loss.detach()
            frames += len(targets)
    _check_frames(frames, source, "train")
    return float(total) / frames


def _check_frames(frames: int, source: FrameSource, purpose: str) -> None:
    if frames == 0:
        raise AlignmentError(
            f"no frame of {len(source.utterances)} utterances has a target to {purpose} on; "
            "is the split empty, or its alignment of other features?"
        )


def _save(path: Path, model: AcousticModel, optimizer: torch.optim.SGD, newbob: Newbob, companion: Companion) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    tensors |= {f"companion.{name}": tensor for name, tensor in companion.state().items()}
    save_tensors(path, tensors, {"newbob": asdict(newbob)})


def _restore(path: Path, model: AcousticModel, optimizer: torch.optim.SGD, companion: Companion) -> Newbob:
    tensors, description = load_tensors(path)
    try:
        model.load_state_dict(_named(tensors, "model."))
        companion.restore(_named(tensors, "companion."))
        newbob = Newbob(**description["newbob"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the state of another network ({error}); delete it to train from the start"
        ) from error
    for name, parameter in model.named_parameters():
        buffer = tensors.get(f"momentum.{name}")
        if buffer is not None:
            optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device)
    return newbob


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
