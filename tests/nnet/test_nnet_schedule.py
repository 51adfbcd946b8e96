"""Newbob as a table: held-out losses, and the learning rates and states that follow from them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lhuc_asr.nnet.schedule import Newbob, NewbobConfig

CONFIG = NewbobConfig(learning_rate=0.8, halve_below=0.01, stop_below=0.001, max_epochs=8)


@pytest.mark.parametrize(
    ("losses", "rates", "finished"),
    [
        pytest.param([2.0, 1.5, 1.2], [0.8, 0.8, 0.8], False, id="full steps while they help"),
        pytest.param([2.0, 1.99], [0.8, 0.4], False, id="half a percent: halving begins"),
        pytest.param([2.0, 1.98], [0.8, 0.8], False, id="one percent is enough"),
        pytest.param([2.0, 2.1], [0.8, 0.4], False, id="worse: halving begins, not the end"),
        pytest.param([2.0, 1.99, 1.5], [0.8, 0.4, 0.2], False, id="once begun, halved every epoch"),
        pytest.param([2.0, 1.99, 1.9899], [0.8, 0.4, 0.2], True, id="halving helps no more: the end"),
        pytest.param([2.0, 1.99, 2.5], [0.8, 0.4, 0.2], True, id="worse while halving: the end"),
        pytest.param([2.0, 2.5, 1.99], [0.8, 0.4, 0.2], False, id="measured against the best, not the last"),
        pytest.param([2.0, 2.5, 2.4], [0.8, 0.4, 0.2], True, id="better than the last is not enough"),
        pytest.param([2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3], [0.8] * 8, True, id="as many epochs as allowed"),
        pytest.param([1000.0], [0.8], False, id="the first epoch has nothing to be compared with"),
        pytest.param([0.0, 0.0], [0.8, 0.4], False, id="no loss is left: nothing to improve"),
        pytest.param([0.0, 0.5], [0.8, 0.4], False, id="no loss was left"),
    ],
)
def test_newbob(losses, rates, finished):
    state, visited = Newbob(CONFIG.learning_rate), []
    for loss in losses:
        assert not state.finished
        state = state.after(loss, CONFIG)
        visited.append(state.learning_rate)
    assert visited == pytest.approx(rates)
    assert state.finished == finished
    assert state.best_loss == min(losses)
    assert state.epochs == len(losses)


def test_a_decay_takes_all_epochs_whatever_the_losses_and_ends_with_its_rate():
    config = NewbobConfig(learning_rate=0.4, decay_to=0.004, max_epochs=4)
    state, rates = Newbob(config.learning_rate), []
    for loss in (2.0, 1.9999, 3.0, 1.0):
        assert not state.finished
        rates.append(state.learning_rate)
        state = state.after(loss, config)
    assert state.finished
    assert rates == pytest.approx([0.4 * 10 ** (-epoch / 2) for epoch in range(4)])
    assert state.learning_rate == pytest.approx(0.004)
    assert (state.kept, state.best_loss, state.halving) == (3, 1.0, False)
    assert [config.rate_after(epochs) for epochs in (0, 2, 4, 5)] == pytest.approx([0.4, 0.04, 0.004, 0.004])


def test_a_decay_that_rises_is_refused():
    with pytest.raises(ValidationError, match=r"decay_to 0.5: expected at most learning_rate, 0.4"):
        NewbobConfig(learning_rate=0.4, decay_to=0.5)


def test_without_a_decay_the_first_rate_is_that_of_newbob():
    assert CONFIG.rate_after(3) == CONFIG.learning_rate


@given(losses=st.lists(st.floats(0.0, 100.0), min_size=8, max_size=8))
def test_training_always_ends_and_the_rate_never_rises(losses):
    state = Newbob(CONFIG.learning_rate)
    for loss in losses:
        following = state.after(loss, CONFIG)
        assert following.learning_rate <= state.learning_rate
        assert following.best_loss <= state.best_loss
        assert following.halving or not state.halving
        state = following
        if state.finished:
            break
    assert state.finished


def test_a_state_survives_as_a_dictionary():
    state = Newbob(0.8).after(2.0, CONFIG).after(1.999, CONFIG)
    assert Newbob(**dataclasses.asdict(state)) == state


@pytest.mark.parametrize(
    ("losses", "rates", "finished"),
    [
        pytest.param([1.1, 1.2, 0.9, 0.8], [0.4, 0.2, 0.2, 0.2], False, id="halved until one is kept, then full steps"),
        pytest.param([0.999, 0.9], [0.8, 0.8], False, id="the first kept epoch counts as an improvement"),
        pytest.param([1.0, 0.995], [0.8, 0.4], False, id="as good as the start is kept"),
        pytest.param([1.1] * 8, [0.8 / 2**n for n in range(1, 9)], True, id="none is kept: as many as allowed"),
    ],
)
def test_a_network_that_goes_on_is_compared_with_its_start(losses, rates, finished):
    state, visited = Newbob(CONFIG.learning_rate, best_loss=1.0), []
    for loss in losses:
        assert not state.finished
        state = state.after(loss, CONFIG)
        visited.append(state.learning_rate)
    assert visited == pytest.approx(rates)
    assert state.finished == finished
    assert state.best_loss == min(1.0, *losses)
    assert state.kept == sum(loss <= 1.0 for loss in losses)
