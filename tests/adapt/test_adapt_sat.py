"""SAT-LHUC: exact shares of row 0, the joint step by hand, killed runs, gains by construction."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sat_training import AVERAGED, BUMPY, CALM, CPU, SEED, KilledError, sat_model, sat_source, tables_of, train_sat
from watched_frames import watched

from lhuc_asr.adapt.sat import SatConfig, assign_rows, fold_row_zero
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.loader import MiniBatch
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate

SWITCHINGS = ("frame", "segment", "speaker")

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
    source = FrameSource(np.zeros((sum(lengths), 1), np.float32), targets, utterances, Context.both(0))
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
    source, rows = sat_source(0, speakers, each=20), {name: n for n, name in enumerate(speakers, start=1)}
    config = SatConfig(switching=switching)
    drawn = np.stack([assign_rows(source, rows, config, np.random.default_rng(n)) == 0 for n in range(300)])
    share = drawn[:, source.targets >= 0].mean(axis=0)
    # 0.5 within four standard deviations, sqrt(0.25 / 300) each.
    assert share.min() > 0.38
    assert share.max() < 0.62


def test_the_switching_does_not_depend_on_the_numbers_of_the_rows():
    source = sat_source(0)
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
    """Equations 4 to 9 in float64: the clipped mean gradient, momentum for the network, none for the rows.

    Rows that take part are drawn to row 0.
    """
    seen: list[tuple[torch.Tensor, ...]] = []

    source = watched(sat_source(0), lambda epoch, number, batch: seen.append((*batch.of(), torch.tensor(epoch))))
    config = SatConfig(amplitude=xi, optimizer="sgd", learning_rate=0.5, weight_decay=0.2)
    # Halved after the second epoch, whose improvement is below 99 %.
    schedule = NewbobConfig(learning_rate=0.02, halve_below=0.99, stop_below=0.0, max_epochs=3)
    trainer = TrainerConfig(batch_size=32, max_gradient_norm=0.3, schedule=schedule)
    figures: list[dict[str, Any]] = []
    bank = train_sat(tmp_path / "state", config, trainer, source, epochs=figures)
    assert [(f["learning_rate"], f["kept"]) for f in figures] == [(0.02, True), (0.02, True), (0.01, True)]

    oracle = sat_model().double()
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
                present = torch.from_numpy(np.unique(m)).long()
                pull = 0.2 * (table[present] - table[0])
                table.sub_(0.5 * share * gradient.index_add(0, present, pull))
    for parameter, expected in zip(bank.model.parameters(), network, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-5)
    for table, expected in zip(tables_of(bank), tables, strict=True):
        assert torch.allclose(table.double(), expected, atol=1e-5)
        assert float((expected[0].detach() - start).abs().max()) > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_speaker_whose_frames_all_take_row_zero_does_not_move(tmp_path, optimizer):
    config = SatConfig(switching="speaker", optimizer=optimizer, learning_rate=0.01)
    schedule = NewbobConfig(learning_rate=0.02, max_epochs=1)
    bank = train_sat(tmp_path / "state", config, CALM.model_copy(update={"schedule": schedule}))
    assigned = assign_rows(
        sat_source(0), {"ann": 1, "bob": 2, "cat": 3}, config, np.random.default_rng(SEED * 1_000_003)
    )
    present = set(assigned[sat_source(0).targets >= 0].tolist())
    assert 0 in present
    assert 0 < len(present - {0}) < 3
    for table in tables_of(bank):
        assert {row for row in range(4) if not torch.equal(table[row], torch.zeros(16))} == present


@pytest.mark.parametrize(
    ("optimizer", "trainer"),
    [("sgd", CALM), ("adam", BUMPY), ("adam", AVERAGED)],
    ids=["sgd", "adam-bumpy", "adam-averaged"],
)
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, optimizer, trainer):
    config = SatConfig(optimizer=optimizer, learning_rate=0.01)
    figures: list[dict[str, Any]] = []
    whole = train_sat(tmp_path / "whole", config, trainer, epochs=figures)
    if trainer is not CALM:
        assert {f["kept"] for f in figures if "epoch" in f} == {True, False}
    if trainer is AVERAGED:
        assert figures[-1]["averaged_epochs"] > 1
    for epoch in range(1, sum("epoch" in f for f in figures) + 1):
        path = tmp_path / f"killed-{epoch}"
        with pytest.raises(KilledError):
            train_sat(path, config, trainer, kill_after=epoch)
        resumed = train_sat(path, config, trainer, model=sat_model(seed=99))
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()
        assert all(map(torch.equal, tables_of(resumed), tables_of(whole)))
        assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


@pytest.mark.parametrize("switching", SWITCHINGS)
def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(tmp_path, monkeypatch, switching):
    monkeypatch.setattr("lhuc_asr.nnet.frames.BLOCK_FRAMES", 100)
    monkeypatch.setattr("lhuc_asr.nnet.epoch_place.SECONDS", -1.0)
    config = SatConfig(optimizer="adam", learning_rate=0.01, switching=switching)

    def kill(epoch: int, number: int, batch: MiniBatch) -> None:
        if (epoch, number) == (1, 6):
            raise KilledError

    whole = train_sat(tmp_path / "whole", config)
    with pytest.raises(KilledError):
        train_sat(tmp_path / "killed", config, training=watched(sat_source(0), kill))
    assert (tmp_path / "killed-within").exists()
    read: list[int] = []
    rest = watched(sat_source(0), lambda epoch, number, batch: read.append(epoch))
    resumed = train_sat(tmp_path / "killed", config, training=rest, model=sat_model(seed=99))
    assert 0 < read.count(0) < read.count(1)
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert all(map(torch.equal, tables_of(resumed), tables_of(whole)))


def test_a_worse_first_epoch_leaves_the_rows_neutral_and_their_averages_empty(tmp_path):
    """A network that goes on from another: after the first, undone epoch the file is that of an untouched start."""
    brief = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.02, max_epochs=1))
    start = train_sat(tmp_path / "start", SatConfig(), brief).model
    weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    rough = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=0.8, max_epochs=8))
    figures: list[dict[str, Any]] = []
    with pytest.raises(KilledError):
        train_sat(tmp_path / "state", SatConfig(), rough, model=start, epochs=figures, kill_after=1)
    assert not figures[0]["kept"]
    tensors, _ = load_tensors(tmp_path / "state")
    rows = {name for name in tensors if name.startswith("companion.")}
    assert rows == {f"companion.r.hidden.{layer}.activation" for layer in (0, 1)}
    assert not any(tensors[name].any() for name in rows)
    assert all(torch.equal(tensors[f"model.{name}"], value) for name, value in weights.items())
    train_sat(tmp_path / "state", SatConfig(), rough, model=sat_model(seed=99), epochs=figures)
    assert any(f["kept"] for f in figures)


def test_row_zero_can_have_a_rate_of_its_own(tmp_path):
    """One mini-batch: row 0 steps ten times as far as it would with the speakers' rate, the speakers' rows as far."""
    one_step = TrainerConfig(batch_size=1000, schedule=NewbobConfig(learning_rate=0.02, max_epochs=1))
    for optimizer in ("sgd", "adam"):
        config = SatConfig(optimizer=optimizer, learning_rate=0.001)
        own = config.model_copy(update={"row_zero_learning_rate": 0.01})
        plain, faster = [], []
        for each, tables in ((config, plain), (own, faster)):
            model = sat_model()
            # A new network's output weights are zero, and pass no gradient to the rows.
            torch.nn.init.normal_(model.output.weight, generator=torch.Generator().manual_seed(0))
            path = tmp_path / f"{optimizer}-{each.row_zero_learning_rate}"
            tables += tables_of(train_sat(path, each, one_step, model=model))
        # One mini-batch from neutral rows, so that no gradient depends on an earlier step.
        for one, other in zip(plain, faster, strict=True):
            assert one[0].abs().max() > 0
            torch.testing.assert_close(other[0], 10 * one[0])
            assert torch.equal(other[1:], one[1:])


@pytest.mark.parametrize("switching", SWITCHINGS)
def test_the_speakers_names_change_nothing(tmp_path, switching):
    config = SatConfig(switching=switching, learning_rate=0.01)
    new = {"ann": "zoe", "bob": "amy", "cat": "bob"}
    source = sat_source(0)
    renamed = replace(source, utterances=[replace(u, speaker=new[u.speaker]) for u in source.utterances])
    one = train_sat(tmp_path / "one", config, training=source)
    two = train_sat(tmp_path / "two", config, training=renamed)
    assert all(map(torch.equal, one.model.parameters(), two.model.parameters()))
    for old, name in new.items():
        ours, theirs = one.state(old).r, two.state(name).r
        assert all(torch.equal(ours[site], theirs[site]) for site in ours)


def test_speakers_without_a_target_have_no_row(tmp_path):
    source = sat_source(0)
    targets = source.targets.copy()
    targets[100:200] = -1
    bank = train_sat(tmp_path / "state", SatConfig(), training=replace(source, targets=targets))
    assert bank.speakers == ("ann", "cat")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_learn_what_speakers_differ_in(tmp_path, precision):
    """Each axis is noise for one of them; the speaker's own row turns it down, the other's row turns it up."""
    trainer = TrainerConfig(
        batch_size=32, precision=precision, schedule=NewbobConfig(learning_rate=0.05, max_epochs=10, stop_below=0)
    )
    bank = train_sat(tmp_path / "state", SatConfig(learning_rate=0.05), trainer, sat_source(0, each=600))
    model, folded = fold_row_zero(bank)
    assert all(parameter.dtype == torch.float32 for parameter in [*model.parameters(), *folded.parameters()])
    unseen = sat_source(2, each=600)
    folded.attach()
    for name, other in (("ann", "bob"), ("bob", "ann")):
        own = replace(unseen, utterances=[u for u in unseen.utterances if u.speaker == name])
        losses = {}
        for row in (name, "", other):
            with folded.speaker(row):
                losses[row] = evaluate(model, own, CPU).loss
        assert losses[name] < 0.95 * losses[""] < 0.95 * losses[other]


@pytest.mark.parametrize(
    ("device", "precision", "tolerance"),
    [
        ("cpu", "bfloat16", 0.05),
        pytest.param("cuda", "float32", 0.002, marks=pytest.mark.gpu),
        pytest.param("cuda", "bfloat16", 0.05, marks=pytest.mark.gpu),
    ],
)
def test_devices_and_precisions_agree(tmp_path, device, precision, tolerance):
    """The rows of 16-bit products, and of a GPU, differ from the CPU's by a small fraction of what was learned."""
    config = SatConfig(optimizer="sgd", learning_rate=0.5)
    trainer = CALM.model_copy(update={"precision": precision, "average_epochs": 2})
    expected = train_sat(tmp_path / "cpu", config, CALM.model_copy(update={"average_epochs": 2}))
    found = train_sat(tmp_path / "other", config, trainer, device=torch.device(device))
    for one, other in zip(tables_of(expected), tables_of(found), strict=True):
        assert other.dtype == torch.float32
        assert float((other.cpu() - one).norm()) < tolerance * float(one.norm())


