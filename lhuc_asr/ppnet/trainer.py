"""Training of a ranking network: logistic loss of all tasks, early stopping on validation data.

The tables of embeddings are large, and a mini-batch uses few of their rows. AdamW updates all rows in each step.
``row_adam`` (``lhuc/row_optim.py``) updates only the rows that took part, each with its own count of steps, in time
that does not depend on the table's length. Everything else is trained by AdamW.

The whole state is saved after every epoch; a run that was killed is resumed from it and ends with the same bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.config import LearningRate, StrictModel, parse_config
from lhuc_asr.base.documents import Count
from lhuc_asr.base.errors import CheckpointError, ConfigError, ScoreError
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import progress, stopwatch
from lhuc_asr.base.tensors import check_tensors, load_tensors, save_tensors
from lhuc_asr.lhuc.row_optim import RowAdam
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.embedding import Embeddings
from lhuc_asr.ppnet.metrics import TaskMetrics, task_metrics
from lhuc_asr.ppnet.model import RankingNetwork
from lhuc_asr.ppnet.ranking_model import RankingModel

logger = logging.getLogger(__name__)


class RankerTrainerConfig(StrictModel):
    """Options of training.

    Attributes:
        batch_size: Number of examples in a mini-batch, over all processes that train together.
        epochs: Maximum number of passes over the training data.
        patience: Number of epochs without improvement after which training ends.
        monitor: Validation figure by which epochs are compared, as its mean over the tasks.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW, on the matrices of the network and its gates.
        embedding_optimizer: Optimizer of the tables of embeddings.
        embedding_learning_rate: Learning rate of the tables of embeddings; None for ``learning_rate``.
        embedding_l2: Strength of the regularisation of embeddings. With ``row_adam`` it is the gradient of an L2
            penalty on the distance to row 0, on rows that took part; row 0 is zero unless training met rare
            categories, which it stands for. With ``adamw`` it is AdamW's weight decay, on all rows, towards zero.
    """

    batch_size: int = Field(1024, ge=1, le=10_000_000)
    epochs: int = Field(20, ge=1, le=100_000)
    patience: int = Field(2, ge=1, le=100_000)
    monitor: Literal["log_loss", "auc", "gauc"] = "auc"
    learning_rate: LearningRate = 1e-3
    weight_decay: float = Field(0.0, ge=0.0, le=1000.0)
    embedding_optimizer: Literal["adamw", "row_adam"] = "row_adam"
    embedding_learning_rate: LearningRate | None = None
    embedding_l2: float = Field(0.0, ge=0.0, le=1e6)


@dataclass(frozen=True)
class Progress:
    """The progress of training.

    Attributes:
        epochs: Number of finished epochs.
        best_epoch: Number of the best epoch, from 1.
        best: Monitored figure of the best epoch, with the sign that makes larger better.
        figures: Figures of each epoch, as JSON values.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epochs: Count = 0
    best_epoch: Count = 0
    best: Annotated[float, Field(allow_inf_nan=False)] = -np.inf
    figures: tuple[dict[str, Any], ...] = ()


def train(
    model: RankingNetwork,
    training: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    config: RankerTrainerConfig,
    state_path: Path,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Sequence[dict[str, Any]]], None],
) -> RankingNetwork:
    """Train until the validation figure no longer improves, resumed from ``state_path`` where it exists.

    Args:
        model: The untrained network, trained in place.
        training: Makes the mini-batches of an epoch from its number, from 0; they are the same in every run.
        validation: Makes the batches of the validation split, for early stopping.
        config: Options of training.
        state_path: File of the state, saved after every epoch.
        seed: Seed of dropout and of the users that the gates treat as unseen.
        device: Device of the network.
        on_epoch: Called after each epoch, and at the start of a resumed training, with the figures of all epochs so
            far.

    Returns:
        The network of the best epoch, in evaluation mode.

    Raises:
        CheckpointError: ``state_path`` belongs to another network, or training diverged.
        ScoreError: The training split is empty, or the validation data does not define the monitored figure.
    """
    model.to(device)
    optimizers, together = make_optimizers(model, config), ranks()
    by_rows = optimizers["rows"].param_groups[0]["params"] if "rows" in optimizers else []
    network = together.network(model, apart=by_rows)
    done, best = Progress(), dict[str, Tensor]()
    identity = _identity(model, config, seed)
    if together.of_first(state_path.exists()):
        done, best = _restore(state_path, model, optimizers, identity)
        together.wait()  # where it is finished, the first process deletes what the others still read
        logger.info("training is resumed after epoch %d", done.epochs)
        on_epoch(done.figures)
    while done.epochs < config.epochs and done.epochs - done.best_epoch < config.patience:
        with stopwatch() as watch:
            loss, examples = _epoch(model, network, optimizers, training(done.epochs), done.epochs, seed, device)
        # The figures of users need all of their examples: they are of the first process alone.
        metrics = evaluate(model, validation(), device) if together.is_first else {}
        (value,) = together.sum(monitored(metrics, config) if together.is_first else 0.0)
        better = value > done.best
        number = done.epochs + 1
        row = {
            "stage": "epoch",
            "time": round(time.time(), 3),
            "epoch": number,
            "train_loss": round(loss, 5),
            "validation": {label: asdict(figures) for label, figures in metrics.items()},
            "best": better,
            "examples": examples,
            "seconds": round(watch.seconds, 2),
            "examples_per_second": round(examples / watch.seconds),
        }
        best_epoch = number if better else done.best_epoch
        done = Progress(number, best_epoch, max(value, done.best), (*done.figures, row))
        if better:
            best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if together.is_first:
            _save(state_path, model, optimizers, done, best, identity)
        together.wait()
        on_epoch(done.figures)
        logger.info(
            "epoch %d: loss %.4f, validation %s %.4f%s (%.1f s, %.0f examples/s)",
            done.epochs, loss, config.monitor, abs(value), ", the best so far" if better else "",
            watch.seconds, examples / watch.seconds,
        )  # fmt: skip
    model.load_state_dict(best)
    return model.eval()


