"""Sequence training: the start is known, it learns, a step is the textbook's, a killed run ends with the same bits."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corner_frames import PDFS
from reference_lattices import paths_of, pdfs_of
from segment_lattices import SEGMENT, segment_source

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, LatticeError
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.sequence_source import SequenceBatch, SequenceSource
from lhuc_asr.nnet.sequence_trainer import SequenceConfig, evaluate_sequences, train_sequences

CPU = torch.device("cpu")
SHAPE = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.2, context=1)
SCALE = 0.3
RATE = 0.002


def _config(**options: Any) -> SequenceConfig:
    return SequenceConfig.model_validate({"learning_rate": RATE, "batch_frames": 100, "epochs": 3} | options)


def _model(seed: int = 0, shape: DnnConfig = SHAPE) -> Dnn:
    model = Dnn(shape, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def _same(one: Dnn, other: Dnn) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class _KilledError(Exception):
    """Raised in place of a killed process."""


class _Run:
    """One call of ``train_sequences``, which a chosen epoch may kill."""

    def __init__(self, folder: Path, config: SequenceConfig, **sources: SequenceSource) -> None:
        self.training = sources.get("training") or segment_source(folder / "training", 0)
        self.heldout = sources.get("heldout") or segment_source(folder / "heldout", 1, 5)
        self.path, self.config = folder / "state", config
        self.epochs: list[dict[str, Any]] = []

    def __call__(self, kill_after: int | None = None, model: Dnn | None = None, seed: int = 3) -> Dnn:
        def on_epoch(figures: dict[str, Any]) -> None:
            self.epochs.append(figures)
            if figures["epoch"] == kill_after:
                raise _KilledError

        model = _model() if model is None else model
        return train_sequences(model, self.training, self.heldout, self.config, SCALE, self.path, seed, CPU, on_epoch)


@pytest.mark.parametrize("objective", ["smbr", "mmi"])
def test_before_training_all_paths_are_equally_probable(tmp_path, objective):
    """A quarter of the frames is right; a segment costs log 4."""
    evaluation = evaluate_sequences(_model(), segment_source(tmp_path, 0), _config(objective=objective), SCALE, CPU)
    assert evaluation.accuracy == pytest.approx(1 / PDFS)
    assert evaluation.loss == pytest.approx(1 - 1 / PDFS if objective == "smbr" else math.log(PDFS) / SEGMENT)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "smbr", "frame_smoothing": 0.0},
        {"objective": "smbr"},
        {"objective": "mmi", "frame_smoothing": 0.0},
        {"objective": "mmi", "boost": 0.5},
        {"objective": "smbr", "dropout": True},
    ],
    ids=str,
)
def test_a_known_answer_is_learned(tmp_path, options):
    run = _Run(tmp_path, _config(**options))
    model = run()
    evaluation = evaluate_sequences(model, run.heldout, run.config, SCALE, CPU)
    assert evaluation.accuracy > 0.97
    assert evaluation.accuracy == pytest.approx(run.epochs[-1]["heldout_accuracy"], abs=1e-5)
    losses = [figures["heldout_loss"] for figures in run.epochs]
    assert losses == sorted(losses, reverse=True)
    assert [figures["learning_rate"] for figures in run.epochs] == [RATE, RATE / 2, RATE / 4]
    assert not model.training


def test_the_given_scale_is_used_where_the_options_have_none(tmp_path):
    source, model = segment_source(tmp_path, 0), _model()
    torch.nn.init.normal_(model.output.weight, generator=torch.Generator().manual_seed(0))
    own, other = (evaluate_sequences(model, source, _config(acoustic_scale=s), 0.7, CPU) for s in (None, 0.1))
    assert own == evaluate_sequences(model, source, _config(acoustic_scale=0.7), 0.1, CPU)
    assert own.loss != pytest.approx(other.loss, rel=1e-3)


def test_a_boost_is_for_training_alone(tmp_path):
    source, plain, boosted = segment_source(tmp_path, 0), _config(objective="mmi"), _config(objective="mmi", boost=2.0)
    losses = [evaluate_sequences(_model(), source, config, SCALE, CPU).loss for config in (plain, boosted)]
    assert losses[0] == losses[1] == pytest.approx(math.log(PDFS) / SEGMENT)


@pytest.mark.parametrize("objective", ["smbr", "mmi"])
@pytest.mark.parametrize("limit", [1e9, 0.02], ids=["free", "clipped"])
def test_an_epoch_is_the_textbooks_over_all_paths(tmp_path, objective, limit):
    """By autograd over paths one by one; the rate is for each frame, of a gradient that is a sum over frames."""
    seen: list[SequenceBatch] = []

    class Recording(SequenceSource):
        def batch(self, utterances: Sequence[StoredUtterance]) -> SequenceBatch:
            seen.append(super().batch(utterances))
            return seen[-1]

    source = segment_source(tmp_path / "few", 0, 3, range(3))
    source.frames.targets[[3, 31]] = -1
    recording = Recording(source.frames, source.lattices, source.classes, 0, 0)
    rate = RATE / 2
    boost = 0.2 if objective == "mmi" else 0.0
    options = {"objective": objective, "boost": boost, "learning_rate": rate, "max_gradient_norm": limit}
    config = _config(epochs=1, batch_frames=75, **options)
    shape = SHAPE.model_copy(update={"dropout": 0.0})
    prior = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    oracle, model = _model(shape=shape), _model(shape=shape)
    for network in (oracle, model):
        network.log_prior.copy_(prior)
    run = _Run(tmp_path, config, training=recording)
    trained = run(model=model)
    assert run.epochs[0]["kept"]
    oracle.double()
    assert sorted(len(batch.utterances) for batch in seen) == [1, 2]
    for batch in seen:
        logits = oracle(batch.spliced.double())
        log_posteriors = torch.log_softmax(logits, 1)
        scores = SCALE * (log_posteriors - prior)
        known = batch.targets >= 0
        loss = -0.1 * log_posteriors[known, batch.targets[known]].sum()
        for utterance, rows in zip(batch.utterances, batch.rows, strict=True):
            lattice, truth = source.lattices[utterance.id], batch.targets[rows].numpy()
            pdfs = np.array([pdfs_of(lattice, path) for path in paths_of(lattice)])
            weights = scores[rows][np.arange(len(truth)), pdfs].sum(1)
            right = torch.from_numpy((pdfs == truth).sum(1)).double()
            if objective == "smbr":
                loss = loss - torch.softmax(weights, 0) @ right / SCALE
            else:
                # Frames without a path that has the reference's pdf are rejected: their scores are constants.
                shared = (pdfs == truth).any(0)
                held = torch.where(torch.from_numpy(shared)[:, None], scores[rows], scores[rows].detach())
                weights = held[np.arange(len(truth)), pdfs].sum(1)
                numerator = held[np.flatnonzero(shared), truth[shared]].sum()
                loss = loss - (numerator - torch.logsumexp(weights - boost * right, 0)) / SCALE
        gradients = torch.autograd.grad(loss, list(oracle.parameters()))
        norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
        share = min(1.0, limit * len(batch.targets) / norm)
        assert (share < 1.0) == (limit < 1.0)
        with torch.no_grad():
            for parameter, gradient in zip(oracle.parameters(), gradients, strict=True):
                parameter -= rate * share * gradient
    for name, weights in trained.state_dict().items():
        torch.testing.assert_close(weights.double(), oracle.state_dict()[name].double(), rtol=1e-5, atol=1e-6)


BUMPY = {"learning_rate": 0.1, "halving_factor": 0.3, "epochs": 4}


@pytest.mark.parametrize("options", [{}, {"objective": "mmi", "dropout": True}, BUMPY], ids=str)
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, options):
    whole = _Run(tmp_path / "whole", _config(**options))
    expected = whole()
    if options is BUMPY:
        assert {figures["kept"] for figures in whole.epochs} == {True, False}
    for epoch in range(1, whole.config.epochs + 1):
        run = _Run(tmp_path / str(epoch), whole.config, training=whole.training, heldout=whole.heldout)
        (tmp_path / str(epoch)).mkdir(exist_ok=True)
        with pytest.raises(_KilledError):
            run(kill_after=epoch)
        assert _same(run(model=_model(seed=99)), expected)
        assert run.path.read_bytes() == whole.path.read_bytes()
        timeless = [[{**figures, "seconds": 0} for figures in one.epochs] for one in (run, whole)]
        assert timeless[0] == timeless[1]


def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(tmp_path):
    class Killed(SequenceSource):
        made = 0

        def batch(self, utterances: Sequence[StoredUtterance]) -> SequenceBatch:
            type(self).made += 1
            if type(self).made == batches_an_epoch + 3:
                raise _KilledError
            return super().batch(utterances)

    whole = _Run(tmp_path / "whole", _config())
    expected, source = whole(), whole.training
    batches_an_epoch = len(source.groups(whole.config.batch_frames))
    assert batches_an_epoch > 2
    dying = Killed(source.frames, source.lattices, source.classes, 0, 0)
    (tmp_path / "killed").mkdir()
    with pytest.raises(_KilledError):
        _Run(tmp_path / "killed", whole.config, training=dying, heldout=whole.heldout)()
    run = _Run(tmp_path / "killed", whole.config, training=source, heldout=whole.heldout)
    assert _same(run(), expected)
    assert run.path.read_bytes() == whole.path.read_bytes()


def test_threads_change_no_bit(tmp_path, monkeypatch):
    one = _Run(tmp_path / "one", _config())
    expected = one()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    (tmp_path / "three").mkdir()
    three = _Run(tmp_path / "three", one.config, training=one.training, heldout=one.heldout)
    assert _same(three(), expected)
    assert three.path.read_bytes() == one.path.read_bytes()


def test_seeds_differ_and_torchs_own_generator_is_left_alone(tmp_path):
    run, model, before = _Run(tmp_path, _config()), _model(), torch.get_rng_state()
    one = run(seed=1, model=model)
    assert torch.equal(torch.get_rng_state(), before)
    run.path.unlink()
    assert not _same(one, run(seed=2))


def test_dropout_is_off_by_default(tmp_path):
    run = _Run(tmp_path, _config())
    with_dropout = run()
    run.path.unlink()
    assert _same(with_dropout, run(model=_model(shape=SHAPE.model_copy(update={"dropout": 0.0}))))
    run.path.unlink()
    run.config = _config(dropout=True)
    assert not _same(with_dropout, run())


def test_batch_normalisation_is_never_in_training_mode(tmp_path):
    """Without a unit to drop out the option changes no bit: mini-batches are normalised as in the search."""
    shape = SHAPE.model_copy(update={"dropout": 0.0, "normalisation": "batch"})
    ends, start = [], _model(shape=shape)
    for dropout in (False, True):
        (tmp_path / str(dropout)).mkdir()
        run = _Run(tmp_path / str(dropout), _config(dropout=dropout, epochs=2))
        ends.append(run(model=_model(shape=shape)))
        assert all(figures["kept"] for figures in run.epochs)
    assert _same(*ends)
    for name, tensor in ends[0].state_dict().items():
        settled = name.endswith((".mean", ".variance", "log_prior"))
        assert torch.equal(tensor, start.state_dict()[name]) == settled, name


def test_epochs_that_make_the_heldout_objective_worse_are_undone(tmp_path):
    """A network that has learned the answer is not given up for one that a wrong held-out set would like less."""
    learned = _Run(tmp_path, _config())()
    weights = {name: tensor.clone() for name, tensor in learned.state_dict().items()}
    wrong = segment_source(tmp_path / "wrong", 5)
    wrong.frames.targets[:] = (wrong.frames.targets + 1) % PDFS
    (tmp_path / "undone").mkdir()
    run = _Run(tmp_path / "undone", _config(epochs=2), training=wrong)
    end = run(model=learned)
    assert [figures["kept"] for figures in run.epochs] == [False, False]
    assert all(torch.equal(weights[name], tensor) for name, tensor in end.state_dict().items())


def test_references_that_are_not_in_the_lattices(tmp_path, caplog):
    """No lattice has the last pdf. MMI rejects its frames and learns the others; it says how many."""
    source = segment_source(tmp_path / "three", 0, pdfs=range(PDFS - 1))
    absent = source.frames.targets == PDFS - 1
    assert absent.any()
    run = _Run(tmp_path, _config(objective="mmi", frame_smoothing=0.0), training=source)
    with caplog.at_level(logging.INFO, logger="lhuc_asr.nnet.sequence_trainer"):
        model = run()
    utterances = sum(bool(absent[utterance.rows].any()) for utterance in source.frames.utterances)
    expected = f"{absent.sum()} frames rejected, {utterances} utterances whose reference is not in their lattice"
    assert [record.getMessage() for record in caplog.records] == [expected] * run.config.epochs
    accuracy = evaluate_sequences(model, source, run.config, SCALE, CPU).accuracy
    assert accuracy == pytest.approx(1 - absent.mean(), abs=0.03)


def test_training_that_diverges_is_an_error_and_the_state_stays(tmp_path):
    run = _Run(tmp_path, _config())
    with pytest.raises(_KilledError):
        run(kill_after=1)
    kept = run.path.read_bytes()
    features = np.full_like(run.training.frames.features, np.nan)
    run.training = replace(run.training, frames=replace(run.training.frames, features=features))
    with pytest.raises(
        CheckpointError, match=r"epoch 2: the loss is nan.*lower learning_rate of the sequence training"
    ):
        run()
    assert run.path.read_bytes() == kept


def test_the_state_of_another_network_is_refused(tmp_path):
    run = _Run(tmp_path, _config())
    with pytest.raises(_KilledError):
        run(kill_after=1)
    with pytest.raises(CheckpointError, match=r"state of another network.*delete it to train from the beginning"):
        run(model=_model(shape=SHAPE.model_copy(update={"hidden_units": 17})))


def test_lattices_of_a_network_with_other_pdfs_are_refused(tmp_path):
    model = Dnn(SHAPE, 2, PDFS + 1)
    with pytest.raises(LatticeError, match=r"lattices of 4 pdfs, but the network has 5; make them with the network"):
        _Run(tmp_path, _config())(model=model)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "mpe"},
        {"acoustic_scale": 0.0},
        {"epochs": 0},
        {"boost": -1.0, "objective": "mmi"},
        {"objective": "smbr", "boost": 0.5},
        {"momentum": 0.9},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        parse_config(SequenceConfig, options, "config.yaml")
