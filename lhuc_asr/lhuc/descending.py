"""Rows that learn beside a bank: the bank itself changes only when the result is written into it.

Each speaker has three rows here. The first learns from all of the speaker's recordings. The other two learn from one
half each, every second recording, so that each recording is kept back from one of them.

A step descends, for each row, the sum of its recordings' losses divided by the sum of their ``Targets.amounts``. So
confidences are weights relative to their mean, and a speaker's step does not depend on the others, nor on how the
recordings are spread over batches. One step is one pass over all batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.batch import Batch, recording_seed
from lhuc_asr.lhuc.objective import Objective, Targets
from lhuc_asr.lhuc.probe import arguments
from lhuc_asr.lhuc.rows import SpeakerRows
from lhuc_asr.lhuc.sequence_objectives import Consistency

HALVES = 2
# A model's output -> logits, shape (B, T, K).
Scores = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Material:
    """A batch, and where its recordings stand.

    Attributes:
        batch: The batch.
        title: The batch in messages.
        speakers: Position of each recording's speaker, shape (B,), int64.
        numbers: Number of each recording among its speaker's, shape (B,), int64.
        alone: Whether it is its speaker's only recording, shape (B,), bool.
        targets: What the objective takes; of the model before adaptation, unless they were given.
    """

    batch: Batch
    title: str
    speakers: Tensor
    numbers: Tensor
    alone: Tensor
    targets: Targets

    def lengths(self, scores: Tensor) -> Tensor:
        """Number of valid frames of each output, shape (B,)."""
        return output_lengths(self.batch, scores)

    def seeds(self, seed: int, draw: str) -> list[int]:
        """A seed for each recording."""
        numbers = self.numbers.tolist()
        return [
            recording_seed(seed, who, number, draw) for who, number in zip(self.batch.speakers, numbers, strict=True)
        ]


class Rows:
    """The three rows of each speaker, and the bank that they will be written into.

    Args:
        bank: The bank; the rows start as the speakers' own.
        speakers: The speakers.
    """

    def __init__(self, bank: SpeakerBank, speakers: Sequence[str]) -> None:
        self.bank, self.speakers = bank, tuple(speakers)
        self.start = bank.rows_of(self.speakers)
        bank.check_finite(self.start)
        first = bank.tables[0]
        self.learned = SpeakerRows(bank.sites, bank.amplitude, first.dtype, first.device)
        count = 1 + HALVES
        self.learned.add(str(number) for number in range(count * len(self.speakers)))
        origin = torch.cat([torch.zeros_like(self.start[:1]), self.start.repeat(count)])
        with torch.no_grad():
            for mine, table in zip(self.learned.tables, bank.tables, strict=True):
                mine.copy_(table[origin])

    def whole(self, material: Material) -> Tensor:
        """The row of each recording that learns from all recordings of its speaker, shape (B,)."""
        return 1 + material.speakers

    def half(self, material: Material, *, kept_back: bool) -> Tensor:
        """The row of each recording that learns from half of the recordings: from it, or, kept back, without it.

        Of an only recording none is kept back: it is the row of all.
        """
        half = (material.numbers + kept_back) % HALVES
        row = 1 + (1 + half) * len(self.speakers) + material.speakers
        return torch.where(material.alone, self.whole(material), row)

    @contextmanager
    def selected(self, rows: Tensor) -> Iterator[None]:
        """A context in which the model is adapted by a row for each recording, shape (B,)."""
        with self.bank.computed(self.learned.stored_r, rows):
            yield

    def values(self, rows: Tensor) -> list[Tensor]:
        """Copies of some rows, a tensor (N, H) for each site."""
        return [table.detach()[rows] for table in self.learned.tables]

    def adapted_before(self) -> list[bool]:
        """Whether the row of each speaker in the bank is another than row 0."""
        differ = [(table[self.start] != table[0]).any(1) for table in self.bank.tables]
        return [bool(own) for own in torch.stack(differ).any(0).tolist()]

    def write(self, speakers: Sequence[int], values: Sequence[Tensor]) -> None:
        """Write rows of some speakers into the bank.

        Args:
            speakers: Numbers of the speakers, N of them.
            values: Their rows, a tensor (N, H) for each site.
        """
        if not speakers:
            return  # An optimizer of the bank's rows remains valid.
        rows = self.start[torch.tensor(speakers, dtype=torch.int64, device=self.start.device)]
        with torch.no_grad():
            for table, value in zip(self.bank.tables, values, strict=True):
                table.index_copy_(0, rows, value)
                table.edition += 1

    def check_finite(self, step: int) -> None:
        """Refuse rows that diverged.

        Raises:
            SpeakerError: A row is not finite; the message names the speaker.
        """
        fine = self.learned.finite(torch.arange(len(self.learned.tables[0]))).all(1)[1:]
        if not bool(fine.all()):
            speaker = self.speakers[int((~fine).nonzero()[0]) % len(self.speakers)]
            raise SpeakerError(
                f"adapt: the row of {speaker!r} is not finite after step {step}; take a smaller lr. The bank is as it "
                "was"
            )


def output_lengths(batch: Batch, scores: Tensor) -> Tensor:
    """Number of valid frames of each output, shape (B,).

    Raises:
        ConfigError: The output has fewer frames than a recording is said to have there.
    """
    if batch.lengths is not None:
        longest = int(batch.lengths.max())
        if longest > scores.shape[1]:
            raise ConfigError(
                f"adapt: lengths= says {longest} frames, but the output has {scores.shape[1]}; lengths= counts frames "
                "of the output, input_lengths= positions of the input"
            )
        return batch.lengths.to(scores.device)
    return torch.full((len(batch),), scores.shape[1], device=scores.device)


def run_model(model: nn.Module, batch: Batch, scores: Scores, title: str) -> Tensor:
    """The model's scores for a batch, shape (B, T, K).

    Raises:
        ConfigError: They are not a tensor whose first axis counts the recordings.
    """
    args, kwargs = arguments(batch.inputs)
    output = scores(model(*args, **kwargs))
    if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != len(batch):
        shape = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"adapt: {title}: expected scores of shape ({len(batch)}, T, K), found {shape}; pass scores=, a function "
            "of the model's output, such as lambda output: output.logits"
        )
    return output


def materials_of(
    model: nn.Module, rows: Rows, batches: Sequence[Batch], objective: Objective[Any], scores: Scores
) -> list[Material]:
    """The batches with targets, made where they are missing by the model before adaptation.

    Raises:
        ConfigError: A batch has no targets, and the objective cannot make them.
    """
    materials: list[Material] = []
    place = {speaker: number for number, speaker in enumerate(rows.speakers)}
    seen = dict.fromkeys(rows.speakers, 0)
    recordings = Counter(speaker for batch in batches for speaker in batch.speakers)
    for number, batch in enumerate(batches):
        numbers = []
        for speaker in batch.speakers:
            numbers.append(seen[speaker])
            seen[speaker] += 1
        speakers = torch.tensor([place[speaker] for speaker in batch.speakers])
        alone = torch.tensor([recordings[speaker] == 1 for speaker in batch.speakers])
        nothing = Targets(torch.empty(0))
        placed = Material(batch, f"batch {number}", speakers, torch.tensor(numbers), alone, nothing)
        targets = batch.targets
        if targets is None:
            targets = _own_targets(model, rows, placed, objective, scores)
        materials.append(replace(placed, targets=targets))
    return materials


def _own_targets(
    model: nn.Module, rows: Rows, material: Material, objective: Objective[Any], scores: Scores
) -> Targets:
    if not hasattr(objective, "targets_of"):
        raise ConfigError(
            f"adapt: {material.title} has no targets, and {type(objective).__name__} cannot make them; pass "
            "Batch(targets=...)"
        )
    with torch.no_grad(), rows.selected(rows.whole(material)):
        output = run_model(model, material.batch, scores, material.title)
    targets: Targets = objective.targets_of(output, output_lengths(material.batch, output))
    return targets


class Descent:
    """Steps on the rows.

    Args:
        rows: The rows.
        model: The model.
        objective: What is descended.
        materials: All batches.
        scores: A function from the model's output to its scores.
        optimizer: Name of the row-wise optimizer.
        options: The optimizer's options.
        seed: Seeds the masks of ``Consistency``.

    Raises:
        ConfigError: All confidences or weights of a speaker are zero.
    """

    def __init__(
        self,
        rows: Rows,
        model: nn.Module,
        objective: Objective[Any],
        materials: Sequence[Material],
        scores: Scores,
        optimizer: str,
        options: Mapping[str, Any],
        seed: int,
    ) -> None:
        self._rows, self._model, self._objective, self._materials = rows, model, objective, materials
        self._scores, self._seed = scores, seed
        self._optimizer = rows.learned.optimizer(optimizer, **options)
        self._totals = self._amounts()

    def _amounts(self) -> Tensor:
        """The sum of the amounts that each row learns from, shape (3 S + 1,)."""
        rows = self._rows
        totals = torch.zeros(len(rows.learned.tables[0]), dtype=torch.float64)
        for material in self._materials:
            amounts = material.targets.amounts().detach().to("cpu", torch.float64)
            if not bool((amounts.isfinite() & (amounts >= 0)).all()):
                raise ConfigError(f"adapt: {material.title}: weights and confidences must be finite, and 0 or more")
            for each in self._learning(material):
                totals.index_add_(0, each, amounts)
        for speaker, total in zip(rows.speakers, totals[1:].tolist(), strict=False):
            if not total:
                raise ConfigError(
                    f"adapt: all weights or confidences of {speaker!r} are 0, so that there is nothing to learn from; "
                    "leave the speaker out, or believe some of the labels"
                )
        return totals

    def _learning(self, material: Material) -> list[Tensor]:
        """The rows that learn from each recording, in two lots."""
        whole = self._rows.whole(material)
        return [whole] if bool(material.alone.all()) else [whole, self._rows.half(material, kept_back=False)]

    def step(self, number: int) -> None:
        """Take one step.

        Raises:
            SpeakerError: A loss or a row is not finite; the message names the speaker.
        """
        self._optimizer.zero_grad(set_to_none=True)
        for material in self._materials:
            for rows in self._learning(material):
                self._backward(material, rows, number)
        self._optimizer.step()
        self._rows.check_finite(number)

    def _backward(self, material: Material, rows: Tensor, number: int) -> None:
        batch, targets = material.batch, material.targets
        run = partial(run_model, self._model, scores=self._scores, title=material.title)
        with self._rows.selected(rows):
            if isinstance(self._objective, Consistency):
                with torch.no_grad():
                    clean = run(batch)
                targets = replace(
                    self._objective.clean_targets(clean, material.lengths(clean)), weights=targets.weights
                )
                batch = batch.perturbed(self._objective.perturb, material.seeds(self._seed, f"step {number}"))
            output = run(batch)
        totals = self._totals[rows]
        # A half that has no weight moves nothing: 0 / 1.
        scale = torch.where(totals > 0, totals, 1.0).to(targets.weights)
        loss = self._objective(output, replace(targets, weights=targets.weights / scale))
        if not loss.requires_grad:
            raise SiteError(
                f"adapt: {material.title}: the loss does not depend on the rows; pass the model that the bank is "
                "attached to, and an objective without no_grad or detach"
            )
        if not bool(loss.isfinite()):
            raise self._not_finite(material, output.detach(), targets)
        loss.backward()

    def _not_finite(self, material: Material, output: Tensor, targets: Targets) -> SpeakerError:
        for speaker in dict.fromkeys(material.batch.speakers):
            own = [place for place, name in enumerate(material.batch.speakers) if name == speaker]
            elements = torch.tensor(own, device=output.device)
            if not bool(self._objective(output[elements], targets.select(elements)).isfinite()):
                break
        return SpeakerError(
            f"adapt: {material.title}: the loss of {speaker!r} is not finite; look for inputs that are not, or for "
            "transcripts longer than their recordings. The bank is as it was"
        )
