"""Incremental adaptation: parameters that go on from recording to recording, and from nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_speakers import r_of, random_dnn, random_frames

from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
from lhuc_asr.adapt.amplitudes import new_bank
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.incremental import IncrementalMethod, estimate_in_order
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.moments import LARGEST_AMPLITUDE, Moments, MomentsConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets, TargetsConfig
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.base.errors import ConfigError, SpeakerError
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.nnet.dnn import Dnn

LENGTHS = (40, 25, 60)
TAU = 30.0


@pytest.fixture
def model() -> Dnn:
    return random_dnn()


def moments(model: Dnn, folder: Path, **options) -> Moments:
    method = Moments(MomentsConfig(prior_frames=TAU, layers=(0,), **options), folder)
    method.prepare(model, {f"t{n}": random_frames(70 + n, (50, 60)) for n in range(3)}, seed=0)
    return method


def pieces(seed: int) -> list[SpeakerData]:
    return [random_frames(seed + n, (length,)) for n, length in enumerate(LENGTHS)]


def joined(parts: list[SpeakerData]) -> SpeakerData:
    return SpeakerData.of([(part.features, part.targets) for part in parts], [], None)


def chained(people: dict[str, list[SpeakerData]]) -> tuple[dict[str, SpeakerData], dict[str, str]]:
    """The names of each person's recordings, what is new under each, and the name that each goes on from."""
    heard, after = {}, {}
    for name, parts in people.items():
        heard[f"{name}.1"] = random_frames(0, ())
        for number, part in enumerate(parts, start=2):
            heard[f"{name}.{number}"] = part
            after[f"{name}.{number}"] = f"{name}.{number - 1}"
    return heard, after


@pytest.mark.parametrize("kind", ["lhuc", "moments"])
def test_a_name_has_what_a_person_alone_has_after_as_many_recordings(model, tmp_path, kind):
    """Three persons in step, the names of each in a chain, against one row that goes on in place."""
    method = Lhuc(LhucConfig(batch_size=16)) if kind == "lhuc" else moments(model, tmp_path)
    people = {name: pieces(10 * n) for n, name in enumerate("abc", start=1)}
    together = estimate_in_order(method, model, *chained(people), seed=3)
    for name, parts in people.items():
        alone = method.begin(model, ["me"])
        for number, part in enumerate(parts, start=2):
            alone.go_on({"me": part}, {"me": "me"}, 3)
            for ours, theirs in zip(r_of(together, f"{name}.{number}"), r_of(alone.speakers, "me"), strict=True):
                assert float(ours.abs().max()) > 1e-3
                torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
        assert not any(bool(r.any()) for r in r_of(together, f"{name}.1"))


def test_lhuc_goes_on_by_a_descent_over_the_new_recording_alone(model):
    config, (first, second, _) = LhucConfig(batch_size=16, prior_deviation=0.5), pieces(4)
    increments = Lhuc(config).begin(model, ["a", "b"])
    increments.go_on({"a": first}, {"a": "a"}, 1)
    increments.go_on({"b": second}, {"b": "a"}, 1)
    bank = new_bank(model, ["me"])
    Descent(config).adapt(bank, model, {"me": first}, 1)
    after_one = [table.detach()[1].clone() for table in bank.tables]
    Descent(config).adapt(bank, model, {"me": second}, 1)
    assert all(map(torch.equal, r_of(increments.speakers, "a"), after_one))
    assert all(map(torch.equal, r_of(increments.speakers, "b"), (table.detach()[1] for table in bank.tables)))
    assert not all(map(torch.equal, r_of(increments.speakers, "b"), after_one))


