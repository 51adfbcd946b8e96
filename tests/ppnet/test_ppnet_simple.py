"""SimplePPNet: its form, its names, its equations, and what is not a user."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.ppnet import LHUCLayer, SimplePPNet


class Written(nn.Module):
    """The same network written out with torch alone; its state dict has the names of the form known from tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.user_embedding = nn.Embedding(7, 3)
        self.fcs = nn.ModuleList([nn.Linear(5, 64), nn.Linear(64, 32)])
        self.lhuc_layers = nn.ModuleList()
        for units in (64, 32):
            layer = nn.Module()
            layer.gate = nn.Linear(3, units)
            self.lhuc_layers.append(layer)
        self.final = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        user = self.user_embedding(users)
        for fc, layer in zip(self.fcs, self.lhuc_layers, strict=True):
            x = fc(x).clamp(min=0) * 2 / (1 + torch.exp(-layer.gate(user)))
        return 1 / (1 + torch.exp(-self.final(x)))


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(40, 5, generator=generator), torch.randint(7, (40,), generator=generator)


def test_a_state_dict_of_the_same_names_loads_and_gives_the_same(examples):
    torch.manual_seed(0)
    written, model = Written(), SimplePPNet(feature_dim=5, user_num=7, user_emb_dim=3)
    model.load_state_dict(written.state_dict())
    output = model(*examples)
    assert output.shape == (40, 1)
    torch.testing.assert_close(output, written(*examples))
    assert [name for name, _ in model.named_children()] == ["user_embedding", "fcs", "lhuc_layers", "final"]
    assert all(isinstance(layer, LHUCLayer) for layer in model.lhuc_layers)


def test_users_make_no_difference_before_training_and_gates_learn_at_once(examples):
    x, users = examples
    model = SimplePPNet(5, 7, 3, generator=torch.Generator().manual_seed(1))
    output = model(x, users)
    assert torch.equal(output, model(x, (users + 1) % 7))
    functional.binary_cross_entropy(output, (x[:, :1] > 0).float()).backward()
    for layer in model.lhuc_layers:
        assert layer.gate.weight.grad.abs().sum() > 0
        assert layer.gate.bias.grad.abs().sum() > 0


def test_every_user_learns_unless_one_stands_for_the_unseen(examples):
    x, users = examples
    for unseen in (None, 0):
        model = SimplePPNet(5, 7, 3, unseen_user=unseen, generator=torch.Generator().manual_seed(1))
        start = model.user_embedding.weight.detach().clone()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            functional.binary_cross_entropy(model(x, users), (x[:, :1] > 0).float()).backward()
            optimizer.step()
        moved = (model.user_embedding.weight != start).any(1)
        assert moved.tolist() == [unseen is None] + [True] * 6

        plain = x
        for fc in model.fcs:
            plain = torch.relu(fc(plain))
        output = model(x, torch.zeros_like(users))
        assert torch.equal(output, torch.sigmoid(model.final(plain))) == (unseen == 0)


def test_the_generator_decides_the_start():
    one, same, other = (SimplePPNet(5, 7, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(one.fcs[0].weight, other.fcs[0].weight)
    assert not torch.equal(one.user_embedding.weight, other.user_embedding.weight)
