"""Rows that are absent stand still; thirty speakers together are thirty runs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError, SpeakerError
from lhuc_asr.lhuc import RowAdam, attach, frozen

SPEAKERS = [f"s{number:02}" for number in range(30)]
OPTIONS = {
    "sgd": ("sgd", {"lr": 0.8, "momentum": 0.9, "weight_decay": 0.01}, torch.optim.SGD),
    "plain sgd": ("sgd", {"lr": 0.8}, torch.optim.SGD),
    "adam": ("adam", {"lr": 0.05, "weight_decay": 0.01}, torch.optim.Adam),
}


def bits(bank):
    return [table.detach().clone() for table in bank.tables]


def single_run(model, batches, make_optimizer):
    """The oracle: one speaker, r a plain parameter a layer, torch's own dense optimizer, hooks of its own."""
    widths = [8, 6]
    r = [nn.Parameter(torch.zeros(width, dtype=torch.float64)) for width in widths]
    handles = [
        layer.activation.register_forward_hook(lambda m, i, output, p=p: output * p.exp())
        for layer, p in zip(model.hidden, r, strict=True)
    ]
    optimizer = make_optimizer(r)
    for x, y in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y, reduction="sum").backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    return r


@pytest.mark.parametrize("context", ["rows", "blocks"])
@pytest.mark.parametrize("case", OPTIONS)
def test_thirty_speakers_together_are_thirty_runs(case, context, mlp, randn, generator):
    name, options, dense = OPTIONS[case]
    steps, frames = 8, 4
    data = {
        s: [(randn(frames, 5), torch.randint(3, (frames,), generator=generator)) for _ in range(steps)]
        for s in SPEAKERS
    }
    bank = attach(mlp, "hidden.*.activation", SPEAKERS)
    optimizer = bank.optimizer(name, **options)
    left = {s: list(batches) for s, batches in data.items()}
    with frozen(mlp):
        while any(left.values()):
            # A random part of those who have data left: speakers come and go.
            some = [s for s in SPEAKERS if left[s] and torch.rand((), generator=generator) < 0.4]
            if not some:
                continue
            batches = [left[s].pop(0) for s in some]
            x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
            each = some if context == "blocks" else [s for s in some for _ in range(frames)]
            optimizer.zero_grad()
            with getattr(bank, context)(each):
                functional.cross_entropy(mlp(x), y, reduction="sum").backward()
            optimizer.step()
        bank.detach()
        for s in SPEAKERS:
            alone = single_run(mlp, data[s], lambda r: dense(r, **options))
            for table, r in zip(bank.tables, alone, strict=True):
                assert r.abs().max() > 0.01
                torch.testing.assert_close(table[bank.row(s)].detach(), r.detach(), rtol=0, atol=1e-12)
    assert all((table[0] == 0).all() for table in bank.tables)


@pytest.mark.parametrize("case", OPTIONS)
def test_absent_rows_do_not_move_by_a_bit(case, mlp, randn, scatter):
    name, options, _ = OPTIONS[case]
    bank = attach(mlp, "hidden.*.activation", ["a", "b", "c"])
    scatter(bank)
    optimizer = bank.optimizer(name, **options)
    for present in (["a", "c"], ["b"], [""]):
        before = bits(bank)
        optimizer.zero_grad()
        with bank.blocks(present):
            mlp(randn(6, 5)).square().sum().backward()
        with bank.speaker("b"):
            mlp(randn(6, 5))  # a forward pass without backward does not count
        optimizer.step()
        rows = bank.rows_of(present)
        for old, table in zip(before, bank.tables, strict=True):
            moved = (old != table).any(dim=1)
            assert moved.nonzero()[:, 0].tolist() == sorted(rows.tolist())


