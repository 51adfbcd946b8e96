"""Amplitudes of speakers: the equation by hand, files, the mean of others, and foreign networks."""

from collections.abc import Sequence

import pytest
import torch
from random_speakers import PDFS, WIDTH, logits_of, r_of, random_dnn, random_frames

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.identity import hash_like
from lhuc_asr.nnet.dnn import Dnn


@pytest.fixture
def model() -> Dnn:
    return random_dnn()


def test_saved_and_loaded_the_speakers_score_the_same_bits(model, tmp_path):
    method, spliced = (
        Lhuc(LhucConfig(preset="paper")),
        torch.randn(9, 3 * WIDTH, generator=torch.Generator().manual_seed(1)),
    )
    adapted = method.estimate(model, {"ann": random_frames(0), "bob": random_frames(1)}, seed=0)
    adapted.save(tmp_path)
    loaded = load_speakers(model, tmp_path)
    plain = model(spliced)
    for name in ("ann", "bob"):
        scores = []
        for speakers in (adapted, loaded):
            with speakers.applied(name):
                scores.append(model.log_likelihoods(spliced))
        assert torch.equal(*scores)
        assert not torch.equal(scores[0], model.log_likelihoods(spliced))
    assert torch.equal(model(spliced), plain)


def test_a_file_of_amplitudes_that_overflow_is_refused_by_the_speakers_name(model, tmp_path):
    """The first recording was blamed, or all of them."""
    adapted = Lhuc(LhucConfig(preset="paper")).estimate(model, {"ann": random_frames(0), "bob": random_frames(1)}, 0)
    with torch.no_grad():
        adapted.bank.tables[0][2, 1] = 100.0
    adapted.save(tmp_path)
    with pytest.raises(
        SpeakerError, match=r"speaker 'bob': r at site 'hidden\.0\.activation' .* beyond 1e\+06: its est"
    ):
        load_speakers(model, tmp_path)


def test_applied_is_the_equations(model):
    adapted = Lhuc(LhucConfig(preset="paper")).estimate(model, {"ann": random_frames(0)}, seed=0)
    spliced = torch.randn(9, 3 * WIDTH, generator=torch.Generator().manual_seed(1))
    with adapted.applied("ann"):
        scores = model(spliced).double()
    expected = logits_of(model, spliced.double(), [torch.exp(r.double()) for r in r_of(adapted, "ann")])
    assert torch.allclose(scores, expected, atol=1e-4)


def test_unknown_speakers_and_foreign_files_are_refused(model, tmp_path):
    method = Lhuc(LhucConfig(preset="paper"))
    adapted = method.estimate(model, {"ann": random_frames(0)}, seed=0)
    other = Dnn(model.config, WIDTH, PDFS).eval()
    with pytest.raises(SpeakerError, match="'bob' is not in the bank"), adapted.applied("bob"):
        pass
    assert not adapted.bank.attached
    adapted.save(tmp_path)
    with pytest.raises(ModelMismatchError):
        load_speakers(other, tmp_path)
    (tmp_path / "ann.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        load_speakers(model, tmp_path)


def test_the_network_is_hashed_once_however_many_speakers_are_loaded(model, tmp_path, monkeypatch):
    Lhuc(LhucConfig(preset="paper")).estimate(model, {f"s{n}": random_frames(n) for n in range(3)}, 0).save(tmp_path)
    hashed = []

    def noted(stored: str, network: torch.nn.Module, parts: Sequence[str]) -> str:
        hashed.append(network)
        return hash_like(stored, network, parts)

    monkeypatch.setattr("lhuc_asr.lhuc.identity.hash_like", noted)
    assert load_speakers(model, tmp_path).speakers == ("s0", "s1", "s2")
    assert hashed == [model]


def test_speakers_with_amplitudes_at_different_sites_are_refused(model, tmp_path):
    for name, layers in (("ann", (0,)), ("bob", (1,))):
        adapted = Lhuc(LhucConfig(preset="paper", layers=layers)).estimate(model, {name: random_frames(0)}, seed=0)
        adapted.save_speaker(name, tmp_path / f"{name}.safetensors", {})
    with pytest.raises(ModelMismatchError, match=r"bob\.safetensors: speaker 'bob' has amplitudes at"):
        load_speakers(model, tmp_path)


def test_amplitudes_of_another_kind_of_network_are_refused():
    bank = attach(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), "1", ["ann"])
    bank.detach()
    with pytest.raises(ModelMismatchError, match="belong to a Sequential, expected an acoustic model"):
        Amplitudes(bank).log_likelihoods("ann", [])


def test_pooled_amplitudes_have_the_mean_r_of_the_others(model):
    speakers = {name: random_frames(n) for n, name in enumerate(("ann", "bob", "cat"))}
    adapted = Lhuc(LhucConfig(layers=(1,))).estimate(model, speakers, seed=0)
    control = adapted.pooled(["bob"], ["ann", "cat"])
    mean = (r_of(adapted, "ann")[0] + r_of(adapted, "cat")[0]) / 2
    torch.testing.assert_close(r_of(control, "bob")[0], mean)
    assert float((mean - r_of(adapted, "bob")[0]).abs().max()) > 0.01
    assert control.bank.sites == adapted.bank.sites
