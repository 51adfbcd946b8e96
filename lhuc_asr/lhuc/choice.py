"""The choice of a step, by the words alone: never by the objective, which goes on falling while a model collapses.

At a look, each recording has two numbers, in edits (insertions, deletions, substitutions) of its tokens:

    unstable   between the words of its perturbed copies, by the row that kept it back, and those that the model had for
               the clean recording before adaptation
    unlike     between the words of the clean recording by the row that kept it back, and by the one that learned from
               it

The first is an error rate against the best transcript that is known without labels. Before adaptation it is what the
perturbation costs. It falls as long as adaptation makes the model better for this voice, and rises when the model
drifts: a collapsed model, however stable, is far from the first transcript. It counts corrections of the first
transcript as errors too, so it stops early rather than late. Because the recording was kept back, labels that were
learned by heart gain nothing. The second is what chance in the recordings does to the row. The risk is

    unstable + unlike / 4

The step with the least risk is chosen if it is below the risk before adaptation by half a standard error over the
recordings or more. Otherwise adaptation does not help, and the row is kept as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Chosen, with the strength of the masks, on toy speakers that no figure of the documentation is made from.
UNLIKE_SHARE = 0.25
STANDARD_ERRORS = 0.5


@dataclass(frozen=True)
class Look:
    """What the words of one speaker say after some steps.

    Attributes:
        step: Number of steps.
        unstable: Edits of perturbed recordings, as a share of the words before adaptation.
        unlike: Edits between the rows of two halves, as such a share.
        risks: Risk of each recording, in edits.
    """

    step: int
    unstable: float
    unlike: float
    risks: tuple[float, ...]

    @classmethod
    def of(cls, step: int, unstable: Sequence[float], unlike: Sequence[float], words: int) -> Look:
        """A look.

        Args:
            step: Number of steps.
            unstable: Edits of each recording, the mean over its perturbed copies.
            unlike: Edits of each recording between the rows of two halves.
            words: Number of words before adaptation.
        """
        risks = tuple(one + UNLIKE_SHARE * other for one, other in zip(unstable, unlike, strict=True))
        return cls(step, sum(unstable) / max(1, words), sum(unlike) / max(1, words), risks)

    @property
    def risk(self) -> float:
        """Sum of the recordings' risks, in edits."""
        return sum(self.risks)


@dataclass(frozen=True)
class Choice:
    """What was chosen for a speaker.

    Attributes:
        speaker: The speaker.
        step: The chosen step; 0 if the row was kept as it was.
        looks: All looks, the first of the row as it was.
        adapted_before: Whether the row as it was is another than row 0.
    """

    speaker: str
    step: int
    looks: tuple[Look, ...]
    adapted_before: bool = False

    @property
    def helps(self) -> bool:
        """Whether the speaker's row has changed."""
        return self.step > 0

    def __str__(self) -> str:
        first, last = self.looks[0], self.looks[-1]
        if not self.helps:
            kept = "kept as it was" if self.adapted_before else "unadapted kept"
            return f"{self.speaker}: does not help: {kept} (of {last.step} steps)"
        chosen = next(look for look in self.looks if look.step == self.step)
        return (
            f"{self.speaker}: step {self.step} of {last.step}; perturbed words differ by {chosen.unstable:.1%}, "
            f"before by {first.unstable:.1%}"
        )


@dataclass(frozen=True)
class Adaptation:
    """What was chosen for each speaker.

    Attributes:
        choices: The choices, by the speakers' names.
    """

    choices: Mapping[str, Choice]

    def __str__(self) -> str:
        return "\n".join(map(str, self.choices.values()))


def best_step(looks: Sequence[Look]) -> int:
    """The step to take; 0 for none.

    Args:
        looks: The looks of a speaker, the first of the row as it was.

    Example:
        >>> risks = {0: (3.0, 2.0, 4.0), 5: (2.0, 2.0, 2.0), 10: (6.0, 4.0, 5.0)}
        >>> best_step([Look(step, 0.0, 0.0, each) for step, each in risks.items()])
        5
    """
    best = min(looks, key=lambda look: look.risk)
    gains = torch.tensor(looks[0].risks, dtype=torch.float64) - torch.tensor(best.risks, dtype=torch.float64)
    return best.step if float(gains.sum()) > STANDARD_ERRORS * _standard_error_of_sum(gains) else 0


def _standard_error_of_sum(values: Tensor) -> float:
    count = len(values)
    return float(values.std() * count**0.5) if count > 1 else 0.0
