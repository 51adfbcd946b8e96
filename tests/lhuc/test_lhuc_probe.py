"""Sites of models that strangers wrote: axes found by running them, inputs of layers, fields of outputs, refusals."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc import Site, attach, fold


def built(factory) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return factory().double().eval()


class Activation(nn.Module):
    """An activation that torch's own list does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.7 * x)


class Sequences(nn.Module):
    """(B, T, 5) -> (B, T, 3), with a middle that sees its neighbours; time first (T, B, 5) where asked for."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.lower, self.act = nn.Linear(5, 6), Activation()
        self.lstm = nn.LSTM(6, 4, batch_first=batch_first, bidirectional=True)
        self.upper = nn.Linear(8, 7)
        self.output = nn.Linear(7, 3)

    def forward(self, features: Tensor, scale: float = 1.0) -> Tensor:
        hidden, _ = self.lstm(self.act(self.lower(features * scale)))
        return self.output(functional.gelu(self.upper(hidden)))


def assert_mixed_is_alone(model, bank, run, batch_axis, scatter, count=4) -> None:
    """A batch of several speakers against each of them alone, by rows and by blocks."""
    scatter(bank)
    plain = run()
    for names, mixed in ((["a", "", "b", "a"], bank.rows), (["b", "a"], bank.blocks)):
        with mixed(names):
            together = run()
        for place in range(count):
            name = names[place * len(names) // count]
            with bank.speaker(name):
                alone = run()
            torch.testing.assert_close(
                together.select(batch_axis, place), alone.select(batch_axis, place), rtol=1e-10, atol=1e-12
            )
            assert not torch.allclose(alone, plain) or not name
    bank.detach()


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_axis_of_the_batch_is_found(batch_first, randn, scatter):
    model, x = built(lambda: Sequences(batch_first)), randn(4, 6, 5) if batch_first else randn(6, 4, 5)
    axis = 0 if batch_first else 1
    for example in (x, (x, 0.5), {"features": x, "scale": 2.0}):
        bank = attach(model, ["act", "upper", "lstm"], ["a", "b"], inputs_of="output", example=example)
        assert bank.sites == (
            Site("act", 6, -1, axis),
            Site("lstm", 8, -1, axis),
            Site("upper", 7, -1, axis),
            Site("output:input", 7, -1, axis),
        )
        assert_mixed_is_alone(model, bank, lambda: model(x), axis, scatter)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_transformers_with_padding(batch_first, randn, scatter):
    layer = built(lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first))
    model = built(lambda: nn.TransformerEncoder(layer, 2))
    axis, x = (0, randn(4, 5, 8)) if batch_first else (1, randn(5, 4, 8))
    padding = torch.arange(5) >= torch.tensor([5, 3, 4, 2])[:, None]
    heard = (~padding if batch_first else ~padding.T)[..., None]
    with torch.no_grad():
        before = model(x, src_key_padding_mask=padding) * heard
        example = {"src": x, "src_key_padding_mask": padding}
        bank = attach(model, inputs_of="layers.*.linear2", speakers=["a", "b"], example=example)
        assert [site.batch_dim for site in bank.sites] == [axis, axis]
        torch.testing.assert_close(model(x, src_key_padding_mask=padding) * heard, before, rtol=1e-10, atol=1e-12)
        assert_mixed_is_alone(model, bank, lambda: model(x, src_key_padding_mask=padding) * heard, axis, scatter)
        assert torch.equal(model(x, src_key_padding_mask=padding) * heard, before)


def test_frames_that_each_stand_alone_need_the_user(randn, scatter):
    model, x = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double(), randn(6, 4, 5)
    with pytest.raises(
        SiteError, match="each element of the example alone along both of its first two axes; pass batch_"
    ):
        attach(model, "1", example=x)
    bank = attach(model, "1", ["a", "b"], example=x, batch_dim=1)
    assert_mixed_is_alone(model, bank, lambda: model(x), 1, scatter)
    assert attach(model, "1", example=x[0]).sites == (Site("1", 6),)  # frames (B, D) alone are not in doubt


def test_a_batch_that_cannot_be_told_is_refused(randn):
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    with pytest.raises(SiteError, match=r"no axis of the example counts.*'linear' has 12 elements along axis 0 for 3"):
        attach(built(Merged), "linear", example=randn(3, 4, 5))

    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x - x.mean((0, 1), keepdim=True))

    with pytest.raises(SiteError, match="axis 0: at 'linear' the elements depend on each other; axis 1: at 'linear'"):
        attach(built(Joint), "linear", example=randn(3, 4, 5))
    with pytest.raises(SiteError, match="it lies elsewhere than along batch_dim=2"):
        attach(built(Sequences), "upper", example=randn(3, 4, 5), batch_dim=2)
    with pytest.raises(SiteError, match=r"has no units along axis 0, its batch along 0; correct dim="):
        attach(built(Sequences), "upper", example=randn(3, 4, 5), dim=0)


def test_a_module_that_runs_never_or_twice_is_refused(randn, scatter):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.upper, self.relu, self.spare = nn.Linear(5, 6), nn.Linear(6, 6), nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.upper(self.relu(self.lower(x))))

    model, x = built(Twice), randn(4, 5)
    with pytest.raises(SiteError, match="'relu': the model runs it 2 times, so that one row would scale 2 layers"):
        attach(model, "relu", example=x)
    with pytest.raises(SiteError, match="does not run 'spare' on the example; leave these sites out"):
        attach(model, ["lower", "spare"], example=x)
    bank = attach(model, "relu", ["a", "b"], example=x, repeats=True)
    assert_mixed_is_alone(model, bank, lambda: model(x), 0, scatter)
    attention = nn.TransformerEncoderLayer(8, 2, 12)
    with pytest.raises(SiteError, match="never runs its out_proj as a module; attach to 'self_attn'"):
        attach(attention, "self_attn.out_proj")


@dataclass
class Record:
    hidden: Tensor
    extra: int


class Named(NamedTuple):
    hidden: Tensor
    extra: int


class ModelOutput(OrderedDict):
    """In the manner of Hugging Face: a mapping whose items are attributes too."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


