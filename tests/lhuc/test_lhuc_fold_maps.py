"""What counts as a linear map: subclasses that compute one, those that do not, and weights that others read too."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import FoldError
from lhuc_asr.lhuc import attach, fold


class Casting(nn.Linear):
    """As in openai-whisper: the weight in the input's type."""

    def forward(self, x):
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Causal(nn.Conv1d):
    def forward(self, x):
        return super().forward(functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Activated(nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(x))


class Clipping(nn.Linear):
    """Looks like a linear map where activations are small."""

    def forward(self, x):
        return super().forward(x.clamp(-20, 20))


class Quantized(nn.Linear):
    def forward(self, x):
        scale = self.weight.abs().max() / 127
        return functional.linear(x, (self.weight / scale).round() * scale, self.bias)


class Normalised(nn.Linear):
    def forward(self, x):
        return functional.linear(x, functional.normalize(self.weight), self.bias)


class Packed(nn.Linear):
    """Computes with a copy of its weight, as quantized layers do."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._packed = [self.weight.detach().double()]

    def forward(self, x):
        return functional.linear(x, self._packed[0], self.bias)


class LowRank(nn.Linear):
    """LoRA at its start, where the second path gives zero."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.down, self.up = nn.Linear(self.in_features, 2), nn.Parameter(torch.zeros(self.out_features, 2))

    def forward(self, x):
        return super().forward(x) + self.down(x) @ self.up.T


class Noisy(nn.Linear):
    """In training only."""

    def forward(self, x):
        return super().forward(x + torch.randn_like(x) if self.training else x)


class Gated(nn.Linear):
    def forward(self, x, gate=1.0):
        return super().forward(x) * gate


class Standardised(nn.Conv1d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2), keepdim=True)
        return self._conv_forward(x, weight / self.weight.std((1, 2), keepdim=True), self.bias)


def model_of(reader):
    front = nn.Linear(5, 8) if isinstance(reader, nn.Linear) else nn.Conv1d(5, 8, 1)
    return nn.Sequential(front, nn.ReLU(), reader).double().eval()


def both_ways(model, x):
    """A bank at the output, and one at the input of the map: they are folded by the same rule."""
    for places in ({"sites": "1"}, {"inputs_of": "2"}):
        bank = attach(model, speakers=["a"], **places)
        bank.fill({site.name: torch.linspace(-1, 1, 8, dtype=torch.float64) for site in bank.sites})
        for example in (None, x):
            yield bank, example
        bank.detach()


