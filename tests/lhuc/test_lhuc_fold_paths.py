"""Folding through reshapes: the usual ones, those where it would be wrong, and random models against their banks."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import FoldError, SiteError
from lhuc_asr.lhuc import Site, SpeakerBank, attach, fold


class Between(nn.Module):
    """A site (activation), what lies between it and the map that reads it, and that map."""

    def __init__(self, front, between, reader) -> None:
        super().__init__()
        self.front, self.activation, self.reader = front, nn.Tanh(), reader
        self._between = between

    def forward(self, x):
        return self.reader(self._between(self.activation(self.front(x))))


def heads(h):
    """(B, T, 12) -> (B, T, 12), by way of 3 heads of 4."""
    b, t, _ = h.shape
    return h.view(b, t, 3, 4).transpose(1, 2).transpose(1, 2).reshape(b, t, 12)


LINEAR, CONV, CONV2D = nn.Linear(5, 12), nn.Conv1d(5, 12, 3, padding=1), nn.Conv2d(1, 6, 3, padding=1)
FOLDED = {
    "transposed": (LINEAR, lambda h: h.transpose(1, 2), nn.Conv1d(12, 3, 2)),
    "permuted": (CONV, lambda h: h.permute(0, 2, 1), nn.Linear(12, 3)),
    "mT": (CONV, lambda h: h.mT, nn.Linear(12, 3)),
    "frames": (LINEAR, lambda h: h.reshape(-1, 12), nn.Linear(12, 3)),
    "frames by size": (LINEAR, lambda h: h.view(h.size(0) * h.size(1), -1), nn.Linear(12, 3)),
    "heads": (LINEAR, heads, nn.Linear(12, 3)),
    "stacked frames": (LINEAR, lambda h: h.reshape(h.shape[0], h.shape[1] // 2, 24), nn.Linear(24, 3)),
    "last frame": (LINEAR, lambda h: h[:, -1], nn.Linear(12, 3)),
    "some units": (LINEAR, lambda h: h[..., ::3], nn.Linear(4, 3)),
    "reversed channels": (CONV, lambda h: h.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2), nn.Conv1d(12, 3, 1)),
    "an axis more": (LINEAR, lambda h: h.unsqueeze(1).squeeze(dim=1), nn.Linear(12, 3)),
    "as an image": (CONV, lambda h: h.unsqueeze(2), nn.Conv2d(12, 3, (1, 2), groups=3)),
    "dropout": (LINEAR, lambda h: functional.dropout(h, 0.5, False), nn.Linear(12, 3)),
    "bands": (CONV2D, lambda h: h.permute(0, 2, 1, 3).flatten(2), nn.Linear(30, 3)),
}
REFUSED = {
    # A view in place of a transpose: every input sees many units.
    "mixed up": (LINEAR, lambda h: h.view(h.shape[0], 12, h.shape[1]), nn.Conv1d(12, 3, 1), "different ones of its"),
    "half of it": (LINEAR, lambda h: h.reshape(h.shape[0], -1, 6), nn.Linear(6, 3), "different ones of its units"),
    "wrong axis": (LINEAR, lambda h: h, nn.Conv1d(8, 3, 1), "different ones of its units"),
    "rolled": (LINEAR, lambda h: h.roll(1, -1), nn.Linear(12, 3), r"goes into roll \(call_method\)"),
    "by values": (LINEAR, lambda h: h[..., h.sum((0, 1)).argsort()], nn.Linear(12, 3), "goes into 2 places"),
    "twice": (LINEAR, lambda h: h.transpose(1, 2) + h.mT, nn.Conv1d(12, 3, 1), "goes into 2 places"),
    "changed": (LINEAR, lambda h: h.transpose(1, 2) + 1, nn.Conv1d(12, 3, 1), "goes into .*add.*call_function"),
}


def input_of(front):
    shape = {LINEAR: (3, 8, 5), CONV: (3, 5, 8), CONV2D: (3, 1, 7, 5)}[front]
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model_of(front, between, reader):
    return Between(front, between, reader).double().eval()


@pytest.mark.parametrize("case", FOLDED)
def test_usual_reshapes_are_folded(case, scatter):
    front, between, reader = FOLDED[case]
    model, x = model_of(front, between, reader), input_of(front)
    bank = attach(model, "activation", ["a"], dim=-1 if front is LINEAR else 1, example=x, batch_dim=0)
    scatter(bank)
    with bank.speaker("a"):
        expected = model(x)
    torch.testing.assert_close(fold(bank, "a", x)(x), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(fold(bank, "a", {"x": x})(x), expected, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(model(x), expected)
    if case != "dropout":
        with pytest.raises(FoldError, match=r"site 'activation': its output is reshaped .*example=x"):
            fold(bank, "a")


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused(case):
    front, between, reader, message = REFUSED[case]
    bank = attach(model_of(front, between, reader), "activation", ["a"])
    with pytest.raises(FoldError, match=message):
        fold(bank, "a", input_of(front))


def test_one_frame_is_not_taken_for_many():
    """With one frame the units lie as they would if they were flattened; with two they do not."""
    model = model_of(LINEAR, lambda h: h.transpose(1, 2).reshape(h.shape[0], -1, 12), nn.Linear(12, 3))
    bank = attach(model, "activation", ["a"])
    with pytest.raises(FoldError, match="different ones of its units"):
        fold(bank, "a", torch.zeros(2, 1, 5, dtype=torch.float64))


def test_axes_that_are_squeezed_in_some_sizes_only():
    for between, message in (
        (lambda h: h.mT.squeeze(-1), r"squeeze squeezes an axis of more than one element, \(2, 12, 2\)"),
        (lambda h: h.mT.squeeze(), r"goes into squeeze \(call_method\)"),
    ):
        bank = attach(model_of(LINEAR, between, nn.Linear(12, 3)), "activation", ["a"])
        with pytest.raises(FoldError, match=message):
            fold(bank, "a", torch.zeros(2, 1, 5, dtype=torch.float64))


def test_outputs_of_an_lstm_beside_its_states(recurrent, randn, scatter):
    bank = attach(recurrent, "lstm", ["a"])
    scatter(bank)
    x = randn(6, 2, 5)
    with bank.speaker("a"):
        torch.testing.assert_close(fold(bank, "a")(x), recurrent(x), rtol=1e-11, atol=1e-13)


def test_hooks_on_the_way_are_refused(mlp):
    bank = attach(mlp, "hidden.0.activation")
    handle = mlp.hidden[0].dropout.register_forward_hook(lambda m, inputs, output: output + 1)
    with pytest.raises(FoldError, match=r"'hidden.0.dropout', which its output goes into, has other hooks"):
        fold(bank, "")
    handle.remove()
    mlp.hidden[0].activation.register_forward_hook(lambda m, inputs, output: output + 1)
    with pytest.raises(FoldError, match="its module has other hooks"):
        fold(bank, "")


def divisors(number):
    return [size for size in range(1, number + 1) if number % size == 0]


def a_step(choose, h):
    """A random operation that fits a tensor, as a function."""
    dims = h.dim()
    i, j = sorted(choose.choices(range(dims), k=2))
    parts = choose.choice(divisors(h.shape[i]))
    order = choose.sample(range(dims), dims)
    swapped = [h.shape[axis] for axis in order]
    return choose.choice(
        [
            lambda h: h.transpose(i, j),
            lambda h: h.permute(order),
            lambda h: h.flatten(i, j),
            lambda h: torch.flatten(h, i),
            lambda h: h.unflatten(i, (-1, parts)),
            lambda h: h.unflatten(i, (parts, -1)),
            lambda h: h.reshape(swapped),
            lambda h: h.reshape(h.shape[0], -1, parts) if i else h.reshape(-1, parts),
            lambda h: h.reshape(h.size(0) * h.shape[1], -1),
            lambda h: h.unsqueeze(i),
            lambda h: h.squeeze() if i == j else h.squeeze(i),
            lambda h: h.squeeze((i, j)),
            lambda h: h[:, 0],
            lambda h: h[..., ::2],
            lambda h: h[:, : h.shape[1] // 2 + 1],
            lambda h: functional.dropout(h, 0.2, False),
            lambda h: h.swapaxes(i, j).contiguous(),
            # No move: whatever scales its input otherwise, or looks at it twice.
            lambda h: functional.relu(h) if parts > 1 else h.movedim(i, j),
            lambda h: h * 2 + h.mean() if parts > 2 else h.narrow(i, 0, 1),
        ]
    )


def a_model(choose):
    """A random model, an input, and a site with units along one of its axes; None where shapes do not work out."""
    x = torch.randn(choose.choice([1, 2, 3]), choose.choice([1, 2, 4, 6]), 4, dtype=torch.float64)
    front = choose.choice([nn.Linear(4, 6), nn.Linear(4, 4), nn.Conv1d(x.shape[1], 6, 1)]).double()
    steps, h = [], front(x)
    dim = choose.choice([1, 2, -1, -2])
    width = h.shape[dim]
    try:
        for _ in range(choose.randint(1, 4)):
            step = a_step(choose, h)
            steps.append(step)
            h = step(h)
        if h.dim() in (3, 4) and choose.random() < 0.5:
            reader = (nn.Conv1d if h.dim() == 3 else nn.Conv2d)(h.shape[1], 2, 1)
        else:
            reader = nn.Linear(h.shape[-1], 2)
    except (RuntimeError, IndexError):
        return None

    def between(h):
        for step in steps:
            h = step(h)
        return h

    model = model_of(front, between, reader)
    return model, x, SpeakerBank(model, [Site("activation", width, dim)], ["a"], choose.choice(["exp", "identity"]))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
@pytest.mark.parametrize("each", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_models_are_folded_exactly_or_refused(scatter, each):
    choose, outcomes = random.Random(each), {"folded": 0, "refused": 0, "other sizes": 0}
    while outcomes["folded"] < each or outcomes["refused"] < each:
        made = a_model(choose)
        if made is None:
            continue
        model, x, bank = made
        bank.attach()
        scatter(bank)
        for example in (x, None):
            try:
                folded = fold(bank, "a", example)
            except FoldError:
                outcomes["refused"] += example is not None
                continue
            outcomes["folded"] += example is not None
            for other in (
                x,
                *(torch.randn(b, t, 4, dtype=torch.float64) for b, t in ((1, 1), (5, 3), (2, 4), (4, 12))),
            ):
                try:
                    with bank.speaker("a"):
                        expected = model(other)
                except (RuntimeError, IndexError, SiteError):  # sizes that do not fit
                    continue
                outcomes["other sizes"] += other is not x
                torch.testing.assert_close(folded(other), expected, rtol=1e-10, atol=1e-12)
    assert outcomes["other sizes"] > each
