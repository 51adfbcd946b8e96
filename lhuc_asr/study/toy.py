"""Toy regressions, after figures 1 to 3 of the paper: what amplitudes can do, on one axis, in seconds.

A network of four sigmoid units is a sum of four scaled steps, f(x) = c + sum_k v_k psi(w_k x + b_k) (equation 1).
Two steps of opposite signs make a bump. Three regressions learn such sums, then see a new function made of the same
steps at other heights. For the new function only the amplitudes, one per unit, may change (equation 3):

    bumps   trained on one function of two bumps; every step is in the basis, so amplitudes reach the new function
    si      trained on two functions at once without knowing which is which: it learns their average, in which the
            step between the bumps cancels, and no amplitudes can bring back a step that the basis lacks
    sat     trained on the same two, each with amplitudes of its own (equations 4 to 6): the basis keeps that step

The heights and places are our own, chosen so that what each regression shows has one cause. There is no noise, and a
function is seen at all points: an error that remains is one that the parameters cannot remove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.fold import fold
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT
from lhuc_asr.score.toy import ToyRegression, ToyReport, write_toy
from lhuc_asr.score.toy_figures import save_toy_figures

REPORT_FILE = "toy.json"
UNITS = 4
X_LIMIT = 4.0
POINTS = 101
# Slope of the functions' steps: the transition from 10 to 90 % takes 4.4 / 8 = 0.55 of the axis's 8.
SLOPE = 8.0
# A network starts with wider steps than it needs: the gradient of a steep step reaches few points.
FIRST_SLOPE = 4.0
# Quasi-Newton steps on all weights, far more than an exact fit takes.
WEIGHT_STEPS = 300
# Steps of Adam: amplitudes alone, and together with the weights.
ADAPTATION_STEPS, JOINT_STEPS = 400, 800
LEARNING_RATE = 0.1
NEW = "new"


class StepNetwork(nn.Module):
    """f(x) = c + sum_k v_k psi(w_k x + b_k), (B, 1) -> (B, 1) in float64, with psi the sigmoid.

    The axis is divided into one part per step; each step starts at a random place in its part.

    Args:
        units: Number of steps.
        seed: Seed of the steps' initial places and heights.
    """

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, units, dtype=torch.float64)
        self.activation = nn.Sigmoid()
        self.output = nn.Linear(units, 1, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        part = torch.arange(units) + torch.rand(units, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.hidden.weight.fill_(FIRST_SLOPE)
            self.hidden.bias.copy_(-FIRST_SLOPE * (2 * part / units - 1) * X_LIMIT)
            self.output.weight.uniform_(-0.5, 0.5, generator=generator)
            self.output.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The function's values, with the shape of x."""
        output: Tensor = self.output(self.activation(self.hidden(x)))
        return output

    def basis(self, x: Tensor) -> Tensor:
        """Each unit's contribution to the output at amplitude 1, (N, units)."""
        return torch.sigmoid(self.hidden(x)) * self.output.weight  # not self.activation, which carries amplitudes


def run_toy(folder: Path, seed: int) -> ToyReport:
    """Make the three regressions; write toy.json and three figures.

    Args:
        folder: Folder of the files; it is made if it is missing.
        seed: Seed of the networks' initial weights; nothing else is random.
    """
    x = torch.linspace(-X_LIMIT, X_LIMIT, POINTS, dtype=torch.float64).unsqueeze(1)  # (N, 1)
    report = ToyReport(seed, _regressions(x, seed))
    write_toy(folder / REPORT_FILE, report)
    save_toy_figures(folder / REPORT_FILE, folder)
    return report


def _regressions(x: Tensor, seed: int) -> tuple[ToyRegression, ...]:
    left, right = bump(x, -3.0, -1.0), bump(x, 1.0, 3.0)
    alone = {"f1": 0.6 * left + 1.0 * right}
    # These two touch: where one ends the other begins.
    left_half, right_half = bump(x, -2.5, 0.0), bump(x, 0.0, 2.5)
    competing = {"f1": 1.0 * left_half + 0.2 * right_half, "f2": 0.2 * left_half + 1.0 * right_half}
    third = 1.4 * left_half + 0.5 * right_half
    # Both ways of training start from the same weights.
    return (
        regress("bumps", x, alone, 1.2 * left + 0.4 * right, seed, adaptively=False),
        regress("si", x, competing, third, seed, adaptively=False),
        regress("sat", x, competing, third, seed, adaptively=True),
    )


