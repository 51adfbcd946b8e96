"""Subspace LHUC: components by eigenvectors, descent by hand, a gain where speakers differ in few directions."""

import pytest
import torch

from lhuc_asr.adapt.lhuc import LearnedLhucConfig, Lhuc
from lhuc_asr.adapt.subspace import SUBSPACE_FILE, Subspace, SubspaceConfig, principal_components
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.context import splice


def test_principal_components_are_the_covariances_eigenvectors():
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, bases = principal_components(rows, 3)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    torch.testing.assert_close(mean, rows.mean(0))
    for number in range(3):
        largest = 3 - number
        torch.testing.assert_close(bases[number].norm(), values[largest].sqrt())
        assert abs(float(bases[number] @ vectors[:, largest])) == pytest.approx(float(values[largest].sqrt()))
    assert principal_components(rows[:3], 10)[1].shape == (2, 4)


def test_the_code_zero_is_the_speakers_mean_or_the_unadapted_network(small, speaker_of, tmp_path):
    plain = LearnedLhucConfig(learning_rate=0.05, sweeps=1, kl_weight=0.0, batch_size=64)
    training = {f"t{n}": speaker_of(n, 50) for n in range(3)}
    rows = Lhuc(plain).estimate(small, training, seed=0).bank.side_by_side()
    for around, expected in (("speakers", rows[1:].mean(0)), ("unadapted", rows[0])):
        Subspace(SubspaceConfig(lhuc=plain, around=around), tmp_path).prepare(small, training, seed=0)
        torch.testing.assert_close(load_tensors(tmp_path / SUBSPACE_FILE)[0]["mean"], expected)


def test_whole_batches_are_gradient_descent_by_hand(small, speaker_of, tmp_path):
    plain = LearnedLhucConfig(preset="paper", learning_rate=0.3, sweeps=4, batch_size=64)
    method = Subspace(
        SubspaceConfig(lhuc=plain, dimensions=2, learning_rate=4.0, prior_weight=0.5, around="speakers"), tmp_path
    )
    method.prepare(small, {f"t{n}": speaker_of(n, 50) for n in range(4)}, seed=0)
    frames = speaker_of(50, 40)
    adapted = method.estimate(small, {"ann": frames}, seed=7)

    prepared = {name: tensor.double() for name, tensor in load_tensors(tmp_path / SUBSPACE_FILE)[0].items()}
    code = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    pdfs = torch.from_numpy(frames.targets.pdf[:, 0]).long()
    for _ in range(4):
        r = (prepared["mean"] + code @ prepared["bases"]).view(2, 16)
        hidden = splice(torch.from_numpy(frames.features), 1).double()
        for layer in range(2):
            linear = small.hidden[layer].linear
            hidden = r[layer].exp() * torch.sigmoid(hidden @ linear.weight.double().T + linear.bias.double())
        logits = hidden @ small.output.weight.double().T + small.output.bias.double()
        loss = torch.nn.functional.cross_entropy(logits, pdfs, reduction="sum") + 0.5 * code.square().sum() / 2
        (gradient,) = torch.autograd.grad(loss / 64, [code])
        with torch.no_grad():
            code -= 4.0 * gradient
    expected = (prepared["mean"] + code @ prepared["bases"]).detach()
    torch.testing.assert_close(adapted.bank.side_by_side()[1].double(), expected, rtol=1e-4, atol=1e-5)
    assert (expected - prepared["mean"]).abs().max() > 1e-2


def test_few_frames_are_enough_for_few_numbers(small, speaker_of, loss_of, tmp_path):
    """Speakers who differ in two directions: with fifteen frames, two numbers beat thirty-two."""
    generator = torch.Generator().manual_seed(4)
    bases = 0.7 * torch.randn(2, 2, 16, generator=generator)
    options = LearnedLhucConfig(learning_rate=0.05, sweeps=12, kl_weight=0.0, batch_size=64)

    def speakers(prefix, count, frames, seed):
        codes = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        return {
            f"{prefix}{n}": (r := torch.einsum("p,plh->lh", codes[n], bases), speaker_of(seed + n, frames, r))
            for n in range(count)
        }

    method = Subspace(SubspaceConfig(lhuc=options, dimensions=2, learning_rate=0.3, around="speakers"), tmp_path)
    method.prepare(small, {name: frames for name, (_, frames) in speakers("t", 12, 400, 100).items()}, seed=0)
    new = speakers("n", 6, 15, 300)
    data = {name: frames for name, (_, frames) in new.items()}
    held = {name: speaker_of(500 + n, 400, r) for n, (name, (r, _)) in enumerate(new.items())}
    losses = {}
    for kind, adapted in (
        ("subspace", method.estimate(small, data, seed=0)),
        ("plain", Lhuc(options).estimate(small, data, seed=0)),
        ("none", Lhuc(options.model_copy(update={"learning_rate": 1e-9})).estimate(small, data, seed=0)),
    ):
        losses[kind] = sum(loss_of(adapted, name, held[name]) for name in held) / len(held)
    assert losses["subspace"] < losses["plain"] - 0.1, losses
    assert losses["subspace"] < losses["none"] - 0.1, losses
