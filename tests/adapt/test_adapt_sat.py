"""SAT-LHUC: exact shares, the joint step by hand, killed runs, the folded network, gains by construction."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.sat import SatConfig, assign_rows, fold_row_zero, train_speaker_adaptive
from lhuc_asr.adapt.targets import FrameTargets, SpeakerData
from lhuc_asr.base.errors import CheckpointError, FoldError, ModelMismatchError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.context import splice
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate

PDFS, SEED = 4, 3
CPU = torch.device("cpu")
SHAPE = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.0, context=1)
CALM = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.02, max_epochs=4))
# A rate so high that some epochs make the held-out loss worse.
BUMPY = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.3, stop_below=0.0, max_epochs=6))
SWITCHINGS = ("frame", "segment", "speaker")
CORNERS = np.array([[2, 2], [-2, 2], [-2, -2], [2, -2]], np.float32)
# Noise along both axes: ann's frames say little along the second one, bob's along the first.
NOISE = {"ann": (0.5, 3.0), "bob": (3.0, 0.5), "cat": (0.5, 0.5)}


def _source(seed: int, speakers: dict[str, tuple[float, float]] = NOISE, each: int = 100) -> FrameSource:
    """Two utterances a speaker, frames around their pdf's corner of a square, each speaker with noise of his own."""
    generator = np.random.default_rng(seed)
    targets = np.repeat(generator.integers(PDFS, size=len(speakers) * each // 10), 10).astype(np.int32)
    noise = np.repeat(np.array(list(speakers.values())), each, axis=0)
    features = (CORNERS[targets] + noise * generator.standard_normal(noise.shape)).astype(np.float32)
    targets[generator.random(len(targets)) < 0.1] = -1
    utterances = []
    for number, speaker in enumerate(speakers):
        first, cut = number * each, each // 3
        utterances.append(StoredUtterance(f"{speaker}1", speaker, first, cut))
        utterances.append(StoredUtterance(f"{speaker}2", speaker, first + cut, each - cut))
    return FrameSource(features, targets, utterances, SHAPE.context)


def _model(seed: int = 0) -> Dnn:
    model = Dnn(SHAPE, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


class _KilledError(Exception):
    """What stands for a killed process."""


def _train(
    path: Path,
    config: SatConfig,
    trainer: TrainerConfig = CALM,
    training: FrameSource | None = None,
    kill_after: int | None = None,
    model: Dnn | None = None,
    epochs: list[dict[str, Any]] | None = None,
) -> SpeakerBank:
    def on_epoch(figures: dict[str, Any]) -> None:
        if epochs is not None:
            epochs.append(figures)
        if figures["epoch"] == kill_after:
            raise _KilledError

    training = _source(0) if training is None else training
    model = _model() if model is None else model
    return train_speaker_adaptive(model, training, _source(1), config, trainer, path, SEED, CPU, on_epoch)


def _tables(bank: SpeakerBank) -> list[torch.Tensor]:
    return [table.detach() for table in bank.tables]


# Switching


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    gamma=st.floats(0.01, 0.99),
    switching=st.sampled_from(SWITCHINGS),
    seed=st.integers(0, 99),
)
def test_the_share_of_row_zero_is_exact(lengths, gamma, switching, seed):
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    utterances = [
        StoredUtterance(str(n), f"s{n // 2}", first, length)
        for n, (first, length) in enumerate(zip(firsts, lengths, strict=True))
    ]
    generator = np.random.default_rng(seed)
    targets = np.where(generator.random(sum(lengths)) < 0.2, -1, 0).astype(np.int32)
    source = FrameSource(np.zeros((sum(lengths), 1), np.float32), targets, utterances, 0)
    groups: dict[str, list[int]] = {}
    for utterance in utterances:
        frames = [row for row in range(sum(lengths))[utterance.rows] if targets[row] >= 0]
        name = utterance.speaker if switching == "speaker" else utterance.id
        if frames:
            groups.setdefault(name, []).extend(frames)
    rows = {f"s{n}": n + 1 for n in range(len(lengths))}
    config = SatConfig(gamma=gamma, switching=switching)
    assigned = assign_rows(source, rows, config, generator)

    wanted = gamma * int((targets >= 0).sum())
    chosen = int((assigned[targets >= 0] == 0).sum())
    if switching == "frame":
        assert abs(chosen - wanted) <= 0.5 + 1e-9
        for frames in groups.values():
            assert abs(int((assigned[frames] == 0).sum()) - gamma * len(frames)) < 1 + 1e-9
    else:
        assert all(len(set((assigned[frames] == 0).tolist())) == 1 for frames in groups.values())
        assert abs(chosen - wanted) <= max(map(len, groups.values()), default=0) / 2 + 1e-9
    for utterance in utterances:
        used = set(assigned[utterance.rows][targets[utterance.rows] >= 0].tolist())
        assert used <= {0, rows[utterance.speaker]}


@pytest.mark.parametrize("switching", SWITCHINGS)
def test_over_many_epochs_every_frame_is_switched_alike(switching):
    speakers = {f"s{n}": (1.0, 1.0) for n in range(30)}
    source, rows = _source(0, speakers, each=20), {name: n for n, name in enumerate(speakers, start=1)}
    config = SatConfig(switching=switching)
    drawn = np.stack([assign_rows(source, rows, config, np.random.default_rng(n)) == 0 for n in range(300)])
    share = drawn[:, source.targets >= 0].mean(axis=0)
    # 0.5 within four standard deviations, sqrt(0.25 / 300) each.
    assert share.min() > 0.38
    assert share.max() < 0.62


def test_the_switching_does_not_depend_on_the_numbers_of_the_rows():
    source = _source(0)
    for switching in SWITCHINGS:
        config = SatConfig(switching=switching)
        ours, theirs = (
            assign_rows(source, rows, config, np.random.default_rng(5))
            for rows in ({"ann": 1, "bob": 2, "cat": 3}, {"ann": 3, "bob": 1, "cat": 2})
        )
        assert np.array_equal(np.array([0, 3, 1, 2])[ours], theirs)


# Training


@pytest.mark.parametrize("xi", ["exp", "identity"])
def test_joint_training_is_the_textbooks(tmp_path, xi):
    """Equations 4 to 9 in float64: the clipped mean gradient, momentum for the network, none for the rows."""
    seen: list[tuple[torch.Tensor, ...]] = []

    class Recording(FrameSource):
        def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, ...]]:
            for batch in super().shuffled(batch_size, generator):
                seen.append((*batch, torch.tensor(epoch[0])))
                yield batch
            epoch[0] += 1

    epoch = [0]
    plain = _source(0)
    source = Recording(plain.features, plain.targets, plain.utterances, plain.context)
    config = SatConfig(amplitude=xi, optimizer="sgd", learning_rate=0.5)
    # Halved after the second epoch, whose improvement is below 99 %.
    schedule = NewbobConfig(learning_rate=0.02, halve_below=0.99, stop_below=0.0, max_epochs=3)
    trainer = TrainerConfig(batch_size=32, max_gradient_norm=0.3, schedule=schedule)
    figures: list[dict[str, Any]] = []
    bank = _train(tmp_path / "state", config, trainer, source, epochs=figures)
    assert [(f["learning_rate"], f["kept"]) for f in figures] == [(0.02, True), (0.02, True), (0.01, True)]

    oracle = _model().double()
    network = list(oracle.parameters())
    start = 0.0 if xi == "exp" else 1.0
    tables = [torch.full((4, 16), start, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    velocity = [torch.zeros_like(p) for p in network]
    rows = {"ann": 1, "bob": 2, "cat": 3}
    for features, targets, frames, number in seen:
        m = assign_rows(source, rows, config, np.random.default_rng(SEED * 1_000_003 + int(number)))[frames.numpy()]
        hidden = features.double()
        for layer, table in zip(oracle.hidden, tables, strict=True):
            amplitude = table[torch.from_numpy(m).long()]
            amplitude = amplitude.exp() if xi == "exp" else amplitude
            hidden = amplitude * torch.relu(hidden @ layer.linear.weight.T + layer.linear.bias)
        log_posteriors = torch.log_softmax(hidden @ oracle.output.weight.T + oracle.output.bias, 1)
        loss = -log_posteriors.gather(1, targets.unsqueeze(1)).mean()
        gradients = torch.autograd.grad(loss, [*network, *tables])
        norm = torch.cat([gradient.flatten() for gradient in gradients[: len(network)]]).norm()
        share = 0.5 if int(number) == 2 else 1.0
        with torch.no_grad():
            for parameter, gradient, v in zip(network, gradients, velocity, strict=False):
                v.mul_(0.9).add_(min(1.0, 0.3 / float(norm)) * gradient)
                parameter.sub_(0.02 * share * v)
            for table, gradient in zip(tables, gradients[len(network) :], strict=True):
                table.sub_(0.5 * share * gradient)
    for parameter, expected in zip(bank.model.parameters(), network, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-5)
    for found, expected in zip(_tables(bank), tables, strict=True):
        assert torch.allclose(found.double(), expected, atol=1e-5)
        assert float((expected[0].detach() - start).abs().max()) > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_speaker_whose_frames_all_take_row_zero_does_not_move(tmp_path, optimizer):
    config = SatConfig(switching="speaker", optimizer=optimizer, learning_rate=0.01)
    schedule = NewbobConfig(learning_rate=0.02, max_epochs=1)
    bank = _train(tmp_path / "state", config, CALM.model_copy(update={"schedule": schedule}))
    assigned = assign_rows(_source(0), {"ann": 1, "bob": 2, "cat": 3}, config, np.random.default_rng(SEED * 1_000_003))
    present = set(assigned[_source(0).targets >= 0].tolist())
    assert 0 in present
    assert 0 < len(present - {0}) < 3
    for table in _tables(bank):
        assert {row for row in range(4) if not torch.equal(table[row], torch.zeros(16))} == present


@pytest.mark.parametrize(("optimizer", "trainer"), [("sgd", CALM), ("adam", BUMPY)], ids=["sgd", "adam-bumpy"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, optimizer, trainer):
    config = SatConfig(optimizer=optimizer, learning_rate=0.01)
    figures: list[dict[str, Any]] = []
    whole = _train(tmp_path / "whole", config, trainer, epochs=figures)
    if trainer is BUMPY:
        assert {f["kept"] for f in figures} == {True, False}
    for epoch in range(1, len(figures) + 1):
        path = tmp_path / f"killed-{epoch}"
        with pytest.raises(_KilledError):
            _train(path, config, trainer, kill_after=epoch)
        resumed = _train(path, config, trainer, model=_model(seed=99))
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()
        assert all(map(torch.equal, _tables(resumed), _tables(whole)))
        assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


@pytest.mark.parametrize("switching", SWITCHINGS)
def test_the_speakers_names_change_nothing(tmp_path, switching):
    config = SatConfig(switching=switching, learning_rate=0.01)
    new = {"ann": "zoe", "bob": "amy", "cat": "bob"}
    source = _source(0)
    renamed = replace(source, utterances=[replace(u, speaker=new[u.speaker]) for u in source.utterances])
    one = _train(tmp_path / "one", config, training=source)
    two = _train(tmp_path / "two", config, training=renamed)
    assert all(map(torch.equal, one.model.parameters(), two.model.parameters()))
    for old, name in new.items():
        ours, theirs = one.state(old).r, two.state(name).r
        assert all(torch.equal(ours[site], theirs[site]) for site in ours)


def test_speakers_without_a_target_have_no_row(tmp_path):
    source = _source(0)
    targets = source.targets.copy()
    targets[100:200] = -1
    bank = _train(tmp_path / "state", SatConfig(), training=replace(source, targets=targets))
    assert bank.speakers == ("ann", "cat")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_learn_what_speakers_differ_in(tmp_path, precision):
    """Each axis is noise for one of them; a row of his own turns it down, the other's row turns it up."""
    trainer = TrainerConfig(
        batch_size=32, precision=precision, schedule=NewbobConfig(learning_rate=0.05, max_epochs=10, stop_below=0)
    )
    bank = _train(tmp_path / "state", SatConfig(learning_rate=0.05), trainer, _source(0, each=600))
    model, folded = fold_row_zero(bank)
    assert all(parameter.dtype == torch.float32 for parameter in [*model.parameters(), *folded.parameters()])
    unseen = _source(2, each=600)
    folded.attach()
    for name, other in (("ann", "bob"), ("bob", "ann")):
        own = replace(unseen, utterances=[u for u in unseen.utterances if u.speaker == name])
        losses = {}
        for row in (name, "", other):
            with folded.speaker(row):
                losses[row] = evaluate(model, own, CPU).loss
        assert losses[name] < 0.95 * losses[""] < 0.95 * losses[other]


# The folded network


@pytest.mark.parametrize("xi", ["exp", "identity"])
def test_the_folded_network_computes_what_was_trained(tmp_path, xi):
    figures: list[dict[str, Any]] = []
    bank = _train(tmp_path / "state", SatConfig(amplitude=xi, learning_rate=0.02), epochs=figures)
    model, folded = fold_row_zero(bank)
    spliced = next(_source(2).in_order(100))[0]
    bank.attach()
    joint = {name: _logits(bank, name, spliced) for name in ("", "ann", "bob", "cat")}
    # Outside any context: row 0, as in the evaluation that steers newbob.
    assert torch.equal(bank.model(spliced), joint[""])
    bank.detach()
    assert not torch.allclose(bank.model(spliced), joint[""], atol=1e-3)
    assert torch.allclose(model(spliced), joint[""], atol=1e-5)
    folded.attach()
    assert torch.equal(_logits(folded, "", spliced), model(spliced))
    for name, expected in joint.items():
        assert torch.allclose(_logits(folded, name, spliced), expected, atol=1e-5)
    assert not torch.allclose(joint["ann"], joint["bob"], atol=1e-2)
    best = min(f["heldout_loss"] for f in figures)
    folded.detach()
    assert evaluate(model, _source(1), CPU).loss == pytest.approx(best, abs=2e-5)


def _logits(bank: SpeakerBank, speaker: str, spliced: torch.Tensor) -> torch.Tensor:
    with bank.speaker(speaker), torch.no_grad():
        logits: torch.Tensor = bank.model(spliced)
    return logits


def test_a_new_speaker_on_the_folded_network_starts_at_row_zero(tmp_path):
    """Adapting the folded network from neutral is adapting the trained one from row 0: r = r_0 + r'."""
    bank = _train(tmp_path / "state", SatConfig(learning_rate=0.02))
    model, _ = fold_row_zero(bank)
    source = _source(4, {"new": (3.0, 0.5)}, 60)
    pdfs = np.maximum(source.targets, 0)
    frames = SpeakerData(source.features, (60,), FrameTargets.certain(pdfs, np.ones(60, np.float32)))
    adapted = (
        Lhuc(LhucConfig(optimizer="sgd", learning_rate=0.8, batch_size=60, sweeps=3))
        .estimate(model, {"new": frames}, 1)
        .bank
    )

    bank.add(["new"])
    bank.attach()
    optimizer = bank.optimizer("sgd", lr=0.8)
    for _ in range(3):
        with bank.speaker("new"):
            logits = bank.model(splice(torch.from_numpy(source.features), 1))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(pdfs).long()).backward()
        optimizer.step()
    for ours, theirs in zip(_tables(bank), _tables(adapted), strict=True):
        assert torch.allclose(ours[-1], ours[0] + theirs[1], atol=1e-5)
        assert float(theirs[1].abs().max()) > 0.01


def test_the_training_speakers_files_belong_to_the_folded_network(tmp_path):
    bank = _train(tmp_path / "state", SatConfig(learning_rate=0.02))
    model, folded = fold_row_zero(bank)
    save_model(tmp_path / "model.safetensors", model)
    folded.save(tmp_path / "speakers")
    read = SpeakerBank.load(tmp_path / "speakers", load_model(tmp_path / "model.safetensors"))
    assert read.speakers == ("ann", "bob", "cat")
    assert all(map(torch.equal, _tables(read), _tables(folded)))
    with pytest.raises(ModelMismatchError):
        SpeakerBank.load(tmp_path / "speakers", bank.model)


def test_what_cannot_be_divided_is_refused():
    squashed = attach(_model().eval(), "hidden.*.activation", ["ann"], amplitude="2sigmoid")
    with pytest.raises(FoldError, match="'2sigmoid' cannot be divided by row 0's; train with exp or identity"):
        fold_row_zero(squashed)
    silent = attach(_model().eval(), "hidden.*.activation", ["ann"], amplitude="identity")
    with torch.no_grad():
        silent.tables[1][0, 5] = 0.0
    with pytest.raises(FoldError, match=r"site 'hidden\.1\.activation': row 0 has an amplitude of 0"):
        fold_row_zero(silent)
    broken = attach(_model().eval(), "hidden.*.activation", ["ann"])
    with torch.no_grad():
        broken.tables[0][1, 5] = math.nan
    with pytest.raises(FoldError, match=r"site 'hidden\.0\.activation': .* a row is not finite"):
        fold_row_zero(broken)


# Errors


def test_divergence_is_told_and_the_last_good_state_kept(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(_KilledError):
        _train(path, SatConfig(), kill_after=2)
    kept = path.read_bytes()
    broken = replace(_source(0), features=np.full((300, 2), np.nan, np.float32))
    with pytest.raises(
        CheckpointError, match=r"training diverged, lower .*learning_rate, or learning_rate of the rows"
    ):
        _train(path, SatConfig(), training=broken)
    assert path.read_bytes() == kept


def test_the_state_of_other_speakers_or_of_a_network_alone_is_refused(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(_KilledError):
        _train(path, SatConfig(), kill_after=1)
    fewer = _source(0)
    fewer = replace(fewer, utterances=fewer.utterances[:4])
    with pytest.raises(CheckpointError, match=r"(?s)state of another network.*expected \(3, 16\).*delete it"):
        _train(path, SatConfig(), training=fewer)
    tensors, description = load_tensors(path)
    alone = {name: tensor for name, tensor in tensors.items() if not name.startswith("companion.")}
    save_tensors(path, alone, description)
    with pytest.raises(CheckpointError, match="state of another network"):
        _train(path, SatConfig())


@pytest.mark.parametrize("gamma", [0.0, 1.0, math.nan])
def test_both_row_zero_and_speakers_get_frames(gamma):
    with pytest.raises(ValidationError):
        SatConfig(gamma=gamma)