def regress(
    name: str, x: Tensor, training: Mapping[str, Tensor], target: Tensor, seed: int, adaptively: bool
) -> ToyRegression:
    """Train a network on functions, then adapt it to a new function, once by amplitudes alone and once by all weights.

    Args:
        name: Name of the regression.
        x: Points, shape (N, 1), float64.
        training: The functions to train on, each of shape (N, 1).
        target: The new function, shape (N, 1).
        seed: Seed of the network's initial weights.
        adaptively: Whether each function has amplitudes of its own in training.
    """
    model = StepNetwork(UNITS, seed)
    if adaptively:
        bank = attach(model, "activation", list(training))
        train_adaptively(model, bank, x, training)
    else:
        train_weights(model, x.repeat(len(training), 1), torch.cat(list(training.values())))
        bank = attach(model, "activation")
    bank.add([NEW])
    adapt_amplitudes(model, bank, NEW, x, target)
    retrained = fold(bank, SPEAKER_INDEPENDENT)
    train_weights(retrained, x, target)
    with torch.no_grad():
        speakers = [SPEAKER_INDEPENDENT, *bank.speakers]
        outputs = {speaker: _output(model, bank, speaker, x) for speaker in speakers}
        return ToyRegression(
            name=name,
            x=_points(x),
            training={key: _points(value) for key, value in training.items()},
            trained={speaker: curve for speaker, curve in outputs.items() if speaker != NEW},
            target=_points(target),
            unadapted=outputs[SPEAKER_INDEPENDENT],
            adapted=outputs[NEW],
            retrained=_points(retrained(x)),
            basis=[_points(unit) for unit in model.basis(x).T],
            amplitudes={speaker: _amplitudes(bank, speaker) for speaker in speakers},
            weights=sum(parameter.numel() for parameter in model.parameters()),
        )


def bump(x: Tensor, start: float, end: float) -> Tensor:
    """A bump at the points x: a step up and a step down, near 1 from start to end and near 0 elsewhere."""
    return _step(x, start) - _step(x, end)


def train_weights(model: nn.Module, x: Tensor, target: Tensor) -> None:
    """Fit all weights by L-BFGS, which fits a function without noise to many digits."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=WEIGHT_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = nn.functional.mse_loss(model(x), target)
        error.backward()
        return error

    optimizer.step(loss)


def train_adaptively(model: nn.Module, bank: SpeakerBank, x: Tensor, functions: Mapping[str, Tensor]) -> None:
    """Fit weights and rows together: each function by its own row, and all of them by row 0 (equations 4 to 6).

    Row 0 has half of the data: gamma = 0.5.
    """
    rows = [SPEAKER_INDEPENDENT] * len(functions) + list(functions)
    inputs, targets = x.repeat(len(rows), 1), torch.cat([*functions.values(), *functions.values()])
    weights = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    with bank.blocks(rows):
        _descend([weights, bank.optimizer("adam", lr=LEARNING_RATE)], model, inputs, targets, JOINT_STEPS)


def adapt_amplitudes(model: nn.Module, bank: SpeakerBank, speaker: str, x: Tensor, target: Tensor) -> None:
    """Fit one row, with the network frozen: LHUC."""
    with frozen(model), bank.speaker(speaker):
        _descend([bank.optimizer("adam", lr=LEARNING_RATE)], model, x, target, ADAPTATION_STEPS)


def _descend(
    optimizers: Sequence[torch.optim.Optimizer], model: nn.Module, x: Tensor, target: Tensor, steps: int
) -> None:
    # The rate falls to zero: Adam's steps do not shrink by themselves.
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        nn.functional.mse_loss(model(x), target).backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()


def _step(x: Tensor, place: float) -> Tensor:
    return torch.sigmoid(SLOPE * (x - place))


def _output(model: nn.Module, bank: SpeakerBank, speaker: str, x: Tensor) -> list[float]:
    with bank.speaker(speaker):
        return _points(model(x))


def _amplitudes(bank: SpeakerBank, speaker: str) -> list[float]:
    return _points(bank.xi("activation", bank.rows_of([speaker])))


def _points(curve: Tensor) -> list[float]:
    # Seven digits are more than a figure shows, and keep the file small.
    return [float(f"{value:.7g}") for value in curve.flatten().tolist()]
