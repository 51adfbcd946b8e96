"""Toy regressions, compared with answers known by construction and in closed form."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lhuc_asr.lhuc.attach import attach
from lhuc_asr.score.toy import ToyRegression, read_toy, root_mean_square_error
from lhuc_asr.study.toy import POINTS, StepNetwork, adapt_amplitudes, bump, regress, run_toy

X = torch.linspace(-4, 4, POINTS, dtype=torch.float64).unsqueeze(1)


@pytest.fixture(scope="module", params=[1, 2])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"toy{request.param}")
    run_toy(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def regressions(folder: Path) -> dict[str, ToyRegression]:
    return {regression.name: regression for regression in read_toy(folder / "toy.json").regressions}


def contributions(regression: ToyRegression, row: str) -> NDArray[np.float64]:
    """The network's output without its constant, (N,)."""
    return np.asarray(regression.amplitudes[row]) @ np.asarray(regression.basis)


def constant(regression: ToyRegression) -> float:
    return float(np.mean(regression.unadapted - contributions(regression, "")))


def least_squares_error(regression: ToyRegression) -> float:
    """The least error of any positive amplitudes on the frozen basis: least squares over every subset of the units.

    The best non-negative solution is the unconstrained one on the units where it is not zero.
    """
    units = np.asarray(regression.basis)
    wanted = np.asarray(regression.target) - constant(regression)
    errors = [float(np.sqrt(np.mean(wanted**2)))]
    for count in range(1, len(units) + 1):
        for chosen in itertools.combinations(units, count):
            columns = np.stack(chosen, axis=1)
            amplitudes = np.linalg.lstsq(columns, wanted, rcond=None)[0]
            if (amplitudes >= 0).all():
                errors.append(float(np.sqrt(np.mean((columns @ amplitudes - wanted) ** 2))))
    return min(errors)


def test_amplitudes_that_made_a_function_are_found_again() -> None:
    model = StepNetwork(4, seed=0)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor([[0.5, -1.0, 0.8, -0.4]]))
        model.output.bias.fill_(0.3)
    amplitudes = torch.tensor([0.3, 1.5, 2.5, 0.8], dtype=torch.float64)
    target = (model.basis(X) @ amplitudes + 0.3).detach().unsqueeze(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bank = attach(model, "activation", ["new"])
    adapt_amplitudes(model, bank, "new", X, target)
    with bank.speaker("new"):
        assert root_mean_square_error(model(X).flatten().tolist(), target.flatten().tolist()) < 2e-3
    torch.testing.assert_close(bank.xi("activation", bank.rows_of(["new"]))[0], amplitudes, rtol=0.02, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_bump_is_half_as_high_where_its_steps_are() -> None:
    x = torch.tensor([[-1.0], [0.0], [1.0], [5.0]])
    torch.testing.assert_close(bump(x, -1.0, 1.0), torch.tensor([[0.5], [1.0], [0.5], [0.0]]), atol=1e-3, rtol=0)


def test_the_curves_are_the_amplitudes_times_the_basis(regressions: dict[str, ToyRegression]) -> None:
    for regression in regressions.values():
        for row, curve in [*regression.trained.items(), ("new", regression.adapted)]:
            expected = contributions(regression, row) + constant(regression)
            np.testing.assert_allclose(curve, expected, atol=1e-5)


def test_no_amplitudes_on_the_frozen_basis_would_do_much_better(regressions: dict[str, ToyRegression]) -> None:
    for regression in regressions.values():
        bound = least_squares_error(regression)
        # Units that training left unused are adapted slowly: their amplitudes have a long way to go.
        assert bound - 1e-6 <= regression.errors["adapted"] <= 1.05 * bound + 0.002


def test_adapted_is_between_unadapted_and_retrained(regressions: dict[str, ToyRegression]) -> None:
    for regression in regressions.values():
        errors = regression.errors
        assert errors["retrained"] <= errors["adapted"] + 1e-3
        assert errors["adapted"] < 0.8 * errors["unadapted"]


def test_amplitudes_of_bumps_are_the_ratios_of_their_heights(regressions: dict[str, ToyRegression]) -> None:
    """Four sigmoids that sum to f1 are its own four steps; from 0.6 to 1.2 and from 1.0 to 0.4 is twice and 0.4."""
    regression = regressions["bumps"]
    # From left to right: where a unit has made half of its step.
    steps = [np.argmax(np.abs(unit) > np.abs(unit).max() / 2) for unit in np.asarray(regression.basis)]
    np.testing.assert_allclose(np.asarray(regression.changes)[np.argsort(steps)], [2, 2, 0.4, 0.4], rtol=0.01)
    assert regression.errors["adapted"] < 0.002


def test_one_network_for_two_functions_learns_their_average(regressions: dict[str, ToyRegression]) -> None:
    """The mean of two functions minimises the squared error to both."""
    average = np.mean(list(regressions["si"].training.values()), axis=0)
    np.testing.assert_allclose(regressions["si"].trained[""], average, atol=0.01)


def test_a_step_that_the_basis_lacks_stays_out_of_reach(regressions: dict[str, ToyRegression]) -> None:
    """Between the error of a flat top by hand, and that of the average times the best factor."""
    regression = regressions["si"]
    x, target = np.asarray(regression.x), np.asarray(regression.target)
    # The new function is 1.4 left of 0 and 0.5 right of it: a top as high on both sides misses them by 0.45 or more.
    tops = (np.abs(x) > 0.5) & (np.abs(x) < 2)
    assert regression.errors["adapted"] > 0.9 * 0.45 * np.sqrt(np.mean(tops))
    shape = np.asarray(regression.trained[""])
    scaled = shape * (shape @ target) / (shape @ shape)
    assert regression.errors["adapted"] < root_mean_square_error(scaled.tolist(), target.tolist()) + 0.005


def test_adaptive_training_keeps_the_step(regressions: dict[str, ToyRegression]) -> None:
    regression = regressions["sat"]
    assert regression.training == regressions["si"].training
    for name, curve in regression.training.items():
        assert root_mean_square_error(regression.trained[name], curve) < 0.05
    average = np.mean(list(regression.training.values()), axis=0)
    assert root_mean_square_error(regression.trained[""], average.tolist()) < 0.05
    assert regression.errors["adapted"] < regressions["si"].errors["adapted"] / 5


def test_the_same_seed_gives_the_same_numbers() -> None:
    function = {"f1": bump(X, -2.0, 0.0)}
    once, again = (regress("sat", X, function, bump(X, -2.0, 1.0), 3, adaptively=True) for _ in range(2))
    assert once == again
    assert once != regress("sat", X, function, bump(X, -2.0, 1.0), 4, adaptively=True)


def test_three_figures_are_written_beside_the_report(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "toy.json",
        "toy1_bumps.png",
        "toy2_si.png",
        "toy3_sat.png",
    ]
