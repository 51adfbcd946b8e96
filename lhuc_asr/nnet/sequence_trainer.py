"""Sequence training of a network by MMI or sMBR over denominator lattices, with SGD on whole utterances.

The network was trained by frame cross-entropy, and the lattices were made with it (Kingsbury 2009; Vesely et al. 2013).
Epochs are few and their number is fixed; one that makes the held-out objective worse is undone (``epochs.py``), and the
learning rate falls after each.

The loss of a frame is, with sMBR, the expected share of wrong frames, and with MMI the negative log probability of the
reference, in nats per frame; the accuracy is the expected share of right frames with both. Frame smoothing is in the
gradient, not in these figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from lhuc_asr.base.config import LearningRate, StrictModel
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.base.ranks import ranks, sharing_threads
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.acoustic_model import AcousticModel, over_priors
from lhuc_asr.nnet.companion import ALONE
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.dropout import seeded_training, train_dropout_alone
from lhuc_asr.nnet.epochs import Criterion, Evaluation, OnEpoch, run_epochs
from lhuc_asr.nnet.lattice_objectives import Reference, mmi, smbr
from lhuc_asr.nnet.losses import cross_entropy
from lhuc_asr.nnet.schedule import Newbob
from lhuc_asr.nnet.sequence_source import SequenceBatch, SequenceSource
from lhuc_asr.nnet.training_state import TrainingState

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=AcousticModel)


class SequenceConfig(StrictModel):
    """Options of sequence training. The defaults are those of Vesely et al. (2013), unless a line says otherwise.

    The gradient of a mini-batch is the sum over its frames, not their mean: an utterance of twice the length, or a
    mini-batch of twice the frames, moves the weights twice as far. It is taken with respect to the scaled
    log-likelihoods, which leaves a factor of the acoustic scale out, so that a frame's is between -1 and 1 with MMI, as
    with cross-entropy, whatever the scale.

    Attributes:
        objective: ``smbr``, the expected number of right frames, or ``mmi``, the log probability of the reference. The
            first was a little better for them, and does not mind a reference that is not in its lattice.
        acoustic_scale: Factor on the log-likelihoods, kappa; None for that of the search, with which the lattices were
            made.
        boost: With MMI, number of nats by which a path is less probable for each of its right frames, b; 0 for plain
            MMI.
        frame_smoothing: Weight of the cross-entropy on the same frames. Su et al. (2013) give it a fourth to a tenth of
            the weight of the sequence objective: lattices lack most of the pdfs, whose outputs would drift otherwise.
        learning_rate: Learning rate of the first epoch for each frame, of the summed gradient. ``TrainerConfig``'s
            rate is for the mean gradient: the equivalent one is this rate times the frames of a mini-batch.
        halving_factor: Factor on the learning rate after each epoch; 1 for the constant one of Vesely et al. With
            smaller steps the last epochs end nearer to a maximum, and an epoch after an undone one differs from it.
        epochs: Number of epochs.
        batch_frames: Maximum number of frames in a mini-batch of whole utterances; a longer utterance is one of its
            own. Vesely et al. take a step for each utterance, of some 500 frames; several at once make matrix products
            fast.
        max_gradient_norm: Maximum norm of a gradient, as a mean over the frames; a longer one is scaled down to it. The
            value is that of ``TrainerConfig``.
        dropout: Whether hidden units are dropped out. Not by default: the probabilities of the lattice's paths are
            those of the network that decodes, and a path that wins only because some units were dropped teaches
            nothing about it; a few epochs of small steps hardly overfit. Batch normalisation is never in training
            mode: its statistics stay those that the scores of the lattices came from.
    """

    objective: Literal["mmi", "smbr"] = "smbr"
    acoustic_scale: float | None = Field(None, gt=0.0, le=100.0)
    boost: float = Field(0.0, ge=0.0, le=100.0)
    frame_smoothing: float = Field(0.1, ge=0.0, le=1000.0)
    learning_rate: LearningRate = 1e-5
    halving_factor: float = Field(0.5, gt=0.0, le=1.0)
    epochs: int = Field(4, ge=1, le=100)
    batch_frames: int = Field(2048, ge=1, le=1_000_000)
    max_gradient_norm: float = Field(5.0, gt=0.0, le=1e9)
    dropout: bool = False

    @model_validator(mode="after")
    def _boosts_mmi(self) -> Self:
        if self.boost and self.objective != "mmi":
            raise ValueError(f"boost: only mmi has one, not {self.objective}; leave it out, or give objective: mmi")
        return self


def train_sequences(
    model: ModelT,
    training: SequenceSource,
    heldout: SequenceSource,
    config: SequenceConfig,
    search_scale: float,
    state_path: Path,
    seed: int,
    device: torch.device,
    on_epoch: OnEpoch,
) -> ModelT:
    """Train to the last epoch, resuming from ``state_path`` if it exists.

    Args:
        model: The network, trained by cross-entropy; it is trained in place.
        training: Utterances to train on.
        heldout: Utterances of other speakers; their objective, without a boost, says which epochs are kept.
        config: Options of training.
        search_scale: Acoustic scale of the search that made the lattices, kappa.
        state_path: File of the state after the last epoch.
        seed: Seed of the order of utterances and of dropout.
        device: Device that the network runs on.
        on_epoch: Function that is called with the metrics of each epoch, as by ``trainer.train``.

    Returns:
        The model of the best epoch, or the one that it began with if none was better, in evaluation mode.

    Raises:
        LatticeError: The lattices are of a network with another number of pdfs.
        CheckpointError: ``state_path`` is the state of another network, or training diverged.
    """
    for source in (training, heldout):
        if source.lattices.pdf_count != model.pdf_count:
            raise LatticeError(
                f"{source.lattices.folder}: lattices of {source.lattices.pdf_count} pdfs, but the network has "
                f"{model.pdf_count}; make them with the network that is trained"
            )
    model.to(device)
    scale = search_scale if config.acoustic_scale is None else config.acoustic_scale
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, fused=True)
    state = TrainingState(state_path, model, optimizer, ALONE, 0)
    with sharing_threads(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        worker = _Worker(model, config, scale, device, pool)
        criterion = Criterion(
            epoch=lambda newbob: worker.epoch(training, optimizer, newbob, seed),
            heldout=lambda: worker.evaluate(heldout),
            after=lambda newbob, loss: newbob.after_one_of(
                config.epochs, loss, newbob.learning_rate * config.halving_factor
            ),
            rates="learning_rate of the sequence training",
        )
        run_epochs(state, criterion, config.learning_rate, on_epoch)
    return model.eval()


def evaluate_sequences(
    model: AcousticModel, source: SequenceSource, config: SequenceConfig, search_scale: float, device: torch.device
) -> Evaluation:
    """Loss, without a boost, and expected frame accuracy of a network; see the module.

    Args:
        model: The network; it is set to evaluation mode.
        source: The utterances.
        config: Options of training, of which objective, scale and size of mini-batches are used.
        search_scale: Acoustic scale of the search that made the lattices.
        device: Device that the network runs on.
    """
    scale = search_scale if config.acoustic_scale is None else config.acoustic_scale
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return _Worker(model, config, scale, device, pool).evaluate(source)


@dataclass(frozen=True)
class _Outcome:
    """Sums over an utterance, or over several."""

    loss: float = 0.0
    right: float = 0.0
    frames: int = 0
    rejected: int = 0
    not_contained: int = 0


class _Worker:
    """Goes through mini-batches: the network on torch's threads, then the lattices of a mini-batch on as many.

    The compiled loops run outside Python's lock. Each utterance has its own rows of the derivative, and sums are taken
    in the order of the utterances, so that the number of threads changes no result.
    """

    def __init__(
        self,
        model: AcousticModel,
        config: SequenceConfig,
        scale: float,
        device: torch.device,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._model, self._config, self._scale, self._device, self._pool = model, config, scale, device, pool

    @cached_property
    def _network(self) -> nn.Module:
        """The network, with gradients over all processes that train together."""
        return ranks().network(self._model)

    def epoch(self, source: SequenceSource, optimizer: torch.optim.SGD, newbob: Newbob, seed: int) -> float:
        """Train for one epoch, and return the mean loss. The order depends only on the seed and the epoch."""
        model, config, epoch_seed = self._model, self._config, newbob.seed_of_epoch(seed)
        for group in optimizer.param_groups:
            group["lr"] = newbob.learning_rate
        train_dropout_alone(model, config.dropout)
        together = ranks()
        order = torch.Generator().manual_seed(epoch_seed)
        groups = source.groups(config.batch_frames, order)
        outcomes: list[_Outcome] = []
        with seeded_training(model, together.seed(epoch_seed), self._device):
            for utterances in progress(groups, f"epoch {newbob.epochs + 1}"):
                own, weight = together.part(utterances)
                batch = source.batch(own)
                optimizer.zero_grad(set_to_none=True)
                logits = self._network(batch.spliced.to(self._device))
                gradient, outcome = self._gradient(source, batch, logits)
                # The mean over all processes becomes the sum over their utterances.
                gradient *= weight
                if config.frame_smoothing > 0.0:
                    frame_loss = cross_entropy(logits.float(), batch.countable.to(self._device)) * weight
                    torch.autograd.backward([logits, config.frame_smoothing * frame_loss], [gradient, None])
                else:
                    logits.backward(gradient)
                limit = config.max_gradient_norm * sum(utterance.frames for utterance in utterances)
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
                optimizer.step()
                if weight == together.count or together.is_first:  # once, where all processes take all utterances
                    outcomes.append(outcome)
        total = _over_processes(outcomes)
        if config.objective == "mmi":
            logger.info(
                "%d frames rejected, %d utterances whose reference is not in their lattice",
                total.rejected,
                total.not_contained,
            )
        return total.loss / total.frames

    def evaluate(self, source: SequenceSource) -> Evaluation:
        """Loss, without a boost, and expected frame accuracy."""
        self._model.eval()
        outcomes: list[_Outcome] = []
        with torch.no_grad():
            groups = source.groups(self._config.batch_frames)[ranks().rank :: ranks().count]
            for batch in map(source.batch, groups):
                scores = self._scores(self._model(batch.spliced.to(self._device)))
                outcomes.append(self._over_lattices(self._evaluated, source, batch, scores))
        total = _over_processes(outcomes)
        return Evaluation(total.loss / total.frames, total.right / total.frames)

    def _gradient(
        self, source: SequenceSource, batch: SequenceBatch, logits: torch.Tensor
    ) -> tuple[torch.Tensor, _Outcome]:
        """The gradient of the loss with respect to the logits, over kappa, shape (B, K)."""
        with torch.no_grad():
            scores = self._scores(logits)
        derivative = np.empty_like(scores)
        outcome = self._over_lattices(self._trained, source, batch, scores, derivative)
        # Rows sum to zero, so that the softmax between logits and scores passes them on as they are.
        return torch.from_numpy(derivative).neg_().to(logits), outcome

    def _scores(self, logits: torch.Tensor) -> np.ndarray:
        """Scaled log-likelihoods, shape (B, K), float32."""
        scores: np.ndarray = over_priors(logits, self._model.log_prior).mul_(self._scale).cpu().numpy()
        return scores

    def _over_lattices(
        self,
        measure: Callable[..., _Outcome],
        source: SequenceSource,
        batch: SequenceBatch,
        *frames: np.ndarray,
    ) -> _Outcome:
        """Call ``measure`` with the lattice and the reference of each utterance, and its rows of some arrays."""
        targets = batch.targets.numpy()

        def measured(utterance: StoredUtterance, rows: slice) -> _Outcome:
            reference = Reference(targets[rows], source.classes)
            return measure(source.lattices[utterance.id], reference, *(array[rows] for array in frames))

        return _sum(list(self._pool.map(measured, batch.utterances, batch.rows)))

    def _trained(
        self, lattice: DenominatorLattice, reference: Reference, scores: np.ndarray, derivative: np.ndarray
    ) -> _Outcome:
        frames = int(reference.known.sum())
        if self._config.objective == "smbr":
            return _Outcome(frames - smbr(lattice, scores, reference, derivative), frames=frames)
        result = mmi(lattice, scores, reference, derivative, self._config.boost)
        return _Outcome(
            -result.objective, frames=frames, rejected=result.rejected, not_contained=int(not result.contained)
        )

    def _evaluated(self, lattice: DenominatorLattice, reference: Reference, scores: np.ndarray) -> _Outcome:
        frames, right = int(reference.known.sum()), smbr(lattice, scores, reference)
        loss = frames - right if self._config.objective == "smbr" else -mmi(lattice, scores, reference).objective
        return _Outcome(loss, right, frames)


def _over_processes(outcomes: Sequence[_Outcome]) -> _Outcome:
    """The sums over the mini-batches of all processes that train together."""
    loss, right, *counts = ranks().sum(*astuple(_sum([_Outcome(), *outcomes])))
    return _Outcome(loss, right, *map(int, counts))


def _sum(outcomes: Sequence[_Outcome]) -> _Outcome:
    return _Outcome(*(sum(values) for values in zip(*map(astuple, outcomes), strict=True)))
