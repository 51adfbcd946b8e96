import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import FoldError, SpeakerError
from lhuc_asr.lhuc import attach, fold


def assert_folds(model, bank, x, scatter):
    scatter(bank)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for speaker in ("", "a"):
        folded = fold(bank, speaker)
        with bank.speaker(speaker):
            expected = model(x)
        torch.testing.assert_close(folded(x), expected, rtol=1e-11, atol=1e-13)
        assert type(folded) is type(model)
        assert list(folded.state_dict()) == list(before)
        assert not any(module._forward_hooks for module in folded.modules())
    assert not torch.allclose(fold(bank, "a")(x), fold(bank, "")(x))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("xi", ["exp", "2sigmoid", "identity", "relu"])
def test_mlp(mlp, randn, scatter, xi):
    assert_folds(mlp, attach(mlp, "hidden.*.activation", ["a"], amplitude=xi), randn(4, 5), scatter)


def test_cnn_with_groups_and_flattened_channels(cnn, randn, scatter):
    assert_folds(cnn, attach(cnn, nn.MaxPool2d, ["a"]), randn(4, 1, 8, 8), scatter)


def test_sequential(randn, scatter):
    model = (
        nn.Sequential(
            nn.Conv1d(2, 4, 3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv1d(4, 6, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(30, 5),
            nn.BatchNorm1d(5),
            nn.Tanh(),
            nn.Identity(),
            nn.Linear(5, 3),
        )
        .double()
        .eval()
    )
    assert_folds(model, attach(model, ["1", "4", "8"], ["a"]), randn(3, 2, 8), scatter)


def test_features_of_sequences(randn, scatter):
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    assert_folds(model, attach(model, "1", ["a"]), randn(2, 7, 5), scatter)


def test_detached_bank_folds_too(mlp, randn, scatter):
    bank = attach(mlp, "hidden.0.activation", ["a"])
    scatter(bank)
    x = randn(2, 5)
    attached = fold(bank, "a")(x)
    bank.detach()
    assert torch.equal(fold(bank, "a")(x), attached)


class Net(nn.Module):
    """A site (one, activation) whose output goes wherever ``forward`` sends it."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.next = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 4)
        self.wide = nn.Linear(8, 4)
        self.pool = nn.MaxPool1d(2)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


REFUSED = {
    "two consumers": (lambda m, x: m.next(m.inner(x)) + m.next(x), "'next', which .* runs more than once"),
    "residual": (lambda m, x: (h := m.inner(x)) + m.next(h), "its output goes into 2 places"),
    "output": (lambda m, x: m.inner(x), "not into a linear layer"),
    "lstm": (lambda m, x: m.lstm(m.inner(x))[0], r"goes into lstm \(LSTM\)"),
    "function": (lambda m, x: m.next(functional.relu(m.inner(x))), "goes into .*relu.*call_function"),
    "max-pooling": (lambda m, x: m.next(m.pool(m.inner(x))), r"goes into pool \(MaxPool1d\)"),
    "shared site": (lambda m, x: m.next(m.inner(m.inner(x))), "its module runs 2 times"),
    "unused": (lambda m, x: m.next(x), "its module runs 0 times"),
    "concatenated": (lambda m, x: m.wide(torch.cat([m.inner(x), x], 1)), "call_function"),
    "wrong axis": (lambda m, x: m.wide(m.inner(x).flatten(1)), "are not the inputs of 'wide'"),
    "control flow": (lambda m, x: m.next(m.inner(x)) if x.sum() > 0 else x, "Net cannot be traced"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    forward, message = REFUSED[case]
    bank = attach(Net(forward), "inner.1", ["a"])
    with pytest.raises(FoldError, match=message):
        fold(bank, "a")


def test_refuses_shared_and_computed_weights():
    def forward(m, x):
        return m.next(m.inner(x))

    tied = Net(forward)
    tied.inner[0].weight = tied.next.weight
    with pytest.raises(FoldError, match=r"the weight of 'next' is shared: inner\.0\.weight, next\.weight"):
        fold(attach(tied, "inner.1"), "")
    normed = Net(forward)
    nn.utils.parametrizations.weight_norm(normed.next)
    with pytest.raises(FoldError, match="next"):
        fold(attach(normed, "inner.1"), "")
    hooked = Net(forward)
    hooked.next.register_forward_pre_hook(lambda m, inputs: (inputs[0] + 1,))
    with pytest.raises(FoldError, match="'next' has other hooks"):
        fold(attach(hooked, "inner.1"), "")


def test_unknown_speaker(mlp):
    with pytest.raises(SpeakerError, match="'nobody' is not in the bank"):
        fold(attach(mlp, "hidden.*.activation", ["a"]), "nobody")


def test_training_mode_is_kept(mlp):
    bank = attach(mlp, "hidden.*.activation")
    assert not fold(bank, "").training
    assert fold(attach(copy.deepcopy(mlp).train(), "hidden.*.activation"), "").training