class Returning(nn.Module):
    def __init__(self, pack, unpack) -> None:
        super().__init__()
        self.body = Body(pack)
        self.output = nn.Linear(6, 3)
        self.unpack = unpack

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.unpack(self.body(x)))


class Body(nn.Module):
    def __init__(self, pack) -> None:
        super().__init__()
        self.linear, self.pack = nn.Linear(5, 6), pack

    def forward(self, x: Tensor) -> object:
        return self.pack(torch.relu(self.linear(x)))


@pytest.mark.parametrize(
    ("pack", "unpack", "field", "offered"),
    [
        (lambda h: {"hidden": h, "extra": 1}, lambda o: o["hidden"], "hidden", "dict.*field= hidden, extra"),
        (lambda h: ModelOutput(hidden=h), lambda o: o.hidden, "hidden", "ModelOutput.*field= hidden"),
        (lambda h: Record(h, 1), lambda o: o.hidden, "hidden", "Record.*field= hidden, extra"),
        (lambda h: Named(h, 1), lambda o: o.hidden, "hidden", "Named.*field= hidden, extra"),
        (lambda h: [1, h], lambda o: o[1], 1, "list.*field= 0, 1"),
        (lambda h: (1, h), lambda o: o[1], 1, "int, expected a tensor"),
    ],
)
def test_fields_of_outputs(pack, unpack, field, offered, randn, scatter):
    model, x = built(lambda: Returning(pack, unpack)), randn(4, 5)
    with pytest.raises(SiteError, match=rf"site 'body': its module returns {offered}"):
        attach(model, "body", example=x)
    with pytest.raises(SiteError, match="without 'nothing'"):
        attach(model, "body", example=x, field="nothing")
    bank = attach(model, "body", ["a", "b"], example=x, field=field)
    assert bank.sites == (Site(f"body:output.{field}", 6),)
    assert type(model.body(x)) is type(pack(x))
    assert_mixed_is_alone(model, bank, lambda: model(x), 0, scatter)


def test_inputs_of_layers(randn, scatter, tmp_path):
    """A functional activation is reached at the layer that reads it, and folds there without tracing."""
    model, x = built(Sequences), randn(4, 6, 5)
    bank = attach(model, inputs_of=["output", "upper"], speakers=["a", "b"])
    assert bank.sites == (Site("upper:input", 8), Site("output:input", 7))
    scatter(bank)
    amplitudes = {site.name: bank.xi(site.name, bank.rows_of(["a"])) for site in bank.sites}
    hidden, _ = model.lstm(model.act(model.lower(x)))
    hidden = functional.linear(hidden * amplitudes["upper:input"], model.upper.weight, model.upper.bias)
    expected = functional.linear(
        functional.gelu(hidden) * amplitudes["output:input"], model.output.weight, model.output.bias
    )
    with bank.speaker("a"):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(model(features=x), expected, rtol=1e-12, atol=1e-14)
    folded = fold(bank, "a")
    assert not any(module._forward_pre_hooks for module in folded.modules())
    torch.testing.assert_close(folded(x), expected, rtol=1e-11, atol=1e-13)
    bank.save(tmp_path)
    bank.detach()
    again = type(bank).load(tmp_path, model)
    with again.speaker("a"):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(SiteError, match="'output:input' carries amplitudes already"):
        attach(model, inputs_of="output")
    attach(model, "output")  # its output is another place


def test_inputs_given_by_name_are_scaled(randn):
    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(input=x)

    model, x = built(ByName), randn(4, 5)
    bank = attach(model, inputs_of="linear", speakers=["a"], example=x)
    with torch.no_grad():
        bank.tables[0][1] = randn(5)
    with bank.speaker("a"):
        scaled = model(x)
    assert torch.allclose(
        scaled, functional.linear(x * bank.tables[0][1].exp(), model.linear.weight, model.linear.bias)
    )


def test_a_name_with_a_colon_is_refused():
    model = nn.Sequential(OrderedDict([("a:b", nn.Linear(2, 2))]))
    with pytest.raises(SiteError, match="a name with a colon cannot be a site"):
        attach(model, "a:b")
