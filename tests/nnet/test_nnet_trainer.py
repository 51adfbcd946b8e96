"""Training: it learns, a killed run ends with the same bits, worse epochs are undone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from corner_training import AVERAGED, BUMPY, CALM, CPU, DECAYING, SHAPE, KilledError, Run, corner_model, same
from watched_frames import watched

from lhuc_asr.base.errors import AlignmentError, CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.companion import Companion
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate, train


def _loaded(weights: dict[str, torch.Tensor]) -> Dnn:
    model = corner_model()
    model.load_state_dict(weights)
    return model


def test_a_separable_problem_is_learned(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    before = evaluate(corner_model(), run.heldout, CPU)
    model = run()
    after = evaluate(model, run.heldout, CPU)
    assert before.loss == pytest.approx(np.log(4), rel=1e-5)
    assert after.accuracy > 0.97
    assert after.loss < 0.15
    assert not model.training


class _Rates(Companion):
    """Notes the share of the first learning rate in each mini-batch."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._share = 0.0

    def set_rate(self, share: float) -> None:
        self._share = share

    def step(self) -> None:
        self.shares.append(self._share)


def test_a_decay_lowers_the_rate_of_each_mini_batch_by_the_same_factor(tmp_path, make_source):
    training, rates = make_source(0, 640), _Rates()
    frames = sum(utterance.frames for utterance in training.utterances)
    train(
        corner_model(), training, make_source(1, 300), DECAYING, tmp_path / "state", 3, CPU, lambda figures: None, rates
    )
    steps = 4 * -(-frames // 32)
    assert len(rates.shares) == steps
    expected = [100.0 ** -(number / steps) for number in range(steps)]
    # The last mini-batch of an epoch is not full.
    np.testing.assert_allclose(rates.shares, expected, rtol=0.05)
    assert rates.shares == sorted(rates.shares, reverse=True)


@pytest.mark.parametrize("config", [BUMPY, CALM, AVERAGED, DECAYING], ids=["bumpy", "calm", "averaged", "decaying"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, make_source, config):
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    whole = Run(tmp_path / "whole", training, heldout, config)
    expected = whole()
    epochs = [figures for figures in whole.epochs if "epoch" in figures]
    if config in (BUMPY, AVERAGED):
        assert {figures["kept"] for figures in epochs} == {True, False}
    if config is AVERAGED:
        assert whole.epochs[-1]["averaged_epochs"] > 1
    for epoch in range(1, len(epochs) + 1):
        run = Run(tmp_path / f"killed-{epoch}", training, heldout, config)
        with pytest.raises(KilledError):
            run(kill_after=epoch)
        # The new process starts from other weights: all that counts must come from the file.
        resumed = run(model=corner_model(seed=99))
        assert same(resumed, expected), f"killed after epoch {epoch}"
        assert run.path.read_bytes() == whole.path.read_bytes()
        timeless = [[{**figures, "seconds": 0} for figures in one.epochs] for one in (run, whole)]
        assert timeless[0] == timeless[1]


def test_a_run_killed_after_every_epoch_ends_with_the_same_bits(tmp_path, make_source):
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    whole = Run(tmp_path / "whole", training, heldout, BUMPY)
    expected = whole()
    run = Run(tmp_path / "killed", training, heldout, BUMPY)
    for epoch in range(1, len(whole.epochs) + 1):
        with pytest.raises(KilledError):
            run(kill_after=epoch)
    assert same(run(), expected)


def test_a_finished_run_trains_no_more(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    expected, epochs = run(), len(run.epochs)
    assert same(run(model=corner_model(seed=99)), expected)
    assert len(run.epochs) == epochs


def test_the_best_average_of_the_last_epochs_is_taken(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0, noise=0.3), make_source(1, 300, noise=0.3), AVERAGED)
    model, kept = corner_model(), [corner_model().state_dict()]
    plain_epoch = run.epochs.append

    class Epochs(list[dict[str, Any]]):
        def append(self, figures: dict[str, Any]) -> None:
            if figures.get("kept"):
                kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            plain_epoch(figures)

    written, run.epochs = run.epochs, Epochs()
    run(model=model)
    losses = {}
    for number in (1, 2, 3):
        mean = {name: sum(one[name].double() for one in kept[-number:]) / number for name in kept[0]}
        oracle = corner_model()
        oracle.load_state_dict(mean)
        losses[number] = evaluate(oracle, run.heldout, CPU).loss
        if number == written[-1]["averaged_epochs"]:
            for name, weights in model.state_dict().items():
                torch.testing.assert_close(weights, oracle.state_dict()[name], rtol=1e-6, atol=1e-7)
    best = min(losses, key=losses.__getitem__)
    assert best > 1
    assert written[-1]["averaged_epochs"] == best
    assert written[-1]["heldout_loss"] == pytest.approx(losses[best], abs=1e-5)


def test_an_average_that_is_worse_than_the_last_epoch_is_not_taken(tmp_path, make_source):
    """While the loss still falls steeply, earlier weights only do harm: the last epoch stays, to the bit."""
    training, heldout = make_source(0), make_source(1, 300)
    schedule = NewbobConfig(learning_rate=0.01, max_epochs=3)
    plain = TrainerConfig(batch_size=32, schedule=schedule)
    expected = Run(tmp_path / "plain", training, heldout, plain)()
    run = Run(tmp_path / "averaged", training, heldout, plain.model_copy(update={"average_epochs": 3}))
    assert same(run(), expected)
    assert run.epochs[-1]["averaged_epochs"] == 1


def test_worse_first_epochs_of_a_network_that_goes_on_are_undone(tmp_path, make_source):
    """Halved until an epoch is better than the network that it started from; momentum does not survive the undoing."""
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    start = Run(tmp_path / "start", training, heldout, CALM)()
    loss = evaluate(start, heldout, CPU).loss
    weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    rough = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.4, max_epochs=8))
    run = Run(tmp_path / "state", training, heldout, rough)
    with pytest.raises(KilledError):
        run(kill_after=1, model=start)
    assert not run.epochs[0]["kept"]
    assert same(start, _loaded(weights))
    assert not any(name.startswith("momentum.") for name in load_tensors(run.path)[0])
    end = run(model=corner_model(seed=99))
    kept = [figures["kept"] for figures in run.epochs]
    first = kept.index(True)
    assert first > 1
    assert [figures["learning_rate"] for figures in run.epochs[: first + 1]] == [0.4 / 2**n for n in range(first + 1)]
    assert run.epochs[first]["heldout_loss"] <= loss
    assert evaluate(end, heldout, CPU).loss <= loss