# Errors


def test_divergence_is_an_error_and_the_last_good_state_is_kept(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        train_sat(path, SatConfig(), kill_after=2)
    kept = path.read_bytes()
    broken = replace(sat_source(0), features=np.full((300, 2), np.nan, np.float32))
    with pytest.raises(
        CheckpointError, match=r"training diverged; lower .*learning_rate, or learning_rate of the rows"
    ):
        train_sat(path, SatConfig(), training=broken)
    assert path.read_bytes() == kept


def test_the_state_of_other_speakers_or_of_a_network_alone_is_refused(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        train_sat(path, SatConfig(), kill_after=1)
    fewer = sat_source(0)
    fewer = replace(fewer, utterances=fewer.utterances[:4])
    with pytest.raises(CheckpointError, match=r"(?s)state of another network.*expected \(3, 16\).*delete it"):
        train_sat(path, SatConfig(), training=fewer)
    tensors, description = load_tensors(path)
    alone = {name: tensor for name, tensor in tensors.items() if not name.startswith("companion.")}
    averages = [name for name in tensors if name.startswith("companion.") and not name.startswith("companion.r.")]
    assert averages
    narrow = {name: torch.zeros(1) for name in averages[:1]}
    endless = {name: torch.full_like(tensors[name], torch.inf) for name in averages[:1]}
    foreign = {averages[0].replace("companion.", "companion.x"): tensors[averages[0]]}
    for changed in (alone, tensors | narrow, tensors | endless, tensors | foreign):
        save_tensors(path, {name: tensor.clone() for name, tensor in changed.items()}, description)
        with pytest.raises(CheckpointError, match="state of another network"):
            train_sat(path, SatConfig())


@pytest.mark.parametrize("gamma", [0.0, 1.0, math.nan])
def test_both_row_zero_and_speakers_get_frames(gamma):
    with pytest.raises(ValidationError):
        SatConfig(gamma=gamma)