def evaluate(model: RankingModel, batches: Iterable[Batch], device: torch.device) -> dict[str, TaskMetrics]:
    """The figures of each task, by the name of its label.

    The label, the probability and the user of every example are in memory, 16 bytes per example with one task.

    Raises:
        ScoreError: The batches have no examples, or the network's output is not a number.
    """
    labels, probabilities, users = scored(model, batches, device)
    return {
        label: task_metrics(labels[:, task], probabilities[:, task], users)
        for task, label in enumerate(model.schema.labels)
    }


def scored(
    model: RankingModel, batches: Iterable[Batch], device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and probabilities of all examples, shape (N, tasks), and the numbers of their users, shape (N,).

    Raises:
        ScoreError: The batches have no examples.
    """
    columns = [(batch.labels, predict(model, batch, device), batch.users) for batch in batches]
    if not columns:
        raise ScoreError("no examples to evaluate on: is the split empty?")
    labels, probabilities, users = (torch.cat(parts).numpy() for parts in zip(*columns, strict=True))
    return labels, probabilities, users


def predict(model: RankingModel, batch: Batch, device: torch.device) -> Tensor:
    """Probabilities of a batch, shape (B, tasks), on the CPU; leaves the network in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.sigmoid(model(batch.to(device))).cpu()


def make_optimizers(model: nn.Module, config: RankerTrainerConfig) -> dict[str, torch.optim.Optimizer]:
    """Make the optimizers of a network, by name, and set the kind of gradient that its embeddings need."""
    tables = embedding_tables(model, sparse=config.embedding_optimizer == "row_adam")
    owned = {id(table) for table in tables}
    network = [parameter for parameter in model.parameters() if id(parameter) not in owned]
    rate = config.embedding_learning_rate or config.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if tables and config.embedding_optimizer == "row_adam":
        optimizers["rows"] = RowAdam(tables, rate, weight_decay=config.embedding_l2, over_processes=ranks().count > 1)
    else:
        groups.append({"params": tables, "lr": rate, "weight_decay": config.embedding_l2})
    optimizers["network"] = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return optimizers


def embedding_tables(model: nn.Module, sparse: bool) -> list[Tensor]:
    """All tables of embeddings in a network, set to have sparse gradients or dense ones from now on."""
    tables: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, Embeddings | nn.Embedding):
            module.sparse = sparse
            tables += module.tables if isinstance(module, Embeddings) else [module.weight]
    return tables


def _epoch(
    model: RankingNetwork,
    network: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batches: Iterable[Batch],
    epoch: int,
    seed: int,
    device: torch.device,
) -> tuple[float, int]:
    """One pass over the training data; returns the mean loss and the number of examples.

    ``network`` is the model, with gradients over all processes.
    """
    model.train()
    total, examples, together = torch.zeros((), device=device), 0, ranks()
    # Dropout and the share of unseen users draw from torch's generator: it is seeded for the epoch, then restored.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(together.seed(seed * 1_000_003 + epoch))
        for batch in progress(_trainable(batches, model), f"epoch {epoch + 1}"):
            own, weight = together.part(torch.arange(len(batch)))
            part = batch if len(own) == len(batch) else batch.take(own)
            mean = step(network, optimizers, part.to(device), len(part) * weight / len(batch))
            total += mean * len(batch) / together.count
            examples += len(batch)
    (summed,) = together.sum(float(total))
    if not examples:
        raise ScoreError(
            "no examples to train on: is the training split empty, or batch_size less than 2 for each process?"
        )
    loss = summed / examples
    if not np.isfinite(loss):
        raise CheckpointError(f"epoch {epoch + 1}: the loss is {loss}: training diverged, lower trainer.learning_rate")
    return loss, examples


