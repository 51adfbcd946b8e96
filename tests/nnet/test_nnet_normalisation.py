"""Normalisation against its equations in NumPy; batch normalisation folded into the weights; its statistics."""

import numpy as np
import pytest
import torch
from small_networks import DIMENSION, SMALL, UNITS, lively

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.numerics import NORMALISATION_FLOOR
from lhuc_asr.nnet.normalisation import (
    BatchNormalisation,
    batch_normalised,
    check_variances,
    estimating,
    normalisation,
    normalisation_tensors,
)

BATCH = {name: shape for name, shape in SMALL.items() if name.endswith("batch")}


def values_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lively_module(name: str) -> torch.nn.Module:
    module = normalisation(name, UNITS).double()
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(2))
    return module


def by_hand(values: np.ndarray, mean: np.ndarray, variance: np.ndarray, module: torch.nn.Module) -> np.ndarray:
    scale, shift = (part.detach().numpy() for part in (module.weight, module.bias))
    return scale * (values - mean) / np.sqrt(variance + NORMALISATION_FLOOR) + shift


@pytest.mark.parametrize("shape", [(9, UNITS), (9, 3, UNITS)])
def test_training_normalises_each_unit_over_frames_and_positions(shape):
    module, values = lively_module("batch"), values_of(*shape)
    x = values.numpy()
    axes = tuple(range(x.ndim - 1))
    expected = by_hand(x, x.mean(axes), x.var(axes), module)
    np.testing.assert_allclose(module.train()(values).detach().numpy(), expected, atol=1e-12)
    assert not module.mean.any()  # a mini-batch leaves no trace


@pytest.mark.parametrize("shape", [(9, UNITS), (9, 3, UNITS), (0, UNITS)])
def test_evaluation_takes_the_statistics_of_the_training_frames(shape):
    module, values = lively_module("batch").eval(), values_of(*shape)
    module.mean.normal_(generator=torch.Generator().manual_seed(3))
    module.variance.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(4))
    expected = by_hand(values.numpy(), module.mean.numpy(), module.variance.numpy(), module)
    np.testing.assert_allclose(module(values).detach().numpy(), expected, atol=1e-12)


def test_layer_normalisation_is_over_the_units_of_each_position():
    module, values = lively_module("layer"), values_of(9, 3, UNITS)
    x = values.numpy()
    expected = by_hand(x, x.mean(-1, keepdims=True), x.var(-1, keepdims=True), module)
    np.testing.assert_allclose(module(values).detach().numpy(), expected, atol=1e-12)