def test_gradient_is_the_sum_over_the_speakers_frames(mlp, randn, scatter):
    """Equations 8 and 9, written out for the last hidden layer."""
    bank = attach(mlp, "hidden.*.activation", ["a", "b", "c"])
    scatter(bank)
    x, rows = randn(7, 5), torch.tensor([1, 3, 1, 0, 3, 3, 1])
    psi, h = [], []
    mlp.hidden[1].linear.register_forward_hook(lambda m, i, output: psi.append(torch.sigmoid(output)))
    mlp.output.register_forward_pre_hook(lambda m, inputs: (h.append(inputs[0]), inputs[0].retain_grad())[0])
    with bank.rows(rows):
        mlp(x).square().sum().backward()
    table = bank.tables[1]
    expected = torch.zeros_like(table)
    expected.index_add_(0, rows, h[0].grad * table.detach().exp()[rows] * psi[0].detach())
    torch.testing.assert_close(table.grad.to_dense(), expected, rtol=1e-12, atol=1e-14)
    assert sorted(table.grad.coalesce().indices()[0].tolist()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("which", "sites", "shape", "xi"),
    [
        ("cnn", ["lower.3", "upper.2"], (3, 1, 8, 8), "2sigmoid"),
        ("cnn", ["lower.0"], (3, 1, 8, 8), "exp"),
        ("recurrent", ["lstm"], (4, 3, 5), "exp"),
        ("recurrent", ["lstm"], (4, 3, 5), "relu"),
        ("mlp", ["hidden.*.activation"], (3, 5), "identity"),
        ("mlp", ["hidden.*.linear"], (3, 5), "2sigmoid"),
    ],
)
def test_numeric_gradient(which, sites, shape, xi, request, randn, scatter):
    """Equations 7 to 9 against central differences in float64, two speakers and row 0 in one batch."""
    model = request.getfixturevalue(which)
    bank = attach(model, sites, ["a", "b"], amplitude=xi)
    scatter(bank)
    x, step = randn(*shape), 1e-6

    def loss():
        with bank.rows(["a", "", "a"]):
            return model(x).square().sum()

    loss().backward()
    for table in bank.tables:
        gradient = table.grad.to_dense()
        assert not gradient[2].any()
        for row in range(2):
            for unit in range(table.shape[1]):
                values = []
                for sign in (1, -1):
                    with torch.no_grad():
                        table[row, unit] += sign * step
                        values.append(loss().item())
                        table[row, unit] -= sign * step
                assert gradient[row, unit].item() == pytest.approx(
                    (values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-7
                )


def test_decay_pulls_towards_row_zero(mlp, randn, scatter):
    bank = attach(mlp, "hidden.0.activation", ["a"])
    scatter(bank)
    optimizer = bank.optimizer("sgd", lr=0.5, weight_decay=1.0)
    start = bits(bank)[0]
    with bank.speaker("a"):
        (0.0 * mlp(randn(2, 5))).sum().backward()
    optimizer.step()
    torch.testing.assert_close(bank.tables[0][1].detach(), (start[0] + start[1]) / 2)
    assert torch.equal(bank.tables[0][0], start[0])


def test_a_closure_and_accumulated_gradients(mlp, randn):
    banks = [attach(mlp, "hidden.0.activation", ["a", "b"])]
    banks.append(copy.deepcopy(banks[0]))
    x = randn(4, 5)
    closed = banks[0].optimizer("adam")

    def closure():
        closed.zero_grad()
        with banks[0].rows(["a", "b", "a", "b"]):
            loss = mlp(x).square().sum()
        loss.backward()
        return loss

    assert closed.step(closure).item() > 0
    banks[0].detach()
    banks[1].attach()
    optimizer = banks[1].optimizer("adam")
    for half, who in ((slice(0, 2), ["a", "b"]), (slice(2, 4), ["a", "b"])):
        with banks[1].rows(who):
            mlp(x[half]).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(banks[0].tables[0], banks[1].tables[0], rtol=1e-12, atol=1e-14)


def test_plain_torch_sgd_is_row_wise_and_others_are_refused(mlp, randn):
    bank = attach(mlp, "hidden.*.activation", ["a", "b"])
    refused = [
        torch.optim.SGD(bank.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(bank.parameters(), lr=0.1, weight_decay=0.1),
        torch.optim.Adam([*mlp.parameters(), *bank.parameters()]),
        torch.optim.AdamW(bank.parameters()),
        torch.optim.SparseAdam(bank.parameters()),
    ]
    with bank.speaker("a"):
        mlp(randn(2, 5)).square().sum().backward()
    before = bits(bank)
    for optimizer in refused:
        with pytest.raises(ConfigError, match=r"would move the rows of speakers who are not in the batch; make one"):
            optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, bank.tables, strict=True))

    torch.optim.SGD(bank.parameters(), lr=0.1).step()
    for old, new in zip(before, bank.tables, strict=True):
        assert (old != new).any(dim=1).tolist() == [False, True, False]
    torch.optim.Adam(mlp.parameters()).step()  # other models train on as they like


def test_errors(mlp, randn):
    bank = attach(mlp, "hidden.0.activation", ["a"])
    with pytest.raises(ConfigError, match=r"no row-wise optimizer is called 'rmsprop'; known: sgd, adam"):
        bank.optimizer("rmsprop")
    with pytest.raises(ConfigError, match=r"'adam' with options \['momentum'\]"):
        bank.optimizer("adam", momentum=0.9)
    with pytest.raises(ConfigError, match=r"momentum = 1.0: expected at least 0 and under 1"):
        bank.optimizer("sgd", momentum=1.0)
    with pytest.raises(ConfigError, match=r"lr = -1.0: expected a finite number"):
        bank.optimizer("sgd", lr=-1.0)
    optimizer = bank.optimizer("sgd", momentum=0.9)

    def step():
        optimizer.zero_grad()
        with bank.speaker("a"):
            mlp(randn(2, 5)).sum().backward()
        optimizer.step()

    step()
    bank.add(["b"])
    with pytest.raises(SpeakerError, match=r"speakers were added, dropped, reset or loaded since .* make a new one"):
        step()
    dense = bank.tables[0].square().sum()
    bank.tables[0].grad = None
    dense.backward()
    with pytest.raises(ConfigError, match=r"found a dense one of shape \(3, 8\)"):
        bank.optimizer("sgd").step()


def test_tables_of_embeddings_are_moved_as_a_banks_rows_are():
    """By Adam on each row alone: the rows of a table take the steps that tables of one row would."""
    batches = [[1, 3], [3, 3, 2], [1], [2, 3]]
    table = torch.nn.Embedding(5, 2, sparse=True)
    start, target = table.weight.detach().clone(), torch.arange(10.0).reshape(5, 2)
    optimizer = RowAdam(table.parameters(), lr=0.1)
    alone = {row: torch.nn.Parameter(start[row].clone()) for row in range(5)}
    adams = {row: torch.optim.Adam([parameter], lr=0.1) for row, parameter in alone.items()}
    for rows in batches:
        optimizer.zero_grad()
        (table(torch.tensor(rows)) - target[rows]).square().sum().backward()
        optimizer.step()
        for row in set(rows):
            adams[row].zero_grad()
            (rows.count(row) * (alone[row] - target[row]).square().sum()).backward()
            adams[row].step()
    torch.testing.assert_close(table.weight, torch.stack([alone[row] for row in range(5)]))
    assert torch.equal(table.weight[[0, 4]], start[[0, 4]])