def test_two_may_go_on_from_one_whatever_its_own_row_does_meanwhile(model, tmp_path):
    """The name itself among those that go on from it, first: the others start where it was."""
    first, second, third = pieces(8)
    for method in (Lhuc(LhucConfig()), moments(model, tmp_path)):
        together, apart = method.begin(model, ["a", "b"]), method.begin(model, ["a", "b"])
        for each in (together, apart):
            each.go_on({"a": first}, {"a": "a"}, 1)
        together.go_on({"a": second, "b": third}, {"a": "a", "b": "a"}, 1)
        apart.go_on({"b": third}, {"b": "a"}, 1)
        for ours, theirs in zip(r_of(together.speakers, "b"), r_of(apart.speakers, "b"), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_moments_of_recordings_one_after_the_other_are_those_of_all_at_once(model, tmp_path):
    """In the lowest layer, whose activations do not depend on amplitudes."""
    method, parts = moments(model, tmp_path), pieces(20)
    increments = method.begin(model, ["me"])
    for part in parts:
        increments.go_on({"me": part}, {"me": "me"}, 0)
    (ours,), (theirs,) = (
        r_of(each, "me") for each in (increments.speakers, method.estimate(model, {"me": joined(parts)}, 0))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_what_was_heard_counts_half_after_the_half_life(model, tmp_path):
    """The equation by hand: fast sums with the means of slow sums as their prior."""
    half_life = 0.5
    method, parts = moments(model, tmp_path, half_life=half_life), pieces(30)
    increments = method.begin(model, ["me"])
    for part in parts:
        increments.go_on({"me": part}, {"me": "me"}, 0)
    prepared = method._read(model)
    mean, expected_of = prepared["mean.0"].double().numpy(), prepared["expected.0"].double().numpy()
    sums = []
    for part in parts:
        hidden = torch.sigmoid(model.hidden[0].linear(model.splicing.utterance(torch.from_numpy(part.features))))
        weight = part.targets.weight.astype(np.float64)
        expected = weight @ expected_of[part.targets.pdf[:, 0]]
        sums.append((weight.sum(), expected, weight @ hidden.detach().double().numpy()))
    fast = [np.zeros_like(mean), np.zeros_like(mean)]
    for frames, expected, observed in sums:
        kept = 0.5 ** (frames * 0.01 / half_life)
        fast = [kept * fast[0] + expected, kept * fast[1] + observed]
    heard = sum(frames for frames, _, _ in sums)
    slow = [(sum(each[place] for each in sums) + TAU * mean) / (heard + TAU) for place in (1, 2)]
    ratio = (fast[0] + TAU * slow[0]) / (fast[1] + TAU * slow[1])
    expected_xi = np.clip(ratio, 1 / LARGEST_AMPLITUDE, LARGEST_AMPLITUDE)
    (r,) = r_of(increments.speakers, "me")
    np.testing.assert_allclose(np.exp(r.numpy()), expected_xi, rtol=1e-5)
    assert np.abs(expected_xi - 1).max() > 0.02


def test_a_short_half_life_forgets_another_voice_and_a_long_one_does_not(model, tmp_path):
    """After ten recordings of one person, one of another: its own amplitudes are nearer to the fast ones."""
    others, own = [random_frames(40 + n, (50,), weight=1.0) for n in range(10)], random_frames(60, (200,), weight=1.0)
    loud = [replace(part, features=3.0 * part.features) for part in others]
    distance = {}
    for half_life in (0.2, None):
        method = moments(model, tmp_path / str(half_life), half_life=half_life)
        alone = r_of(method.estimate(model, {"me": own}, 0), "me")[0]
        increments = method.begin(model, ["me"])
        for part in [*loud, own]:
            increments.go_on({"me": part}, {"me": "me"}, 0)
        distance[half_life] = float((r_of(increments.speakers, "me")[0] - alone).norm())
    assert distance[0.2] < 0.5 * distance[None]


def test_a_recording_that_is_not_finite_leaves_moments_where_they_were(model, tmp_path, caplog):
    method, (first, second, third) = moments(model, tmp_path), pieces(50)
    broken = replace(second, features=np.full_like(second.features, np.nan))
    with_fault, without = method.begin(model, ["me"]), method.begin(model, ["me"])
    for part in (first, broken, third):
        with_fault.go_on({"me": part}, {"me": "me"}, 0)
    for part in (first, third):
        without.go_on({"me": part}, {"me": "me"}, 0)
    assert all(map(torch.equal, r_of(with_fault.speakers, "me"), r_of(without.speakers, "me")))
    assert "their activations are not finite" in caplog.text


def test_an_unknown_name_is_an_error(model):
    increments = Lhuc(LhucConfig()).begin(model, ["me"])
    with pytest.raises(SpeakerError, match="you"):
        increments.go_on({"me": pieces(1)[0]}, {"me": "you"}, 0)


@pytest.mark.parametrize("after", [{"b": "nobody"}, {"a": "b", "b": "a"}])
def test_a_chain_without_a_beginning_is_an_error(model, after):
    heard = dict(zip("ab", pieces(1), strict=False))
    with pytest.raises(SpeakerError, match="which no chain of names leads to"):
        estimate_in_order(Lhuc(LhucConfig()), model, heard, after, seed=0)


def test_the_loop_gives_each_utterance_what_the_ones_before_it_taught(model):
    """``TwoPass.adapt`` with the incremental sets of a table, and a method that cannot go on."""
    utterances, rows = [], []
    for speaker in "ab":
        for number, length in enumerate(LENGTHS):
            utterances.append(StoredUtterance(f"{speaker}{number}", speaker, sum(map(len, rows)), length))
            rows.append(random_frames(ord(speaker) + number, (length,), weight=1.0).features)
    table = FeatureTable(tuple(utterances), np.concatenate(rows))
    loop = TwoPass(model, table, np.array([0]))
    sets = adaptation_sets(table, {u.id: "" for u in utterances}, DataConfig(mode="incremental"), seed=0)
    first_pass = FixedWords({u.id: np.full(u.frames, 1 + u.first % 3, np.int32) for u in utterances})
    adapted = loop.adapt(Lhuc(LhucConfig()), first_pass, TargetsConfig(), sets, seed=5)
    assert set(adapted.speakers) == {f"{speaker}.{number}" for speaker in "ab" for number in (1, 2, 3)}
    increments = Lhuc(LhucConfig()).begin(model, ["me"])
    for number, length in enumerate(LENGTHS[:2], start=2):
        targets = FrameTargets.certain(first_pass.pdfs[f"a{number - 2}"], np.ones(length, np.float32))
        part = SpeakerData(table[f"a{number - 2}"], (length,), targets)
        increments.go_on({"me": part}, {"me": "me"}, 5)
        for ours, theirs in zip(r_of(adapted, f"a.{number}"), r_of(increments.speakers, "me"), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    with pytest.raises(ConfigError, match="Fdlr: its parameters do not go on"):
        loop.adapt(FdlrConfig().make(None), first_pass, TargetsConfig(), sets, seed=5)


class FixedWords:
    """A first pass that found these pdfs."""

    def __init__(self, pdfs: dict[str, np.ndarray]) -> None:
        self.pdfs = pdfs

    def best_paths(self) -> dict[str, np.ndarray]:
        return self.pdfs


def test_methods_that_say_that_they_go_on_do(tmp_path):
    for kind, options in METHODS.items():
        config = options.model_construct(kind=kind)
        assert config.goes_on == (kind in {"lhuc", "moments"})
    assert isinstance(Lhuc(LhucConfig()), IncrementalMethod)
    assert isinstance(Moments(MomentsConfig(), tmp_path), IncrementalMethod)
