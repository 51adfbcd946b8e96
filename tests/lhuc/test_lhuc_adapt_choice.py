"""The choice of a step on a toy of speech, whose true words only the tests see."""

import pytest
import torch
from ctc_toy import World, attached, trained
from torch import nn

from lhuc_asr.lhuc import Batch, Consistency, Ctc, Entropy, Look, Unlabelled, adapt, attach, frozen
from lhuc_asr.lhuc.choice import best_step

STEPS = 30


def descended(model, speech) -> tuple[list[float], list[float]]:
    """Token error rates on other recordings of the speaker, and entropies, by step, without any choice."""
    learned, others = speech
    bank, errors, entropies = attached(model, "s"), [], []
    optimizer = bank.optimizer("adam", lr=0.03)
    with frozen(model), bank.speaker("s"):
        for _ in range(STEPS + 1):
            errors.append(others.error(model))
            optimizer.zero_grad()
            loss = Entropy()(model(learned.features), Unlabelled.of(learned.lengths)) / len(learned.lengths)
            loss.backward()
            entropies.append(float(loss.detach()))
            optimizer.step()
    bank.detach()
    return errors, entropies


def spoken(world: World, loudness: float, mixing: float = 0.0):
    speaker = world.speaker(loudness, mixing=mixing)
    return world.speech(speaker, 24), world.speech(speaker, 60)


def after(model, bank, name, speech) -> float:
    with bank.speaker(name):
        return speech.error(model)


def test_the_step_is_chosen_near_the_best_although_entropy_falls_on():
    world = World(seed=11)
    model = trained(world)
    speech = spoken(world, loudness=0.45)
    errors, entropies = descended(model, speech)
    best = min(range(STEPS + 1), key=errors.__getitem__)
    assert errors[best] < 0.95 * errors[0], "the toy shows nothing: adaptation does not help"
    assert errors[STEPS] > 1.3 * errors[0], "the toy shows nothing: adaptation does not harm"
    assert entropies == sorted(entropies, reverse=True)
    bank = attached(model, "quiet")
    result = adapt(model, bank, [speech[0].batch("quiet")], Entropy(), STEPS)
    choice = result.choices["quiet"]
    assert choice.helps
    assert abs(choice.step - best) <= 6
    assert after(model, bank, "quiet", speech[1]) == pytest.approx(errors[choice.step], abs=0.01)
    assert errors[choice.step] < errors[0]
    assert str(result).startswith(f"quiet: step {choice.step} of {STEPS}; perturbed words differ by ")


def test_nothing_is_lost_where_adaptation_does_no_good():
    world = World(seed=12)
    model = trained(world)
    usual, hopeless = spoken(world, loudness=1.0), spoken(world, loudness=0.3, mixing=1.5)
    bank = attached(model, "usual", "hopeless")
    before = [after(model, bank, "usual", usual[1]), after(model, bank, "hopeless", hopeless[1])]
    assert before[0] < 0.12
    assert before[1] > 0.6
    batches = [usual[0].batch("usual"), hopeless[0].batch("hopeless")]
    result = adapt(model, bank, batches, Entropy(), STEPS, every=2)
    assert after(model, bank, "usual", usual[1]) <= before[0] + 0.015
    assert not result.choices["hopeless"].helps
    assert "hopeless: does not help: unadapted kept (of 30 steps)" in str(result)
    row = bank.row("hopeless")
    assert all(torch.equal(table[row], table[0]) for table in bank.tables)


def test_a_row_that_is_kept_is_called_what_it_is():
    """Silence in, so that no words change and no step can help."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    bank = attach(model, nn.ReLU, ["fresh", "adapted"])
    with torch.no_grad():
        bank.tables[0][2, 5] += 0.1
    before = bank.tables[0].detach().clone()
    result = adapt(model, bank, [Batch(torch.zeros(2, 9, 4), ["fresh", "adapted"])], Entropy(), steps=2)
    assert str(result).splitlines() == [
        "fresh: does not help: unadapted kept (of 2 steps)",
        "adapted: does not help: kept as it was (of 2 steps)",
    ]
    assert torch.equal(bank.tables[0], before)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 26))
@pytest.mark.parametrize("objective", [Entropy(), Ctc(), Consistency()], ids=lambda each: type(each).__name__)
def test_no_speaker_loses_much(objective, seed):
    world = World(seed)
    model = trained(world)
    speech = {str(loudness): spoken(world, loudness) for loudness in (1.0, 0.6, 0.45, 0.35)}
    bank = attached(model, *speech)
    before = {name: after(model, bank, name, others) for name, (_, others) in speech.items()}
    adapt(model, bank, [learned.batch(name) for name, (learned, _) in speech.items()], objective, STEPS, every=2)
    now = {name: after(model, bank, name, others) for name, (_, others) in speech.items()}
    # Consistency is judged kindly: the masks of its training are those of its trial.
    assert all(now[name] <= before[name] + 0.05 for name in speech)
    assert sum(now.values()) <= sum(before.values()) + 0.04


def looks(*risks: tuple[float, ...]) -> list[Look]:
    return [Look(step, 0.0, 0.0, each) for step, each in enumerate(risks)]


def test_the_least_risk_is_taken_and_of_equals_the_earliest():
    assert best_step(looks((4.0, 4.0), (3.0, 3.0), (2.0, 2.0), (2.0, 2.0), (3.0, 3.0))) == 2


def test_a_gain_within_its_noise_is_none():
    # Gains of +3 and -2.9: their sum is far below its standard error.
    assert best_step(looks((4.0, 4.0), (1.0, 6.9))) == 0
    assert best_step(looks((4.0, 4.0), (4.0, 4.0))) == 0
    assert best_step(looks((4.0,), (3.0,))) == 1


def test_a_look_weighs_what_it_saw():
    look = Look.of(3, unstable=[2.0, 1.0], unlike=[4.0, 0.0], words=10)
    assert look == Look(3, 0.3, 0.4, (3.0, 1.0))
    assert look.risk == 4.0
    assert Look.of(0, [0.0], [0.0], words=0).unstable == 0.0
