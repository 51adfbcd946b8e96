"""Training: it learns, a killed run ends with the bits of one that was not, rows that took no part do not move."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lhuc_asr.base.errors import CheckpointError, ScoreError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.metrics import task_metrics
from lhuc_asr.ppnet.model import RankingNetwork
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, evaluate, make_optimizers, predict, step, train

CPU = torch.device("cpu")
OPTIMIZERS = ["adamw", "row_adam"]


class _KilledError(Exception):
    """What stands for a killed process."""


@pytest.fixture
def split(make_batch) -> Callable[..., Callable[..., Iterator[Batch]]]:
    """Makes a split: batches whose click depends on age and item, and whose like is the opposite."""

    def make(seed: int, batches: int = 6, noise: float = 0.3) -> Callable[..., Iterator[Batch]]:
        def read(epoch: int = 0) -> Iterator[Batch]:
            for number in range(batches):
                batch = make_batch(1000 * seed + number, 64)
                generator = torch.Generator().manual_seed(1000 * seed + number)
                score = batch.numbers["age"] + 2.0 * (batch.ids["item"] % 2) - 1.0
                click = (score + noise * torch.randn(64, generator=generator) > 0).float()
                yield replace(batch, labels=torch.stack([click, 1 - click], 1))

        return read

    return make


class _Run:
    """One call of ``train``, which a chosen epoch may kill."""

    def __init__(self, path: Path, network: RankingNetwork, split: Any, config: RankerTrainerConfig) -> None:
        self.path, self.network, self.config = path, network, config
        self.training, self.validation = split(1), split(2, 3)
        self.epochs: list[dict[str, Any]] = []
        self.calls = 0

    def __call__(self, kill_after: int | None = None) -> RankingNetwork:
        def on_epoch(epochs: Sequence[dict[str, Any]]) -> None:
            self.calls += 1
            self.epochs = list(epochs)
            if len(epochs) == kill_after:
                raise _KilledError

        args = (self.training, self.validation, self.config, self.path, 3, CPU, on_epoch)
        return train(self.network, *args)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_can_be_learned_is_learned(optimizer, make_network, split, tmp_path):
    config = RankerTrainerConfig(epochs=12, patience=12, learning_rate=0.02, embedding_optimizer=optimizer)
    run = _Run(tmp_path / "state", make_network("pepnet"), split, config)
    network = run()
    assert not network.training
    metrics = evaluate(network, split(5)(), CPU)
    assert min(metrics["click"].auc, metrics["like"].auc, metrics["like"].gauc) > 0.95
    assert metrics["click"].examples == 6 * 64
    assert [figures["epoch"] for figures in run.epochs] == list(range(1, 13))


@pytest.mark.parametrize(("kind", "optimizer"), [("ppnet", "row_adam"), ("simple", "adamw")])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(kind, optimizer, make_network, split, tmp_path):
    """With dropout, with users taken for unseen, and where the best epoch is not the last."""
    options = {"dropout": 0.2, "batch_norm": True} if kind == "ppnet" else {}
    config = RankerTrainerConfig(
        epochs=6, patience=2, learning_rate=0.1, embedding_optimizer=optimizer, embedding_l2=1e-4
    )
    whole = _Run(tmp_path / "whole", make_network(kind, **options), split, config)
    expected = whole().state_dict()
    for epoch in range(1, len(whole.epochs) + 1):
        path = tmp_path / f"killed-{epoch}"
        with pytest.raises(_KilledError):
            _Run(path, make_network(kind, **options), split, config)(kill_after=epoch)
        resumed = _Run(path, make_network(kind, seed=7, **options), split, config)
        state = resumed().state_dict()
        assert resumed.calls == 1 + len(whole.epochs) - epoch
        assert [figures["epoch"] for figures in resumed.epochs] == list(range(1, len(whole.epochs) + 1))
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("monitor", ["auc", "gauc", "log_loss"])
def test_it_stops_early_and_gives_the_best_epoch(monitor, make_network, split, tmp_path):
    config = RankerTrainerConfig(epochs=40, patience=2, learning_rate=0.1, monitor=monitor)
    run = _Run(tmp_path / "state", make_network("ppnet", tasks=1), _one_task(split), config)
    network = run()
    figures = [epoch["validation"]["click"][monitor] for epoch in run.epochs]
    turned = [-value if monitor == "log_loss" else value for value in figures]
    best = int(np.argmax(turned))
    assert len(figures) == best + 1 + 2 < 40
    assert [epoch["best"] for epoch in run.epochs][best:] == [True, False, False]
    assert getattr(evaluate(network, run.validation(), CPU)["click"], monitor) == figures[best]


def _one_task(split):
    def make(*args):
        return lambda epoch=0: (replace(batch, labels=batch.labels[:, :1]) for batch in split(*args)())

    return make


@pytest.mark.parametrize("kind", ["ppnet", "simple"])
def test_row_adam_moves_the_rows_of_the_batch_and_no_others(kind, make_network, make_batch):
    network = make_network(kind, scatter=0.3)
    optimizers = make_optimizers(network, RankerTrainerConfig(embedding_l2=0.1))
    step(network, optimizers, make_batch(1, 64))  # gives momentum to all
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network, optimizers, make_batch(2, user=4))
    table = "network.user_embedding.weight" if kind == "simple" else "prior.tables.0"
    moved = (network.state_dict()[table] != before[table]).any(1)
    assert moved.nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l2_shrinks_embeddings(optimizer, make_network, make_batch):
    sizes = {}
    for l2 in (0.0, 1.0):
        network = make_network("ppnet", scatter=0.3)
        optimizers = make_optimizers(network, RankerTrainerConfig(embedding_l2=l2, embedding_optimizer=optimizer))
        for _ in range(20):
            step(network, optimizers, make_batch(1))
        sizes[l2] = network.prior.tables[0].norm()
    assert sizes[1.0] < 0.99 * sizes[0.0]


def test_both_optimizers_take_the_same_first_step(make_network, make_batch):
    """Adam's first step on a row does not know of the others; later ones do, where a row is absent."""
    states = []
    for optimizer in OPTIMIZERS:
        network = make_network("pepnet", scatter=0.3).eval()
        step(network, make_optimizers(network, RankerTrainerConfig(embedding_optimizer=optimizer)), make_batch())
        states.append(network.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], msg=name)


