"""Training of a network: frame cross-entropy by SGD, with newbob on held-out speakers.

The whole state is written after every epoch. A killed run resumes from this state and ends with the same bits. An
epoch that makes the held-out loss worse is undone, as in Kaldi's train_scheduler.sh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ConfigError
from lhuc_asr.base.runlog import progress, stopwatch
from lhuc_asr.base.tensors import check_tensors, load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.augment import mask_bands
from lhuc_asr.nnet.companion import ALONE, Companion
from lhuc_asr.nnet.dropout import Dropout
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.losses import cross_entropy
from lhuc_asr.nnet.schedule import Newbob, NewbobConfig

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=AcousticModel)

# Number of frames in an evaluation batch.
EVALUATION_BATCH = 4096


class TrainerConfig(StrictModel):
    """Options of training.

    Attributes:
        batch_size: Number of frames in a mini-batch.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        max_gradient_norm: Maximum norm of a gradient; a longer one is scaled down to it. No
            gradient reaches 1e9.
        band_mask: Limit of the number of features that SpecAugment masks in each training frame; see ``mask_bands``. 0
            for none.
        precision: Type of the matrix products; weights stay in float32.
        schedule: Schedule of the learning rate.
    """

    batch_size: int = Field(256, ge=1, le=1_000_000)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0, le=100.0)
    max_gradient_norm: float = Field(5.0, gt=0.0, le=1e9)
    band_mask: int = Field(0, ge=0, le=1000)
    precision: Literal["float32", "bfloat16"] = "float32"
    schedule: NewbobConfig = NewbobConfig()


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy of a network over some frames.

    Attributes:
        loss: Mean cross-entropy, nats per frame.
        accuracy: Fraction of frames whose most probable pdf is the target.
    """

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
    """Train to the end of the schedule, resuming from ``state_path`` if it exists.

    Args:
        model: The network, initialised; it is trained in place.
        training: Frames to train on.
        heldout: Frames of other speakers; their loss controls the schedule.
        config: Options of training.
        state_path: File of the state after the last epoch.
        seed: Seed of the frame order and of dropout.
        device: Device that the network runs on.
        on_epoch: Function that is called with the metrics of each epoch.
        companion: Companion that is trained together with the network.

    Returns:
        The model of the best epoch, in evaluation mode.

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
    newbob = Newbob(config.schedule.learning_rate)
    if state_path.exists():
        newbob = _restore(state_path, model, optimizer, companion)
        logger.info("training resumes after epoch %d", newbob.epochs)
    while not newbob.finished:
        with stopwatch() as watch:
            loss = _epoch(model, optimizer, training, config, newbob, seed, device, companion)
            evaluation = evaluate(model, heldout, device)
        if not torch.isfinite(torch.tensor(loss + evaluation.loss)):
            raise CheckpointError(
                f"epoch {newbob.epochs + 1}: the loss is {loss}, held out {evaluation.loss}: training "
                f"diverged; lower {companion.rates}"
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
    """Loss and frame accuracy of a network.

    Args:
        model: The network; it is set to evaluation mode.
        source: The frames.
        device: Device that the network runs on.

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
    """Train for one epoch, and return the mean loss. The frame order depends only on the seed and the epoch."""
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
    # SpecAugment, and dropout on a GPU, draw from torch's generator, which is seeded for the epoch and then restored.
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
            "check that the split is not empty, and that its alignment was made on these features"
        )


def _save(path: Path, model: AcousticModel, optimizer: torch.optim.SGD, newbob: Newbob, companion: Companion) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    tensors |= {f"companion.{name}": tensor for name, tensor in companion.state().items()}
    save_tensors(path, tensors, {"newbob": asdict(newbob)})


class _Description(StrictModel):
    """Description of a state's file."""

    newbob: Newbob


def _restore(path: Path, model: AcousticModel, optimizer: torch.optim.SGD, companion: Companion) -> Newbob:
    tensors, tree = load_tensors(path)
    source = f"{path}: the state of another network"
    remedy = "delete it to train from the beginning"
    try:
        newbob = parse_config(_Description, tree, source).newbob
        own = _named(tensors, "model.")
        check_tensors(source, own, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, remedy)
        momentum = _named(tensors, "momentum.")
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        check_tensors(source, momentum, {name: shapes.get(name, ()) for name in momentum}, remedy)
        companion.restore(_named(tensors, "companion."))
    except (ConfigError, KeyError, RuntimeError) as error:
        problem = str(error) if isinstance(error, ConfigError) else f"{source} ({error})"
        raise CheckpointError(f"{problem}; {remedy}") from error
    model.load_state_dict(own)
    for name, parameter in model.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device)
    return newbob


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
