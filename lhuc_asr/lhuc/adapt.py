"""Adaptation of the speakers of some batches: learn, look at the words, keep the best step or none.

The network is frozen and the rows learn beside the bank (see descending), from which nothing but the result comes. What
is chosen, and on what, is in choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.batch import Batch
from lhuc_asr.lhuc.choice import Adaptation, Choice, Look, best_step
from lhuc_asr.lhuc.descending import Descent, Material, Rows, Scores, materials_of, output_lengths, run_model
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.hypotheses import Decode, Hypothesis, edits
from lhuc_asr.lhuc.objective import Objective
from lhuc_asr.lhuc.perturbation import Perturbation, SpecAugment
from lhuc_asr.lhuc.probe import Example
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT

# An input of the model -> its hypotheses.
Transcribe = Callable[[Example], Sequence[Hypothesis]]
# Strong enough to cost words: without errors to repair, one could not see a repair.
STRONG_MASKS = SpecAugment(time_masks=2, longest=0.2, band_masks=2, widest=0.3)


def adapt(
    model: nn.Module,
    bank: SpeakerBank,
    batches: Sequence[Batch],
    objective: Objective[Any],
    steps: int = 30,
    *,
    optimizer: str = "adam",
    lr: float = 0.03,
    scores: Scores | None = None,
    decode: Decode | None = None,
    transcribe: Transcribe | None = None,
    perturb: Perturbation = STRONG_MASKS,
    copies: int = 4,
    every: int = 1,
    seed: int = 0,
) -> Adaptation:
    """Learn the rows of the speakers in some batches, and keep for each the step that the words say is best.

    A row starts at its present value, and stays there, bit for bit, if no step helps, or if an error is raised. The
    rows of other speakers do not change, and the model does not. Speakers do not affect each other.

    Args:
        model: The model that the bank is attached to, or one that calls it.
        bank: The bank; it has the speakers.
        batches: Recordings of the speakers. With one recording of a speaker none can be kept back, and the choice rests
            on what was learned from.
        objective: ``Ctc``, ``Entropy``, ``Consistency``, ``LabelCrossEntropy``, or one of the user's own.
        steps: Largest number of steps; each is a pass over all batches.
        optimizer: Name of the row-wise optimizer.
        lr: Learning rate.
        scores: A function from the model's output to logits (B, T, K); by default the output is the logits.
        decode: A function from scores (B, T, K) and lengths (B,) to B sequences of tokens; by default greedy, for
            objectives that have a blank.
        transcribe: A function from a batch's inputs to B sequences of tokens, in place of ``decode``, for models with a
            search of their own. It calls the model, for the speakers that are selected then.
        perturb: What the words should withstand.
        copies: Number of perturbed copies of each recording.
        every: Number of steps between two looks at the words.
        seed: Seeds the perturbations.

    Raises:
        ConfigError: A batch, an option or the objective does not fit, or all confidences of a speaker are 0.
        SiteError: The bank is detached, or the loss does not depend on it.
        SpeakerError: The bank does not know a speaker, or a loss or a row is not finite.

    Example:
        >>> import torch
        >>> from lhuc_asr.lhuc import Batch, Entropy, attach
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> bank = attach(model, nn.ReLU, speakers=["alice"])
        >>> result = adapt(model, bank, [Batch(torch.zeros(2, 9, 4), ["alice", "alice"])], Entropy(), steps=2)
        >>> print(result)
        alice: does not help: unadapted kept (of 2 steps)
    """
    for name, value in (("steps", steps), ("copies", copies), ("every", every)):
        if value < 1:
            raise ConfigError(f"adapt: {name} = {value}: expected 1 or more")
    if not bank.attached:
        raise SiteError("adapt: the bank is detached, so that nothing would be learned; bank.attach() puts it back")
    scores = scores or _as_it_is
    words = _Words(model, scores, _decoding(objective, decode, transcribe), transcribe)
    rows = Rows(bank, _speakers(batches))
    with frozen(model):
        materials = materials_of(model, rows, batches, objective, scores)
        descent = Descent(rows, model, objective, materials, scores, optimizer, {"lr": lr}, seed)
        looking = _Looking(rows, materials, words, perturb, copies, seed)
        for step in range(1, steps + 1):
            descent.step(step)
            if step % every == 0 or step == steps:
                looking.look(step)
    return looking.keep()


def _as_it_is(output: Any) -> Tensor:
    return cast(Tensor, output)


def _decoding(objective: object, decode: Decode | None, transcribe: Transcribe | None) -> Decode | None:
    if decode is not None and transcribe is not None:
        raise ConfigError("adapt: decode= and transcribe= are two ways to the words; pass one of them")
    ready: Decode | None = getattr(objective, "decode", None)
    if decode is None and transcribe is None and ready is None:
        raise ConfigError(
            "adapt: how scores become words is not known for this objective; pass decode=, such as GreedyCtc(blank=0), "
            "or transcribe="
        )
    return decode or ready


def _speakers(batches: Sequence[Batch]) -> list[str]:
    if not batches:
        raise ConfigError("adapt: no batches; pass at least one")
    speakers = list(dict.fromkeys(name for batch in batches for name in batch.speakers))
    if SPEAKER_INDEPENDENT in speakers:
        raise SpeakerError("adapt: row 0 is nobody's; name the speaker of each recording")
    return speakers


class _Words:
    """The words of batches, by the rows that are selected."""

    def __init__(self, model: nn.Module, scores: Scores, decode: Decode | None, transcribe: Transcribe | None) -> None:
        self._model, self._scores, self._decode, self._transcribe = model, scores, decode, transcribe

    def of(self, batch: Batch, title: str) -> Sequence[Hypothesis]:
        """The words of a batch, a sequence for each recording."""
        if self._transcribe is not None:
            words = self._transcribe(batch.inputs)
        elif self._decode is not None:
            output = run_model(self._model, batch, self._scores, title)
            words = self._decode(output, output_lengths(batch, output))
        if len(words) != len(batch):
            raise ConfigError(f"adapt: {title}: {len(words)} transcripts of {len(batch)} recordings; decode each")
        return words


class _Looking:
    """Looks at the words, and the best rows until now; the first look is at the rows as they were.

    Args:
        rows: The rows.
        materials: The batches.
        words: What gives the words.
        perturb: The perturbation.
        copies: Number of perturbed copies.
        seed: Seeds the copies, which are the same at each look.
    """

    def __init__(
        self, rows: Rows, materials: Sequence[Material], words: _Words, perturb: Perturbation, copies: int, seed: int
    ) -> None:
        self._rows, self._materials, self._words = rows, materials, words
        self._perturb, self._copies, self._seed = perturb, copies, seed
        self._looks: list[list[Look]] = [[] for _ in rows.speakers]
        self._own = torch.arange(1, 1 + len(rows.speakers))
        self._best = rows.values(self._own)
        with torch.no_grad():
            self._first = [self._by(material, rows.whole(material)) for material in materials]
        self.look(0)

    def look(self, step: int) -> None:
        """Look at the words after a step."""
        unstable: list[list[float]] = [[] for _ in self._looks]
        unlike: list[list[float]] = [[] for _ in self._looks]
        counts = [0] * len(self._looks)
        for material, first in zip(self._materials, self._first, strict=True):
            pairs = zip(material.speakers.tolist(), first, *self._edits(material, first), strict=True)
            for speaker, words, perturbed, halves in pairs:
                unstable[speaker].append(perturbed)
                unlike[speaker].append(halves)
                counts[speaker] += len(words)
        for number, looks in enumerate(self._looks):
            looks.append(Look.of(step, unstable[number], unlike[number], counts[number]))
        better = [number for number, looks in enumerate(self._looks) if min(looks, key=_risk) is looks[-1]]
        for best, now in zip(self._best, self._rows.values(self._own), strict=True):
            best[better] = now[better]

    @torch.no_grad()
    def _edits(self, material: Material, first: Sequence[Hypothesis]) -> tuple[list[float], list[float]]:
        """What ``choice`` calls unstable and unlike, for each recording of a batch."""
        kept_back = self._rows.half(material, kept_back=True)
        unlike = _distances(
            self._by(material, kept_back), self._by(material, self._rows.half(material, kept_back=False))
        )
        unstable = [0.0] * len(first)
        for copy in range(self._copies):
            batch = material.batch.perturbed(self._perturb, material.seeds(self._seed, f"copy {copy}"))
            distances = _distances(self._by(replace(material, batch=batch), kept_back), first)
            unstable = [total + each / self._copies for total, each in zip(unstable, distances, strict=True)]
        return unstable, unlike

    def _by(self, material: Material, rows: Tensor) -> Sequence[Hypothesis]:
        with self._rows.selected(rows):
            return self._words.of(material.batch, material.title)

    def keep(self) -> Adaptation:
        """Write the chosen rows into the bank."""
        steps, before = [best_step(looks) for looks in self._looks], self._rows.adapted_before()
        chosen = [number for number, step in enumerate(steps) if step]
        self._rows.write(chosen, [best[chosen] for best in self._best])
        parts = zip(self._rows.speakers, steps, self._looks, before, strict=True)
        return Adaptation({name: Choice(name, step, tuple(looks), own) for name, step, looks, own in parts})


def _risk(look: Look) -> float:
    return look.risk


def _distances(ones: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> list[float]:
    return [float(edits(one, other)) for one, other in zip(ones, others, strict=True)]
