"""The remembered identity of a model: computed once, and anew after every kind of change."""

import copy

import pytest
import torch
from small_models import Counted, quantized
from torch import nn

from lhuc_asr.lhuc import identity, remembered
from lhuc_asr.lhuc.identity import model_hash


@pytest.fixture
def computed(monkeypatch):
    """A list that grows with each identity that is computed."""
    calls, real = [], identity._identity
    monkeypatch.setattr(identity, "_identity", lambda *args: calls.append(1) or real(*args))
    return calls


def anew(model) -> str:
    """The identity of a model of which nothing is remembered."""
    return model_hash(copy.deepcopy(model))


def test_computed_once(cnn, mlp, computed):
    hashes = [model_hash(model) for model in (cnn, mlp, cnn, mlp, cnn)]
    assert len(computed) == 2
    assert hashes == [anew(model) for model in (cnn, mlp, cnn, mlp, cnn)]
    assert len(set(hashes)) == 2
    parts = [model_hash(cnn, ["lower.**"]), model_hash(cnn, "lower.**"), model_hash(cnn, ["upper.**"]), model_hash(cnn)]
    assert len(computed) == 2 + 5 + 2
    assert parts[0] == parts[1]
    assert parts[3] == hashes[0]
    assert len(set(parts)) == 3


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
    assert model_hash(cnn) == anew(cnn) != before


def test_rows_columns_and_steps_of_a_large_model(computed):
    """Beyond 8 MB not every line is summed up."""
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
    before = remembered._sums(tensor, 1)
    for place in range(tensor.numel()):
        changed = tensor.clone() if place % 2 else tensor.detach()
        flat = changed.view(-1)
        old = flat[place].clone()
        flat[place] = ~old if dtype == torch.bool else old + 1
        assert not torch.equal(remembered._sums(changed, 1), before)
        flat[place] = old
    assert torch.equal(remembered._sums(tensor, 1), before)


def test_packed_weights_are_read_once_and_changes_of_them_noticed(computed):
    model = quantized(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    hashes = [model_hash(model), model_hash(model)]
    assert len(computed) == 1
    model[2].bias().data[1] += 0.5  # shared with the packed weights
    hashes.append(model_hash(model))
    weight = model[0].weight()
    other = torch.quantize_per_tensor(weight.dequantize().neg(), weight.q_scale(), weight.q_zero_point(), weight.dtype)
    model[0].set_weight_bias(other, model[0].bias())
    hashes.append(model_hash(model))
    assert len(computed) == 3
    assert len(set(hashes)) == 3


def test_extra_states_are_read_every_time(computed):
    model = Counted(2, 2)
    states = [1, 1, {"a": torch.ones(2)}, {"a": torch.ones(2)}, {"a": torch.tensor([1.0, 2.0])}, ["x", None]]
    hashes = []
    for model.extra in states:
        hashes.append(model_hash(model))
    assert len(computed) == len(set(hashes)) == 4
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