@pytest.mark.parametrize(
    "reader", [Casting(8, 3), Casting(8, 3, bias=False), Causal(8, 4, 2, groups=2), Activated(8, 3)]
)
def test_subclasses_that_scale_with_their_weight(reader, randn):
    model = model_of(reader)
    x = randn(2, 5, 7) if isinstance(reader, nn.Conv1d) else randn(2, 5)
    for bank, example in both_ways(model, x):
        with bank.speaker("a"):
            expected = model(x)
        folded = fold(bank, "a", example)
        torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-13)
        assert not torch.allclose(expected, model(x))
        assert type(folded[2]) is type(reader)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        *((kind(8, 3), "scaling its weight is not scaling its input") for kind in (Clipping, Quantized, Normalised)),
        *((kind(8, 3), "scaling its weight is not scaling its input") for kind in (Packed, Noisy)),
        (Standardised(8, 3, 2), "scaling its weight is not scaling its input"),
        (LowRank(8, 3), "it holds down, down.bias, down.weight, up beside its weight and bias"),
        (Gated(8, 3), "it takes more than its input"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_other_subclasses_are_refused(reader, message, randn):
    x = randn(2, 5, 7) if isinstance(reader, nn.Conv1d) else randn(2, 5)
    for bank, example in both_ways(model_of(reader), x):
        with pytest.raises(FoldError, match=rf"'2' \({type(reader).__name__}\): {message}"):
            fold(bank, "a", example)


def test_a_layer_whose_forward_was_replaced_is_refused(randn):
    model = model_of(nn.Linear(8, 3))
    plain = model[2].forward
    model[2].forward = lambda x: plain(x) + plain(x.abs())
    for bank, example in both_ways(model, randn(2, 5)):
        with pytest.raises(FoldError, match=r"'2' .*scaling its weight is not scaling its input"):
            fold(bank, "a", example)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantize_dynamic:")
def test_a_quantized_layer_is_refused():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model = torch.ao.quantization.quantize_dynamic(model, {"2"}, torch.qint8)
    x = torch.randn(4, 5)
    with pytest.raises(FoldError, match=r"site '2:input': '2' \(Linear\) is not a linear layer or convolution"):
        fold(attach(model, inputs_of="2", example=x), "", x)
    with pytest.raises(FoldError, match=r"site '1': its output goes into 2 \(Linear\), not into"):
        fold(attach(model, "1", example=x), "", x)


def test_a_layer_of_peft_is_folded_below_it_or_refused(randn):
    peft = pytest.importorskip("peft")
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    config = peft.LoraConfig(target_modules=["2"], init_lora_weights=False)
    model, x = peft.get_peft_model(model, config).double().eval(), randn(4, 5)
    for places, message in (
        ({"inputs_of": "**.2"}, "is not a linear layer"),
        ({"sites": "**.1"}, "into 2 places|traced"),
    ):
        bank = attach(model, speakers=["a"], example=x, **places)
        with pytest.raises(FoldError, match=rf"{message}"):
            fold(bank, "a", x)
        bank.detach()
    bank = attach(model, inputs_of="**.2.base_layer", speakers=["a"], example=x)
    bank.fill({site.name: torch.linspace(-1, 1, 8, dtype=torch.float64) for site in bank.sites})
    with bank.speaker("a"):
        torch.testing.assert_close(fold(bank, "a", x)(x), model(x), rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("compiled", [False, True])
def test_compiled_models_are_folded(mlp, randn, scatter, compiled):
    x, model = randn(3, 5), mlp
    if compiled:
        model.compile(backend="aot_eager")
    else:
        model = torch.compile(model, backend="aot_eager")
    bank = attach(model, inputs_of="**.hidden.1.linear", speakers=["a"])
    scatter(bank)
    with bank.speaker("a"):
        expected = model(x).detach()
    torch.testing.assert_close(fold(bank, "a", x)(x).detach(), expected, rtol=1e-11, atol=1e-12)


class TwoUses(nn.Module):
    """A layer whose weight a function may read too, and whose input depends on control flow."""

    def __init__(self, use, branches=False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self._use, self._branches = use, branches

    def forward(self, x):
        if self._branches and x.sum() > 1e9:
            return x
        return self._use(self, x, self.second(torch.relu(self.first(x))))


READS = {
    "tied": (lambda m, x, y: functional.linear(y, m.second.weight.t()), "t"),
    "as a table": (lambda m, x, y: y + functional.embedding(torch.tensor([1]), m.second.weight), "embedding"),
    "norm": (lambda m, x, y: y * m.second.weight.norm(), "norm"),
    "not as a module": (lambda m, x, y: y + m.second.forward(x), "linear"),
    "data": (lambda m, x, y: y @ m.second.weight.data, None),
}


@pytest.mark.parametrize("case", READS)
def test_a_weight_that_others_read_is_refused(case):
    use, function = READS[case]
    x = torch.ones(2, 4)
    for branches in (False, True):
        bank = attach(TwoUses(use, branches), inputs_of="second", speakers=["a"])
        with pytest.raises(FoldError, match=rf"the weight of 'second' is read elsewhere too \(.*{function or ''}"):
            fold(bank, "a", x)
        if function and not branches:
            with pytest.raises(FoldError, match=rf"the weight of 'second' is read elsewhere too \(.*{function}"):
                fold(bank, "a")


def test_its_shape_and_type_are_not_read(randn, scatter):
    model = TwoUses(lambda m, x, y: y.to(m.second.weight.dtype) * m.second.weight.shape[0], branches=True).double()
    bank, x = attach(model, inputs_of="second", speakers=["a"]), randn(2, 4)
    scatter(bank)
    with bank.speaker("a"):
        torch.testing.assert_close(fold(bank, "a", x)(x), model(x), rtol=1e-12, atol=1e-13)
    with pytest.raises(
        FoldError, match=r"TwoUses cannot be traced .*give an example .*fold\(bank, speaker, example=x\)"
    ):
        fold(bank, "a")


def test_a_layer_that_does_not_run_is_refused():
    model = TwoUses(lambda m, x, y: y, branches=True)
    model.third = nn.Linear(4, 4)
    bank = attach(model, inputs_of="third")
    with pytest.raises(FoldError, match="'third' does not run on the example"):
        fold(bank, "", torch.ones(2, 4))
    model._branches = False
    with pytest.raises(FoldError, match="'third' does not run by itself in the model's graph"):
        fold(bank, "")


@pytest.mark.parametrize("whole", [True, False])
def test_a_transformer_needs_an_example(randn, scatter, whole):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = (nn.TransformerEncoder(layer, 2) if whole else nn.Sequential(layer)).double().eval(), randn(3, 4, 8)
    bank = attach(model, inputs_of="**.linear2", speakers=["a"], example=x)
    scatter(bank)
    with bank.speaker("a"):
        expected = model(x)
    torch.testing.assert_close(fold(bank, "a", x)(x), expected, rtol=1e-10, atol=1e-12)
    message = "TransformerEncoder cannot be traced" if whole else r"'0\.linear2' runs inside '0' in the model's graph"
    with pytest.raises(FoldError, match=rf"{message}.*give an example of the model's input"):
        fold(bank, "a")


def test_what_the_copy_gives_is_compared():
    """A change in place of what a site has returned reaches the copy alone; the graph does not show it."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.site, self.reader = nn.Identity(), nn.Linear(4, 3)

        def forward(self, x):
            x = x + 0
            h = self.site(x)
            x.add_(1)
            return self.reader(h)

    model = InPlace()
    bank = attach(model, "site", ["a"], dim=-1, example=torch.ones(2, 4), batch_dim=0)
    bank.fill({"site": torch.linspace(-1, 1, 4)})
    with pytest.raises(FoldError, match="gives something else on the example"):
        fold(bank, "a", torch.ones(2, 4))


def test_folding_leaves_the_model_and_the_generator_alone(randn):
    model = model_of(Casting(8, 3))
    bank, x = attach(model, "1", ["a"]), randn(2, 5)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    fold(bank, "a", x)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(len(module._forward_hooks) == (name == "1") for name, module in model.named_modules())