def step(
    network: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], batch: Batch, weight: float = 1.0
) -> Tensor:
    """Update the network once.

    Args:
        network: The network.
        optimizers: Its optimizers.
        batch: The examples.
        weight: Weight of their mean in that over all processes.

    Returns:
        The loss before the update, nats per example, summed over the tasks, times the weight.
    """
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    loss = functional.binary_cross_entropy_with_logits(network(batch), batch.labels) * batch.labels.shape[1] * weight
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
    return loss.detach()


def _trainable(batches: Iterable[Batch], model: RankingNetwork) -> Iterator[Batch]:
    """The batches; with batch normalisation without those of one example in a process, which have no variance."""
    least = 2 * ranks().count if model.config.batch_norm else 1
    return (batch for batch in batches if len(batch) >= least)


def monitored(metrics: Mapping[str, TaskMetrics], config: RankerTrainerConfig) -> float:
    """The figure that early stopping compares: larger is better."""
    values: list[float] = []
    for label, figures in metrics.items():
        value = getattr(figures, config.monitor)
        if value is None:
            raise ScoreError(
                f"task {label!r}: the validation labels are all equal (for gauc: those of each user), so that "
                f"{config.monitor} is not defined; give more validation data, or set trainer.monitor=log_loss"
            )
        values.append(value)
    mean = float(np.mean(values))
    return -mean if config.monitor == "log_loss" else mean


def _identity(model: RankingNetwork, config: RankerTrainerConfig, seed: int) -> dict[str, Any]:
    """The network and options that a saved state belongs to, without those that say how long to train."""
    trainer = config.model_dump(mode="json", exclude={"epochs", "patience"})
    return {"seed": seed, **{f"trainer.{name}": value for name, value in trainer.items()}, **model.description()}


def _save(
    path: Path,
    model: RankingNetwork,
    optimizers: Mapping[str, torch.optim.Optimizer],
    done: Progress,
    best: Mapping[str, Tensor],
    identity: Mapping[str, Any],
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for kind, optimizer in optimizers.items():
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}.{name}/{key}"] = torch.as_tensor(value)
    save_tensors(path, tensors, {"progress": asdict(done), "identity": identity})


class _Description(StrictModel):
    """Description of a state's file."""

    progress: Progress
    identity: dict[str, Any]


def _restore(
    path: Path,
    model: RankingNetwork,
    optimizers: Mapping[str, torch.optim.Optimizer],
    identity: Mapping[str, Any],
) -> tuple[Progress, dict[str, Tensor]]:
    tensors, tree = load_tensors(path)
    remedy = "delete it to train from the start"
    try:
        description = parse_config(_Description, tree, f"{path}: damaged")
    except ConfigError as error:
        raise CheckpointError(f"{error}; {remedy}") from error
    for part, value in identity.items():
        if description.identity.get(part) != value:
            raise CheckpointError(f"{path}: the state of a run with another {part}; {remedy}")
    networks = {prefix: _named(tensors, prefix) for prefix in ("model.", "best.")}
    own = model.state_dict()
    for named in networks.values():
        # Batch normalisation counts its batches in integers.
        counts = {name for name, tensor in own.items() if not tensor.is_floating_point()}
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items() if name not in counts}
        check_tensors(path, {name: value for name, value in named.items() if name not in counts}, shapes, remedy)
        if any(named[name].shape != own[name].shape for name in counts & named.keys()) or counts - named.keys():
            raise CheckpointError(f"{path}: damaged, its counts of batches are not the network's; {remedy}")
    model.load_state_dict(networks["model."])
    parameters = dict(model.named_parameters())
    for kind, optimizer in optimizers.items():
        for place, tensor in _named(tensors, f"{kind}.").items():
            name, _, key = place.rpartition("/")
            _check_average(path, place, tensor, parameters.get(name), remedy)
            # Counts are kept as numbers by those optimizers that count in integers.
            value = tensor.to(parameters[name].device) if tensor.is_floating_point() else int(tensor)
            optimizer.state[parameters[name]][key] = value
    return description.progress, networks["best."]


def _check_average(path: Path, place: str, tensor: Tensor, parameter: Tensor | None, remedy: str) -> None:
    """Refuse what an optimizer cannot have kept of a parameter: averages of its shape, a count for it or each row."""
    shapes = (
        {()}
        if parameter is None or not tensor.is_floating_point()
        else {(), tuple(parameter.shape), (*parameter.shape[:1], 1)}
    )
    if parameter is None or tuple(tensor.shape) not in shapes or not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{path}: damaged at {place!r}; {remedy}")


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
