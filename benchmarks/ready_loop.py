"""How near the best step ``lhuc.adapt`` chooses, on toy speakers whose true words it does not see.

Six speakers of each of seven toy worlds (tests/lhuc/ctc_toy.py), from usual to very quiet, each with 24 recordings to
learn from and 60 others that errors are counted on. The constants of the choice were set on other worlds. The best step
is that of the same descent at which the other recordings have the fewest errors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import show
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "lhuc"))
from ctc_toy import Speech, Toy, World, attached, trained

from lhuc_asr.lhuc import Consistency, Ctc, Entropy, adapt, frozen
from lhuc_asr.lhuc.descending import Descent, Rows, materials_of

WORLDS, LOUDNESS, STEPS = range(100, 107), (1.0, 0.8, 0.6, 0.5, 0.4, 0.3), 30
RATES = ("before", "chosen", "best", f"after {STEPS}")
CHOICES = (
    "is within 2 steps",
    "within 6",
    "is none",
    "gains, of those who could by 2 points",
    "loses over a point",
    "worst loss, points",
)


@dataclass(frozen=True)
class Outcome:
    """Token error rates of one speaker: by step, and the step that was chosen."""

    errors: Sequence[float]
    chosen: int

    @property
    def best(self) -> int:
        """The step with the fewest errors."""
        return min(range(len(self.errors)), key=self.errors.__getitem__)

    @property
    def gain(self) -> float:
        """By how much the chosen step is better than none."""
        return self.errors[0] - self.errors[self.chosen]


def main() -> None:
    """Measure the three objectives that need no transcripts."""
    torch.set_num_threads(1)
    outcomes: dict[str, list[Outcome]] = {}
    for seed in WORLDS:
        world = World(seed)
        model = trained(world)
        speakers = [world.speaker(loudness) for loudness in LOUDNESS]
        speech = [(world.speech(speaker, 24), world.speech(speaker, 60)) for speaker in speakers]
        for objective in (Entropy(), Ctc(), Consistency()):
            outcomes.setdefault(type(objective).__name__, []).extend(
                outcome(model, *each, objective) for each in speech
            )
    count = len(WORLDS) * len(LOUDNESS)
    show(
        f"Token error rates of {count} speakers, %", ["objective", *RATES], [rates(*each) for each in outcomes.items()]
    )
    show("Speakers of whom the choice ...", ["objective", *CHOICES], [choices(*each) for each in outcomes.items()])


def outcome(model: Toy, learned: Speech, others: Speech, objective: Any) -> Outcome:
    """Adapt one speaker, and count the errors of every step of the same descent."""
    bank, batch = attached(model, "s"), learned.batch("s")
    chosen = adapt(model, bank, [batch], objective, STEPS).choices["s"].step
    bank.reset(["s"])
    rows = Rows(bank, ["s"])
    materials = materials_of(model, rows, [batch], objective, _as_it_is)
    descent = Descent(rows, model, objective, materials, _as_it_is, "adam", {"lr": 0.03}, seed=0)
    errors = []
    with frozen(model):
        for step in range(STEPS + 1):
            if step:
                descent.step(step)
            with rows.selected(torch.ones(len(others.said), dtype=torch.int64)):
                errors.append(others.error(model))
    bank.detach()
    return Outcome(errors, chosen)


def _as_it_is(output: Tensor) -> Tensor:
    return output


def rates(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Mean error rates: before, at the chosen step, at the best one, and after all steps."""
    columns = [
        [each.errors[step] for each, step in zip(outcomes, steps, strict=True)]
        for steps in (
            [0] * len(outcomes),
            [each.chosen for each in outcomes],
            [each.best for each in outcomes],
            [STEPS] * len(outcomes),
        )
    ]
    return [name, *(f"{100 * sum(column) / len(column):.1f}" for column in columns)]


def choices(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """How many choices are near the best step, how many are for none, and how many lose."""
    near = [sum(abs(each.chosen - each.best) <= steps for each in outcomes) for steps in (2, 6)]
    able = [each for each in outcomes if each.errors[0] - each.errors[each.best] >= 0.02]
    return [
        name,
        *map(str, near),
        str(sum(not each.chosen for each in outcomes)),
        f"{sum(each.gain > 0.005 for each in able)} of {len(able)}",
        str(sum(each.gain < -0.01 for each in outcomes)),
        f"{-100 * min(each.gain for each in outcomes):.1f}",
    ]


if __name__ == "__main__":
    main()