def test_a_mini_batch_of_one_row_takes_the_statistics_too():
    module, values = lively_module("batch"), values_of(1, UNITS)
    module.mean.fill_(0.5)
    torch.testing.assert_close(module.train()(values), module.eval()(values), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_in_training_are_those_of_finite_differences(name):
    model = lively(SMALL[name]).double().train()
    spliced = values_of(5, model.splicing.width).requires_grad_()
    assert torch.autograd.gradcheck(model, (spliced,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_each_tensor_are_those_of_finite_differences(name):
    """Along a random direction of it, in training."""
    model = lively(SMALL[name], vector=2).double().train()
    spliced = values_of(20, model.splicing.width)
    towards = values_of(20, model.pdf_count, seed=1)

    def loss() -> torch.Tensor:
        return (model(spliced) * towards).sum()

    loss().backward()
    for number, (key, parameter) in enumerate(model.named_parameters()):
        direction = values_of(*parameter.shape, seed=number)
        losses = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                parameter += step * direction
                losses.append(float(loss()))
            parameter += 1e-6 * direction
        expected = (losses[0] - losses[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize("name", SMALL)
def test_plain_tensors_compute_what_the_network_does(name):
    """Batch normalisation is in the weights; layer normalisation is beside them."""
    model = lively(SMALL[name], vector=2).double()
    spliced = values_of(5, model.splicing.width)
    network, rows = model.feed_forward(), spliced
    for layer, affine in enumerate(network.affine):
        rows = torch.nn.functional.linear(network.arranged(layer, rows), *affine)
        if layer < len(network.affine) - 1:
            rows = network.activated(layer, rows)
    torch.testing.assert_close(rows, model(spliced), rtol=1e-12, atol=1e-12)
    assert not any(tensor.requires_grad for affine in network.affine for tensor in affine)


@pytest.mark.parametrize("name", BATCH)
def test_estimated_statistics_are_those_of_what_comes_through(name):
    """Of one batch: in evaluation the layers then give what they gave in training, with dropout left out."""
    model = lively(BATCH[name].model_copy(update={"dropout": 0.5})).double()
    spliced = values_of(50, model.splicing.width)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with estimating(model):
        trained = model(spliced)
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(spliced), trained, rtol=1e-9, atol=1e-9)
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, state[key])}
    assert changed == {key for key in state if key.endswith((".mean", ".variance"))}
    hidden = spliced
    for layer in model.hidden:
        outputs = layer.linear(layer.shape.arrangement.of_grid(hidden)).flatten(0, -2)
        torch.testing.assert_close(layer.normalisation.mean, outputs.mean(0), rtol=1e-9, atol=1e-9)
        variance = outputs.var(0, correction=0)
        torch.testing.assert_close(layer.normalisation.variance, variance, rtol=1e-9, atol=1e-9)
        hidden = layer(hidden)


def test_statistics_of_several_batches_are_those_of_all_their_rows():
    module, values = BatchNormalisation(UNITS).double(), values_of(60, UNITS) + 3.0
    with estimating(module):
        for block in values.split([7, 50, 3]):
            module(block)
    torch.testing.assert_close(module.mean, values.mean(0))
    torch.testing.assert_close(module.variance, values.var(0, correction=0))


def test_without_frames_the_statistics_stay():
    module = BatchNormalisation(UNITS)
    module.mean.fill_(2.0)
    with estimating(module):
        pass
    assert bool((module.mean == 2.0).all())


def test_after_an_exception_the_statistics_are_those_of_before():
    module, values = BatchNormalisation(UNITS).double(), values_of(60, UNITS) + 3.0
    module.mean.fill_(2.0)

    def stopped() -> None:
        with estimating(module):
            module(values[:7])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert bool((module.mean == 2.0).all())
    assert bool((module.variance == 1.0).all())
    assert not module.training
    # Nothing of the first attempt is in the second.
    with estimating(module):
        module(values[7:])
    torch.testing.assert_close(module.mean, values[7:].mean(0))


def test_what_has_statistics_and_what_its_tensors_are():
    for name, shape in SMALL.items():
        assert batch_normalised(shape.make(DIMENSION, 3)) is name.endswith("batch")
    for name in (None, "batch", "layer"):
        shapes = {key: tuple(tensor.shape) for key, tensor in normalisation(name, 5).state_dict().items()}
        assert normalisation_tensors(name, 5) == shapes


def test_variances_below_zero_are_refused():
    tensors = {"hidden.0.normalisation.variance": torch.tensor([1.0, -1e-6]), "output.bias": torch.tensor([-1.0])}
    with pytest.raises(CheckpointError, match=r"f: hidden\.0\.normalisation\.variance is below 0.*; remove it"):
        check_variances("f", tensors, "remove it")
    check_variances("f", {"output.bias": torch.tensor([-1.0])}, "remove it")


@pytest.mark.parametrize("name", SMALL)
def test_products_in_bfloat16_are_normalised_too(name):
    model = lively(SMALL[name]).train()
    spliced = values_of(40, model.splicing.width).float()
    exact = model(spliced)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(spliced)
    assert rounded.dtype == torch.bfloat16
    error = float(((rounded - exact).abs().mean() / exact.abs().mean()).detach())
    assert 1e-5 < error < 0.1
    rounded.float().square().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