def test_evaluation_is_that_of_the_predictions(make_network, make_batch):
    network, batches = make_network("pepnet", scatter=0.3), [make_batch(seed) for seed in (1, 2)]
    metrics = evaluate(network, batches, CPU)
    probabilities = torch.cat([predict(network, batch, CPU) for batch in batches]).numpy()
    labels, users = (torch.cat(parts).numpy() for parts in zip(*((b.labels, b.users) for b in batches), strict=True))
    assert metrics["like"] == task_metrics(labels[:, 1], probabilities[:, 1], users)


def test_a_last_batch_of_one_example_is_left_out_where_batches_are_normalised(make_network, make_batch, tmp_path):
    def read(epoch=0):
        return iter([make_batch(1), make_batch(2, 1)])

    for options, examples in (({"batch_norm": True}, 16), ({}, 17)):
        epochs = []
        network = make_network("dnn", **options)
        path = tmp_path / f"{examples}"
        train(network, read, read, RankerTrainerConfig(epochs=1), path, 0, CPU, epochs.append)
        assert epochs[0][0]["examples"] == examples


def test_what_goes_wrong_is_told(make_network, make_batch, split, tmp_path):
    def once(kind="dnn", training=None, validation=None, **config):
        network, config, state = make_network(kind), RankerTrainerConfig(epochs=1, **config), tmp_path / "state"
        return train(network, training or split(1), validation or split(2), config, state, 0, CPU, lambda _: None)

    with pytest.raises(ScoreError, match="no examples to train on"):
        once(training=lambda epoch: iter([]))
    with pytest.raises(ScoreError, match="no examples to evaluate on"):
        once(validation=lambda: iter([]))
    alike = replace(make_batch(), labels=torch.ones(16, 2))
    with pytest.raises(ScoreError, match=r"task 'click': the validation labels are all equal .*monitor=log_loss"):
        once(validation=lambda: iter([alike]))
    broken = replace(make_batch(), numbers={"age": torch.full((16,), torch.nan)})
    with pytest.raises(CheckpointError, match=r"epoch 1: the loss is nan: training diverged, lower trainer.learning"):
        once(training=lambda epoch: iter([broken]))
    assert not (tmp_path / "state").exists()
    once()
    with pytest.raises(CheckpointError, match=r"state: the state of a run with another config; delete it"):
        once("ppnet")
    with pytest.raises(CheckpointError, match=r"state: the state of a run with another trainer.embedding_optimizer"):
        once(embedding_optimizer="adamw")
    (tmp_path / "state").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        once()


@pytest.mark.parametrize("embedding_optimizer", ["row_adam", "adamw"])
def test_a_state_that_says_something_else_of_itself_is_refused(make_network, split, tmp_path, embedding_optimizer):
    path = tmp_path / "state"

    def once():
        config = RankerTrainerConfig(epochs=2, embedding_optimizer=embedding_optimizer)
        network = make_network("dnn", batch_norm=True)
        return train(network, split(1), split(2), config, path, 0, CPU, lambda _: None)

    once()
    tensors, description = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    once()  # finished
    progress = description["progress"]
    descriptions = [
        {},
        description | {"identity": []},
        *(description | {"progress": progress | change} for change in ({"epochs": "two"}, {"best": []}, {"x": 1})),
        description | {"progress": progress | {"figures": [1]}},
    ]
    average = next(name for name in tensors if "/" in name and tensors[name].dim() == 2)
    weight = next(name for name in tensors if name.startswith("best.") and tensors[name].dim() == 2)
    changes = [
        {average: torch.zeros(1, 2, 3)},
        {average: torch.full_like(tensors[average], torch.nan)},
        {average.replace("/", "x/"): tensors[average]},
        {average: torch.zeros(5, dtype=torch.int64)},
        {weight: torch.zeros(2)},
        {weight.replace("best.", "model."): torch.full_like(tensors[weight], torch.nan)},
    ]
    for case in (*((tensors, each) for each in descriptions), *((tensors | each, description) for each in changes)):
        save_tensors(path, {name: tensor.clone() for name, tensor in case[0].items()}, case[1])
        with pytest.raises(CheckpointError, match=r"^[^\n]*state: [^\n]*; delete it to train from the start$"):
            once()
