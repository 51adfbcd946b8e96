"""Training: it learns, a killed run ends with the same bits, worse epochs are undone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corner_frames import PDFS
from watched_frames import watched

from lhuc_asr.base.errors import AlignmentError, CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.companion import Companion
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.loader import MiniBatch
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate, train

CPU = torch.device("cpu")
SHAPE = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.2, context=1)
# A rate so high that some epochs make the held-out loss worse.
BUMPY = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.5, stop_below=0.0, max_epochs=6))
CALM = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.05, max_epochs=6))
AVERAGED = TrainerConfig(
    batch_size=32, average_epochs=3, schedule=NewbobConfig(learning_rate=0.15, stop_below=0.0, max_epochs=6)
)

DECAYING = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.2, decay_to=0.002, max_epochs=4))


def _model(seed: int = 0, shape: DnnConfig = SHAPE) -> Dnn:
    model = Dnn(shape, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


class _KilledError(Exception):
    """Raised in place of a killed process."""


class _Run:
    """One call of ``train``, which a chosen epoch may kill."""

    def __init__(self, path: Path, training: FrameSource, heldout: FrameSource, config: TrainerConfig) -> None:
        self.path, self.training, self.heldout, self.config = path, training, heldout, config
        self.epochs: list[dict[str, Any]] = []

    def __call__(self, kill_after: int | None = None, seed: int = 3, model: Dnn | None = None) -> Dnn:
        def on_epoch(figures: dict[str, Any]) -> None:
            self.epochs.append(figures)
            if kill_after is not None and figures.get("epoch") == kill_after:
                raise _KilledError

        model = _model() if model is None else model
        return train(model, self.training, self.heldout, self.config, self.path, seed, CPU, on_epoch)


def _loaded(weights: dict[str, torch.Tensor]) -> Dnn:
    model = _model()
    model.load_state_dict(weights)
    return model


def _same(one: Dnn, other: Dnn) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_separable_problem_is_learned(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    before = evaluate(_model(), run.heldout, CPU)
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
    train(_model(), training, make_source(1, 300), DECAYING, tmp_path / "state", 3, CPU, lambda figures: None, rates)
    steps = 4 * -(-frames // 32)
    assert len(rates.shares) == steps
    expected = [100.0 ** -(number / steps) for number in range(steps)]
    # The last mini-batch of an epoch is not full.
    np.testing.assert_allclose(rates.shares, expected, rtol=0.05)
    assert rates.shares == sorted(rates.shares, reverse=True)


@pytest.mark.parametrize("config", [BUMPY, CALM, AVERAGED, DECAYING], ids=["bumpy", "calm", "averaged", "decaying"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, make_source, config):
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    whole = _Run(tmp_path / "whole", training, heldout, config)
    expected = whole()
    epochs = [figures for figures in whole.epochs if "epoch" in figures]
    if config in (BUMPY, AVERAGED):
        assert {figures["kept"] for figures in epochs} == {True, False}
    if config is AVERAGED:
        assert whole.epochs[-1]["averaged_epochs"] > 1
    for epoch in range(1, len(epochs) + 1):
        run = _Run(tmp_path / f"killed-{epoch}", training, heldout, config)
        with pytest.raises(_KilledError):
            run(kill_after=epoch)
        # The new process starts from other weights: all that counts must come from the file.
        resumed = run(model=_model(seed=99))
        assert _same(resumed, expected), f"killed after epoch {epoch}"
        assert run.path.read_bytes() == whole.path.read_bytes()
        timeless = [[{**figures, "seconds": 0} for figures in one.epochs] for one in (run, whole)]
        assert timeless[0] == timeless[1]


def test_a_run_killed_after_every_epoch_ends_with_the_same_bits(tmp_path, make_source):
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    whole = _Run(tmp_path / "whole", training, heldout, BUMPY)
    expected = whole()
    run = _Run(tmp_path / "killed", training, heldout, BUMPY)
    for epoch in range(1, len(whole.epochs) + 1):
        with pytest.raises(_KilledError):
            run(kill_after=epoch)
    assert _same(run(), expected)


@pytest.fixture
def every_block(monkeypatch):
    """Blocks of a hundred frames, and a state after each."""
    monkeypatch.setattr("lhuc_asr.nnet.frames.BLOCK_FRAMES", 100)
    monkeypatch.setattr("lhuc_asr.nnet.epoch_place.SECONDS", -1.0)


def _killed_at(source: FrameSource, where: tuple[int, int]) -> FrameSource:
    """Kills the process at a mini-batch of an epoch."""

    def kill(epoch: int, number: int, batch: MiniBatch) -> None:
        if (epoch, number) == where:
            raise _KilledError

    return watched(source, kill)


# Blocks of 200, 300 and 100 frames are 7, 10 and 4 mini-batches, in another order in each epoch. When the eleventh has
# been taken, a block is done.
@pytest.mark.parametrize("config", [CALM, DECAYING, AVERAGED], ids=["calm", "decaying", "averaged"])
@pytest.mark.parametrize("where", [(0, 1), (1, 11), (2, 20)], ids=str)
def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(tmp_path, make_source, every_block, where, config):
    training, heldout = make_source(0), make_source(1, 300)
    whole = _Run(tmp_path / "whole", training, heldout, config)
    expected = whole()
    killed = _Run(tmp_path / "killed", _killed_at(training, where), heldout, config)
    with pytest.raises(_KilledError):
        killed()
    assert (tmp_path / "killed-within").exists() == (where != (0, 1))
    read: list[tuple[int, int]] = []
    rest = watched(training, lambda epoch, number, batch: read.append((epoch, number)))
    resumed = _Run(tmp_path / "killed", rest, heldout, config)
    assert _same(resumed(model=_model(seed=99)), expected)
    losses = [[figures["train_loss"] for figures in run.epochs if "epoch" in figures] for run in (resumed, whole)]
    assert losses[0] == losses[1][where[0] :]
    steps = sum(1 for _ in training.shuffled(32, torch.Generator()))
    in_the_first = sum(1 for epoch, _ in read if epoch == 0)
    assert in_the_first == steps if where == (0, 1) else in_the_first < steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_a_state_within_an_epoch_that_has_ended_is_not_gone_on_from(tmp_path, make_source, every_block):
    """A run was killed between the two steps at the end of an epoch: its state was written, the other not deleted."""
    training, heldout = make_source(0), make_source(1, 300)
    expected = _Run(tmp_path / "whole", training, heldout, CALM)()
    with pytest.raises(_KilledError):
        _Run(tmp_path / "killed", _killed_at(training, (1, 11)), heldout, CALM)()
    left = (tmp_path / "killed-within").read_bytes()
    with pytest.raises(_KilledError):
        _Run(tmp_path / "killed", training, heldout, CALM)(kill_after=2)
    (tmp_path / "killed-within").write_bytes(left)
    assert _same(_Run(tmp_path / "killed", training, heldout, CALM)(), expected)


@pytest.mark.parametrize("fault", ["damaged", "place", "generator", "dropout", "other frames"])
def test_a_state_within_an_epoch_that_does_not_fit_is_refused(tmp_path, make_source, every_block, fault):
    training, heldout = make_source(0), make_source(1, 300)
    with pytest.raises(_KilledError):
        _Run(tmp_path / "state", _killed_at(training, (1, 11)), heldout, CALM)()
    path = tmp_path / "state-within"
    tensors, description = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    elif fault == "other frames":
        training = replace(training, utterances=training.utterances[:1])
    else:
        names = {"place": "batches.place", "generator": "batches.generator", "dropout": "random.0.dropout.0"}
        name = f"place.{names[fault]}"
        tensors[name] = tensors[name][:1]
        save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match="delete it to train from the beginning of the epoch"):
        _Run(tmp_path / "state", training, heldout, CALM)()


def test_a_finished_run_trains_no_more(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    expected, epochs = run(), len(run.epochs)
    assert _same(run(model=_model(seed=99)), expected)
    assert len(run.epochs) == epochs


def test_the_best_average_of_the_last_epochs_is_taken(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0, noise=0.3), make_source(1, 300, noise=0.3), AVERAGED)
    model, kept = _model(), [_model().state_dict()]
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
        oracle = _model()
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
    expected = _Run(tmp_path / "plain", training, heldout, plain)()
    run = _Run(tmp_path / "averaged", training, heldout, plain.model_copy(update={"average_epochs": 3}))
    assert _same(run(), expected)
    assert run.epochs[-1]["averaged_epochs"] == 1


def test_worse_first_epochs_of_a_network_that_goes_on_are_undone(tmp_path, make_source):
    """Halved until an epoch is better than the network that it started from; momentum does not survive the undoing."""
    training, heldout = make_source(0, noise=0.3), make_source(1, 300, noise=0.3)
    start = _Run(tmp_path / "start", training, heldout, CALM)()
    loss = evaluate(start, heldout, CPU).loss
    weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    rough = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.4, max_epochs=8))
    run = _Run(tmp_path / "state", training, heldout, rough)
    with pytest.raises(_KilledError):
        run(kill_after=1, model=start)
    assert not run.epochs[0]["kept"]
    assert _same(start, _loaded(weights))
    assert not any(name.startswith("momentum.") for name in load_tensors(run.path)[0])
    end = run(model=_model(seed=99))
    kept = [figures["kept"] for figures in run.epochs]
    first = kept.index(True)
    assert first > 1
    assert [figures["learning_rate"] for figures in run.epochs[: first + 1]] == [0.4 / 2**n for n in range(first + 1)]
    assert run.epochs[first]["heldout_loss"] <= loss
    assert evaluate(end, heldout, CPU).loss <= loss


def test_a_start_whose_loss_is_not_finite_is_an_error(tmp_path, make_source):
    model = _model()
    torch.nn.init.constant_(model.output.bias, torch.nan)
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(CheckpointError, match="before the first epoch the held-out loss is nan"):
        run(model=model)


def test_a_worse_epoch_is_undone(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0, noise=0.3), make_source(1, 300, noise=0.3), BUMPY)
    model = run()
    losses = [figures["heldout_loss"] for figures in run.epochs]
    lowest = np.minimum.accumulate(losses)
    assert [figures["kept"] for figures in run.epochs] == [bool(a <= b) for a, b in zip(losses, lowest, strict=True)]
    assert evaluate(model, run.heldout, CPU).loss == pytest.approx(min(losses), abs=1e-5)


def test_seeds_differ_and_torchs_own_generator_is_left_alone(tmp_path, make_source):
    training, heldout = make_source(0), make_source(1, 300)
    model, before = _model(), torch.get_rng_state()
    one = _Run(tmp_path / "one", training, heldout, CALM)(seed=1, model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not _same(one, _Run(tmp_path / "two", training, heldout, CALM)(seed=2))


def test_the_model_that_was_not_killed_does_not_depend_on_torchs_own_generator(tmp_path, make_source):
    training, heldout = make_source(0), make_source(1, 300)
    one = _Run(tmp_path / "one", training, heldout, CALM)()
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        two = _Run(tmp_path / "two", training, heldout, CALM)()
    assert _same(one, two)


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
    oracle, seen = _model(shape=shape), []
    velocity = [torch.zeros_like(p) for p in oracle.parameters()]

    source = watched(training, lambda epoch, number, batch: seen.append(batch.of()))
    trained = _Run(tmp_path / "state", source, heldout, config)(model=_model(shape=shape))
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
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), config)
    model = run()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert evaluate(model, run.heldout, CPU).accuracy > 0.97


def test_evaluation_is_the_mean_over_frames_with_targets(make_source):
    source = make_source(0, 90)
    source.targets[10:20] = -1
    model = _model()
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
        _Run(tmp_path / "state", sources["training"], sources["heldout"], CALM)()


def test_divergence_is_an_error_and_the_last_good_state_is_kept(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(_KilledError):
        run(kill_after=2)
    kept = run.path.read_bytes()
    run.training = replace(run.training, features=np.full_like(run.training.features, np.nan))
    with pytest.raises(CheckpointError, match=r"epoch 3: the loss is nan.*lower trainer\.schedule\.learning_rate"):
        run()
    assert run.path.read_bytes() == kept


def test_the_state_of_another_network_is_refused(tmp_path, make_source):
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(_KilledError):
        run(kill_after=1)
    wider = _model(shape=SHAPE.model_copy(update={"hidden_units": 17}))
    with pytest.raises(CheckpointError, match=r"(?s)state of another network.*delete it to train from the beginning"):
        run(model=wider)


@pytest.mark.parametrize("damage", ["cut", "no schedule"])
def test_a_damaged_state_is_refused(tmp_path, make_source, damage):
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(_KilledError):
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
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), CALM)
    with pytest.raises(_KilledError):
        run(kill_after=1)
    tensors, description = load_tensors(run.path)
    save_tensors(run.path, tensors, {"newbob": description["newbob"] | {key: value}})
    with pytest.raises(CheckpointError, match=rf"state: .*newbob.{key}.*; delete it to train from the beginning"):
        run()


@pytest.mark.parametrize("name", ["model.output.bias", "momentum.output.bias", "earlier.0.model.output.bias"])
@pytest.mark.parametrize("damage", ["shape", "nan", "int", "foreign"])
def test_tensors_that_are_not_the_networks_are_refused_in_one_line(tmp_path, make_source, name, damage):
    """Momentum of another shape failed inside torch; NaN trained on."""
    run = _Run(tmp_path / "state", make_source(0), make_source(1, 300), AVERAGED)
    with pytest.raises(_KilledError):
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
