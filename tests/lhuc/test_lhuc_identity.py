"""The remembered hash of a model: computed once, and anew after every kind of change."""

import copy
import hashlib

import pytest
import torch
from torch import nn

from lhuc_asr.lhuc import identity
from lhuc_asr.lhuc.identity import model_hash


def plain_hash(model) -> str:
    """The hash's definition, written out."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def computed(monkeypatch):
    """A list that grows with each hash that is computed."""
    calls, real = [], hashlib.sha256
    monkeypatch.setattr(identity.hashlib, "sha256", lambda: calls.append(1) or real())
    return calls


def test_computed_once(cnn, mlp, computed):
    hashes = [model_hash(model) for model in (cnn, mlp, cnn, mlp, cnn)]
    assert len(computed) == 2
    assert hashes == [plain_hash(model) for model in (cnn, mlp, cnn, mlp, cnn)]
    assert model_hash(copy.deepcopy(cnn)) == hashes[0]


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum().backward()
    optimizer.step()


CHANGES = {
    "one number": lambda m: m.output.weight.data[1, 3].add_(1e-9),
    "a sign": lambda m: m.output.bias.data[2].neg_(),
    "rows exchanged": lambda m: m.output.weight.data.copy_(m.output.weight.data.flip(0)),
    "columns exchanged": lambda m: m.output.weight.data.copy_(m.output.weight.data.flip(1)),
    "other storage": lambda m: setattr(m.output.weight, "data", m.output.weight.data * 2),
    "another parameter": lambda m: setattr(m.output, "weight", nn.Parameter(m.output.weight.detach() * 2)),
    "a state dict": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "a step": step,
    "a running mean": lambda m: m.train()(torch.ones(2, 1, 8, 8, dtype=torch.float64)),
    "in inference mode": lambda m: torch.inference_mode()(lambda: m.output.weight.data.add_(1))(),
    "another type": lambda m: m.float(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_noticed(cnn, change):
    before = model_hash(cnn)
    change(cnn)
    assert model_hash(cnn) == plain_hash(cnn) != before


def test_rows_columns_and_steps_of_a_large_model(computed):
    """Beyond 16 MB not every line is summed up."""
    model = nn.Sequential(nn.Linear(1536, 3072), nn.ReLU(), nn.Linear(3072, 1536))
    weights = model[0].weight.data
    assert model_hash(model) == model_hash(model)
    assert len(computed) == 1
    generator = torch.Generator().manual_seed(3)
    for number in range(1, 6):
        weights[torch.randint(3072, (), generator=generator)] += 0.1
        model_hash(model)
        assert len(computed) == 2 * number
        weights[:, torch.randint(1536, (), generator=generator)] += 0.1
        model_hash(model)
        assert len(computed) == 2 * number + 1
    with torch.no_grad():
        model[2].bias[7] += 1e-6  # torch counts it
    model_hash(model)
    assert len(computed) == 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (129,), (64, 3)])
def test_sums_of_any_type_and_size_see_any_element(dtype, shape, generator):
    tensor = torch.randint(0, 2, (3, *shape), generator=generator).to(dtype)[1]  # not at the beginning of its storage
    before = identity._sums(tensor, 1)
    for place in range(tensor.numel()):
        changed = tensor.clone() if place % 2 else tensor.detach()
        flat = changed.view(-1)
        old = flat[place].clone()
        flat[place] = ~old if dtype == torch.bool else old + 1
        assert not torch.equal(identity._sums(changed, 1), before)
        flat[place] = old
    assert torch.equal(identity._sums(tensor, 1), before)