def test_a_start_whose_loss_is_not_finite_is_an_error(tmp_path, make_source):
    model = corner_model()
    torch.nn.init.constant_(model.output.bias, torch.nan)
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(CheckpointError, match="before the first epoch the held-out loss is nan"):
        run(model=model)


def test_a_worse_epoch_is_undone(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0, noise=0.3), make_source(1, 300, noise=0.3), BUMPY)
    model = run()
    losses = [figures["heldout_loss"] for figures in run.epochs]
    lowest = np.minimum.accumulate(losses)
    assert [figures["kept"] for figures in run.epochs] == [bool(a <= b) for a, b in zip(losses, lowest, strict=True)]
    assert evaluate(model, run.heldout, CPU).loss == pytest.approx(min(losses), abs=1e-5)


def test_seeds_differ_and_torchs_own_generator_is_left_alone(tmp_path, make_source):
    training, heldout = make_source(0), make_source(1, 300)
    model, before = corner_model(), torch.get_rng_state()
    one = Run(tmp_path / "one", training, heldout, CALM)(seed=1, model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(one, Run(tmp_path / "two", training, heldout, CALM)(seed=2))


def test_the_model_that_was_not_killed_does_not_depend_on_torchs_own_generator(tmp_path, make_source):
    training, heldout = make_source(0), make_source(1, 300)
    one = Run(tmp_path / "one", training, heldout, CALM)()
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        two = Run(tmp_path / "two", training, heldout, CALM)()
    assert same(one, two)


def test_an_epoch_of_plain_sgd_is_the_textbooks(tmp_path, make_source):
    """No dropout, momentum by hand, the clipped mean gradient of each mini-batch."""
    training, heldout = make_source(0, 200), make_source(1, 100)
    shape = SHAPE.model_copy(update={"dropout": 0.0})
    config = TrainerConfig(
        batch_size=50,
        momentum=0.9,
        weight_decay=0.01,
        max_gradient_norm=0.5,
        schedule=NewbobConfig(learning_rate=0.3, max_epochs=1),
    )
    oracle, seen = corner_model(shape=shape), []
    velocity = [torch.zeros_like(p) for p in oracle.parameters()]

    source = watched(training, lambda epoch, number, batch: seen.append(batch.of()))
    trained = Run(tmp_path / "state", source, heldout, config)(model=corner_model(shape=shape))
    for features, targets, _ in seen:
        loss = -torch.log_softmax(oracle(features), 1).gather(1, targets.unsqueeze(1)).mean()
        gradients = torch.autograd.grad(loss, list(oracle.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        scale = min(1.0, 0.5 / float(norm))
        with torch.no_grad():
            for parameter, gradient, v in zip(oracle.parameters(), gradients, velocity, strict=True):
                v.mul_(0.9).add_(scale * gradient + 0.01 * parameter)
                parameter.sub_(0.3 * v)
    for parameter, expected in zip(trained.parameters(), oracle.parameters(), strict=True):
        assert torch.allclose(parameter, expected, atol=1e-5)


def test_bfloat16_learns_and_keeps_its_weights_in_float32(tmp_path, make_source):
    config = CALM.model_copy(update={"precision": "bfloat16"})
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), config)
    model = run()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert evaluate(model, run.heldout, CPU).accuracy > 0.97


def test_evaluation_is_the_mean_over_frames_with_targets(make_source):
    source = make_source(0, 90)
    source.targets[10:20] = -1
    model = corner_model()
    torch.nn.init.normal_(model.output.weight, generator=torch.Generator().manual_seed(0))
    features, targets = next(source.in_order(1000))
    log_posteriors = torch.log_softmax(model.eval()(features), 1)
    evaluation = evaluate(model, source, CPU)
    assert len(targets) == 80
    assert evaluation.loss == pytest.approx(
        -float(log_posteriors.gather(1, targets.unsqueeze(1)).mean().detach()), rel=1e-5
    )
    assert evaluation.accuracy == pytest.approx(float((log_posteriors.argmax(1) == targets).float().mean()))


@pytest.mark.parametrize("empty", ["training", "heldout"])
def test_frames_without_targets_are_refused(tmp_path, make_source, empty):
    """A mean over zero frames would look like a loss of zero, the best possible."""
    sources = {"training": make_source(0), "heldout": make_source(1, 300)}
    sources[empty] = replace(sources[empty], targets=np.full_like(sources[empty].targets, -1))
    with pytest.raises(AlignmentError, match="no frame of 3 utterances has a target"):
        Run(tmp_path / "state", sources["training"], sources["heldout"], CALM)()


def test_divergence_is_an_error_and_the_last_good_state_is_kept(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(KilledError):
        run(kill_after=2)
    kept = run.path.read_bytes()
    run.training = replace(run.training, features=np.full_like(run.training.features, np.nan))
    with pytest.raises(CheckpointError, match=r"epoch 3: the loss is nan.*lower trainer\.schedule\.learning_rate"):
        run()
    assert run.path.read_bytes() == kept


def test_the_state_of_another_network_is_refused(tmp_path, make_source):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(KilledError):
        run(kill_after=1)
    wider = corner_model(shape=SHAPE.model_copy(update={"hidden_units": 17}))
    with pytest.raises(CheckpointError, match=r"(?s)state of another network.*delete it to train from the beginning"):
        run(model=wider)


@pytest.mark.parametrize("damage", ["cut", "no schedule"])
def test_a_damaged_state_is_refused(tmp_path, make_source, damage):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(KilledError):
        run(kill_after=1)
    if damage == "cut":
        run.path.write_bytes(run.path.read_bytes()[:-1])
    else:
        save_tensors(run.path, load_tensors(run.path)[0], {})
    with pytest.raises(CheckpointError, match=r"state: .*; delete it"):
        run()


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", "two"), ("epochs", -1), ("epochs", 2**40), ("learning_rate", 1e308), ("best_loss", "NaN"), ("x", 1)],
)
def test_a_schedule_with_other_values_is_refused(tmp_path, make_source, key, value):
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(KilledError):
        run(kill_after=1)
    tensors, description = load_tensors(run.path)
    save_tensors(run.path, tensors, {"newbob": description["newbob"] | {key: value}})
    with pytest.raises(CheckpointError, match=rf"state: .*newbob.{key}.*; delete it to train from the beginning"):
        run()


@pytest.mark.parametrize("name", ["model.output.bias", "momentum.output.bias", "earlier.0.model.output.bias"])
@pytest.mark.parametrize("damage", ["shape", "nan", "int", "foreign"])
def test_tensors_that_are_not_the_networks_are_refused_in_one_line(tmp_path, make_source, name, damage):
    """Momentum of another shape failed inside torch; NaN trained on."""
    run = Run(tmp_path / "state", make_source(0), make_source(1, 300), AVERAGED)
    with pytest.raises(KilledError):
        run(kill_after=1)
    tensors, description = load_tensors(run.path)
    tensors = {key: value.clone() for key, value in tensors.items()}
    changes = {
        "shape": {name: torch.zeros(3, 3)},
        "nan": {name: torch.full_like(tensors[name], torch.nan)},
        "int": {name: torch.zeros_like(tensors[name], dtype=torch.int32)},
        "foreign": {f"{name}.other": torch.zeros(2)},
    }
    save_tensors(run.path, tensors | changes[damage], description)
    with pytest.raises(CheckpointError, match=r"^[^\n]*state of another network: .*; delete it to train") as caught:
        run()
    assert "\n" not in str(caught.value)
