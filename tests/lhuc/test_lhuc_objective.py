"""Objectives: the cross-entropy of frames against its formula, and a bank whose rows learn from CTC and ranking."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc import CandidateTargets, FrameCrossEntropy, Objective, Targets, attach, frozen, join_targets


@pytest.fixture
def frames(generator) -> CandidateTargets:
    def posteriors(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).softmax(1)

    classes = torch.tensor([[0, 2], [1, 3], [3, 0], [2, 1], [0, 1]])
    weights = torch.tensor([1.0, 0.01, 0.7, 0.0, 1.0])
    return CandidateTargets(weights, classes, posteriors(5, 2), posteriors(5, 4))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7])
def test_frame_cross_entropy_agrees_with_its_formula(frames, generator, rho):
    logits = 3 * torch.randn(5, 4, generator=generator)
    log_p = logits.double().log_softmax(1)
    expected = 0.0
    for t in range(5):
        q = torch.zeros(4, dtype=torch.float64)
        q[frames.classes[t]] = frames.posteriors[t].double()
        mixed = (1 - rho) * q + rho * frames.reference[t].double()
        expected -= float(frames.weights[t] * (mixed * log_p[t]).sum())
    assert float(FrameCrossEntropy(rho)(logits, frames)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7])
def test_loss_and_gradient_keep_the_order_of_their_operations(frames, generator, rho):
    """Bit for bit: the amplitudes of finished experiments depend on it."""
    logits = torch.randn(5, 4, generator=generator, requires_grad=True)
    log_p = torch.log_softmax(logits, dim=1).gather(1, frames.classes)
    expected = (1 - rho) * -((frames.posteriors * log_p).sum(1) * frames.weights).sum()
    if rho:
        soft = functional.cross_entropy(logits, frames.reference, reduction="none")
        expected = expected + rho * (soft * frames.weights).sum()
    loss = FrameCrossEntropy(rho)(logits, frames)
    assert torch.equal(loss, expected)
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("rho", [-0.1, 1.0, float("nan")])
def test_a_share_outside_its_range_is_refused(rho):
    with pytest.raises(ConfigError, match=r"kl_weight .*: expected at least 0 and less than 1"):
        FrameCrossEntropy(rho)


def test_targets_are_selected_filled_and_joined(frames):
    some = frames.select(torch.tensor([4, 1]))
    assert len(some) == 2
    assert torch.equal(some.classes, frames.classes[[4, 1]])
    assert torch.equal(some.reference, frames.reference[[4, 1]])
    filled = some.fill(4)
    assert torch.equal(filled.weights, torch.tensor([1.0, 0.01, 0.0, 0.0]))
    assert torch.equal(filled.posteriors, frames.posteriors[[4, 1, 4, 4]])
    assert some.fill(2) is some
    joined = join_targets([frames.select(torch.tensor([0, 1, 2])), frames.select(torch.tensor([3, 4]))])
    assert isinstance(joined, CandidateTargets)
    for name in ("weights", "classes", "posteriors", "reference"):
        assert torch.equal(getattr(joined, name), getattr(frames, name))
    assert torch.equal(frames.to("cpu").weights, frames.weights)


def test_filling_changes_no_loss(frames, randn):
    logits = randn(5, 4).float()
    some = frames.select(torch.tensor([2, 0]))
    filled = some.fill(5)
    objective = FrameCrossEntropy(0.5)
    assert objective(logits, filled) == pytest.approx(float(objective(logits[:2], some)), rel=1e-6)


@dataclass(frozen=True)
class Transcripts(Targets):
    """Labels of utterances, padded, and their lengths."""

    labels: Tensor
    lengths: Tensor


def ctc(output: Tensor, targets: Transcripts, /) -> Tensor:
    """Connectionist temporal classification: output (B, T, K), class 0 the blank."""
    log_p = output.log_softmax(2).transpose(0, 1)
    frames = torch.full((len(targets),), output.shape[1])
    losses = functional.ctc_loss(log_p, targets.labels, frames, targets.lengths, reduction="none")
    return (losses * targets.weights).sum()


@dataclass(frozen=True)
class Choices(Targets):
    """The item that each element prefers to another."""

    better: Tensor
    worse: Tensor


def ranking(output: Tensor, targets: Choices, /) -> Tensor:
    """Pairwise logistic loss: output (B, K), a score for each item."""
    margin = output.gather(1, targets.better[:, None]) - output.gather(1, targets.worse[:, None])
    return (functional.softplus(-margin[:, 0]) * targets.weights).sum()


def learn(model, bank, objective: Objective, x: Tensor, targets: Targets, steps: int = 30) -> list[float]:
    """Losses of a descent that knows nothing of the objective; alice's elements come before bob's."""
    optimizer, losses = bank.optimizer("adam", lr=0.1), []
    with frozen(model), bank.blocks(["alice", "bob"]):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = objective(model(x), targets)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def test_rows_learn_from_any_objective(mlp, sequences, randn):
    transcripts = Transcripts(torch.ones(4), torch.tensor([[1, 2], [2, 0], [1, 1], [2, 1]]), torch.tensor([2, 1, 2, 2]))
    choices = Choices(torch.ones(6), torch.tensor([0, 0, 0, 2, 2, 2]), torch.tensor([1, 2, 1, 1, 0, 1]))
    for model, sites, objective, x, targets in (
        (sequences, "lstm", ctc, randn(4, 7, 5), transcripts),
        (mlp, "hidden.*.activation", ranking, randn(6, 5), choices),
    ):
        bank = attach(model, sites, ["alice", "bob", "absent"])
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        losses = learn(model, bank, objective, x, targets)
        assert losses[-1] < 0.8 * losses[0]
        assert all(map(torch.equal, weights, model.parameters()))
        for table in bank.tables:
            assert torch.equal(table[0], table[3])
            assert not torch.equal(table[1], table[0])
            assert not torch.equal(table[1], table[2])


def test_an_element_of_weight_zero_teaches_nothing(mlp, randn):
    choices = Choices(torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), torch.tensor([1, 2]))
    bank = attach(mlp, "hidden.*.activation", ["alice", "bob"])
    with frozen(mlp), bank.blocks(["alice", "bob"]):
        ranking(mlp(randn(2, 5)), choices).backward()
    gradient = bank.tables[0].grad.to_dense()
    assert gradient[1].abs().sum() > 0
    assert not gradient[2].any()
