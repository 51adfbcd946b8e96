"""The identity of a model: what counts, and what does not."""

import copy
import hashlib
import itertools
import json

import pytest
import torch
from safetensors.torch import save_file
from small_models import Cnn, Counted, Mlp, quantized, seeded
from torch import nn

from lhuc_asr.base.errors import ModelMismatchError, SiteError
from lhuc_asr.lhuc import Site, SpeakerBank, SpeakerState, attach, is_model, model_hash, write_archive
from lhuc_asr.lhuc.identity import same_model

SITES = "hidden.*.activation"
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def ulp_of_bfloat16(model: nn.Module) -> nn.Module:
    """A copy in which one weight is the next number that bfloat16 has."""
    changed = copy.deepcopy(model)
    weight = changed.output.weight
    near = weight.detach()[1, 2].bfloat16()
    weight.data[1, 2] = (near.view(torch.int16) + 1).view(torch.bfloat16).to(weight.dtype)
    return changed


def is_same(one: nn.Module, other: nn.Module) -> bool:
    """Whether a file that is made on one model is loaded on the other."""
    return same_model(model_hash(one), model_hash(other))


@pytest.mark.parametrize("factory", [Mlp, Cnn])
@pytest.mark.parametrize("types", [*itertools.permutations(TYPES, 2)])
def test_the_same_model_in_another_type(factory, types):
    """Rounded once, from the wider type to the narrower: between float16 and bfloat16 neither is."""
    model = seeded(factory)
    one, other = (copy.deepcopy(model).to(dtype) for dtype in types)
    assert is_same(one, other) == (set(types) != {torch.bfloat16, torch.float16})
    for changed in (ulp_of_bfloat16(one), ulp_of_bfloat16(other)):
        assert not is_same(changed, one)
        assert not is_same(changed, other)
        assert not is_same(one, changed)
        assert not is_same(other, changed)


def test_a_model_that_was_rounded_and_is_in_float32_again(mlp):
    """As one whose checkpoint is in bfloat16: another model in float32, but the same in the narrower type."""
    single = copy.deepcopy(mlp).float()
    for dtype in (torch.bfloat16, torch.float16):
        narrow = copy.deepcopy(single).to(dtype)
        again = copy.deepcopy(narrow).float()
        assert not is_same(single, again)
        assert is_same(again, narrow)
        for other in (torch.bfloat16, torch.float16):
            assert is_same(narrow, copy.deepcopy(again).to(other))


def test_each_bit_counts_between_models_of_one_type(mlp):
    for dtype in TYPES:
        model = copy.deepcopy(mlp).to(dtype)
        changed = copy.deepcopy(model)
        bits = changed.output.bias.data.view(INTEGERS[dtype.itemsize])
        bits[1] += 1
        assert not is_same(model, changed)
        assert not is_same(changed, model)


def test_some_layers_in_another_type(cnn):
    single = cnn.float()
    mixed = copy.deepcopy(single).bfloat16()
    mixed.lower[1].float()
    mixed.lower[1].load_state_dict(single.lower[1].state_dict())
    single.lower[1].weight.data[2] = mixed.lower[1].weight.data[2] = 1 + 1e-5  # which bfloat16 does not have
    assert is_same(single, mixed)
    assert is_same(mixed, single)
    assert is_same(mixed, copy.deepcopy(single).bfloat16())
    assert not is_same(ulp_of_bfloat16(mixed), single)
    other = copy.deepcopy(mixed)
    other.lower[1].weight.data[2] += 1e-5
    assert not is_same(mixed, other)


def test_integers_count_exactly():
    def model(dtype, *values):
        made = nn.Linear(2, 2)
        made.register_buffer("index", torch.tensor(values, dtype=dtype))
        return made.requires_grad_(False).apply(lambda module: nn.init.ones_(module.weight).add_(module.bias.zero_()))

    assert is_same(model(torch.int64, 1, 2), model(torch.int64, 1, 2))
    for other in (model(torch.int64, 1, 3), model(torch.int32, 1, 2), model(torch.float32, 1, 2)):
        assert not is_same(model(torch.int64, 1, 2), other)


def test_names_and_shapes_count(mlp):
    twin = copy.deepcopy(mlp)
    twin.scores = twin.output
    del twin.output
    assert not is_same(mlp, twin)
    twin = copy.deepcopy(mlp)
    twin.output.weight.data = twin.output.weight.data.reshape(6, 3)
    assert not is_same(mlp, twin)


def test_a_file_of_one_type_is_loaded_onto_the_model_in_another(mlp, scatter, tmp_path):
    models = {dtype: copy.deepcopy(mlp).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    for dtype, model in models.items():
        bank = attach(model, SITES, ["ann"])
        scatter(bank)
        bank.save(tmp_path / str(dtype))
        write_archive(tmp_path / f"{dtype}.archive", bank.states())
        bank.detach()
    pairs = list(itertools.permutations(models, 2))
    for saved, here in pairs[:3] + pairs[4:5]:
        bank = SpeakerBank.load(tmp_path / str(saved), models[here])
        assert bank.speakers == ("ann",)
        bank.drop(["ann"])
        bank.open_archive(tmp_path / f"{saved}.archive")
        bank.fetch(["ann"])
        assert torch.equal(bank.state("ann").r["hidden.0.activation"], bank.tables[0][1])
        bank.detach()
    message = "float16 and bfloat16; load the speaker onto the float32 model, and save it again"
    with pytest.raises(ModelMismatchError, match=message):
        SpeakerBank.load(tmp_path / "torch.float16", models[torch.bfloat16])


class Wrapper(nn.Module):
    """A model of somebody's own around another."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def part_compiled(model: nn.Module) -> nn.Module:
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.hidden = nn.ModuleList([torch.compile(layer, backend="eager") for layer in model.hidden])
    return twin


WRAPPERS = {
    "none": lambda model: model,
    "compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "own": Wrapper,
    "own, compiled": lambda model: torch.compile(Wrapper(Wrapper(model)), backend="eager"),
    "inside own": lambda model: Wrapper(torch.compile(model, backend="eager")),
    "layers": part_compiled,
    "averaged": torch.optim.swa_utils.AveragedModel,
}


@pytest.mark.parametrize(("saved", "here"), [*zip(WRAPPERS, [*[*WRAPPERS][1:], "none"], strict=True), ("none", "own")])
@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # compiling takes seconds
def test_wrappers_do_not_count(saved, here, mlp, scatter, randn, tmp_path):
    first, second = (WRAPPERS[kind](copy.deepcopy(mlp)) for kind in (saved, here))
    bank = attach(first, [nn.Sigmoid], ["ann"], inputs_of="**.output")
    scatter(bank)
    x = randn(3, 5)
    with bank.speaker("ann"):
        expected = bank.model(x)
    bank.save(tmp_path)
    write_archive(tmp_path / "archive", bank.states())
    assert same_model(model_hash(first), model_hash(second))
    assert is_model(model_hash(first), second)
    loaded = SpeakerBank.load(tmp_path, second)
    with loaded.speaker("ann"):
        assert torch.equal(second(x), expected)
    loaded.drop(["ann"])
    loaded.open_archive(tmp_path / "archive")
    loaded.fetch(["ann"])
    with loaded.speaker("ann"):
        assert torch.equal(second(x), expected)
    loaded.put(bank.state("ann"))
    loaded.detach()
    mlp.output.weight[0, 0] += 1e-9
    with pytest.raises(ModelMismatchError, match="was adapted on the model"):
        SpeakerBank.load(tmp_path, WRAPPERS[here](mlp))


def test_sites_of_a_compiled_model_are_named_as_without(mlp):
    compiled = torch.compile(mlp, backend="eager")
    bank = attach(compiled, SITES, ["ann"])
    assert bank.model is mlp
    assert [site.name for site in bank.sites] == ["hidden.0.activation", "hidden.1.activation"]


def test_buffers_that_drift_do_not_count(cnn, mlp):
    counted = copy.deepcopy(cnn)
    counted.lower[1].num_batches_tracked += 5
    assert model_hash(counted) == model_hash(cnn)
    for name in ("running_mean", "running_var"):
        other = copy.deepcopy(cnn)
        getattr(other.lower[1], name)[1] += 1e-6
        assert not is_same(other, cnn)
    before = model_hash(mlp)
    mlp.register_buffer("positions", torch.arange(3), persistent=False)
    assert model_hash(mlp) == before
    mlp.positions = torch.arange(9)
    assert model_hash(mlp) == before
    mlp.register_buffer("scale", torch.ones(1))
    assert model_hash(mlp) != before


def test_packed_weights_count():
    """Also those of recurrent layers; the same weights that are packed again are the same model."""
    layers = [nn.LSTM(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)]
    model, again = quantized(*copy.deepcopy(layers)), quantized(*copy.deepcopy(layers))
    assert is_same(model, again)
    others = [nn.Sequential(*copy.deepcopy(layers))]
    for layer in layers:
        weight = next(layer.parameters())
        with torch.no_grad():
            weight[0, 1] += 2 * weight.abs().max()
        others.append(quantized(*copy.deepcopy(layers)))
    hashes = [model_hash(each) for each in (model, *others)]
    assert not any(same_model(one, other) for one, other in itertools.combinations(hashes, 2))


def test_packed_weights_of_a_saved_speaker(tmp_path):
    model = quantized(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    SpeakerBank(model, [Site("1", 6)], ["ann"]).save(tmp_path)
    weight = model[2].weight()
    model[2].set_weight_bias(
        torch.quantize_per_tensor(weight.dequantize() / 2, weight.q_scale(), weight.q_zero_point(), weight.dtype),
        model[2].bias(),
    )
    with pytest.raises(ModelMismatchError, match=r"ann\.safetensors: speaker 'ann' was adapted on the model"):
        SpeakerBank.load(tmp_path, copy.deepcopy(model))


def test_what_cannot_be_compared_is_refused():
    model = nn.Sequential(Counted(2, 2), nn.Linear(2, 2))
    model[0].extra = object()
    with pytest.raises(ModelMismatchError, match=r"0\.state\._extra_state: the module saves a object.*bank\.parts"):
        model_hash(model)
    assert model_hash(model, ["0.weight", "1.**"])


@torch.no_grad()
@torch.compiler.set_stance("force_eager")
def test_named_parts(mlp, scatter, randn, tmp_path):
    """A new head does not count, a change of the encoder does; nothing is read by parts that was saved whole."""
    x = randn(3, 5)
    bank = attach(mlp, SITES, ["ann"])
    scatter(bank)
    hidden = {}
    mlp.output.register_forward_pre_hook(lambda _, inputs: hidden.update(here=inputs[0]))
    with bank.speaker("ann"):
        mlp(x)
    expected = hidden["here"]
    bank.save(tmp_path / "whole")
    bank.parts = ["hidden.**"]
    assert copy.deepcopy(bank).parts == bank.parts
    bank.save(tmp_path / "parts")
    write_archive(tmp_path / "archive", bank.states())
    bank.detach()

    new = copy.deepcopy(mlp)
    new.output = nn.Linear(6, 7).double()
    new.output.register_forward_pre_hook(lambda _, inputs: hidden.update(there=inputs[0]))
    with pytest.raises(ModelMismatchError, match="was adapted on the model"):
        SpeakerBank.load(tmp_path / "whole", new)
    for model in (new, Wrapper(new), torch.compile(new, backend="eager")):
        loaded = SpeakerBank.load(tmp_path / "parts", model)
        assert loaded.parts == ("hidden.**",)
        with loaded.speaker("ann"):
            model(x)
        assert torch.equal(hidden["there"], expected)
        loaded.open_archive(tmp_path / "archive")
        loaded.detach()

    strict = attach(new, SITES, ["zoe"])
    message = r"belongs to its parts hidden\.\*\*, the bank to the whole model; set bank\.parts = \['hidden\.\*\*'\]"
    with pytest.raises(ModelMismatchError, match=message):
        strict.put(SpeakerState.load(tmp_path / "parts" / "ann.safetensors"))
    with pytest.raises(ModelMismatchError, match=message):
        strict.open_archive(tmp_path / "archive")
    strict.parts = ["hidden.**"]
    strict.put(SpeakerState.load(tmp_path / "parts" / "ann.safetensors"))
    assert strict.speakers == ("zoe", "ann")
    strict.detach()

    new.hidden[0].linear.weight[1, 1] += 1e-9
    with pytest.raises(ModelMismatchError, match="was adapted on the model"):
        SpeakerBank.load(tmp_path / "parts", new)


def test_parts_that_match_nothing(mlp, cnn, tmp_path):
    bank = attach(mlp, SITES, ["ann"])
    bank.parts = ["hidden.**"]
    bank.save(tmp_path)
    bank.parts = ["hiden.**"]
    with pytest.raises(SiteError, match=r"matches the part 'hiden\.\*\*'; nearest names: .*hidden\.0\.linear\.weight"):
        bank.save(tmp_path)
    with pytest.raises(ModelMismatchError, match=r"ann\.safetensors: it belongs to parts of another model: .*'hidden"):
        SpeakerBank.load(tmp_path, cnn)


def first_form(model) -> str:
    """The hash of earlier versions, written out."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def test_files_of_earlier_versions(cnn, mlp, tmp_path):
    """They are loaded onto the very model; elsewhere they are refused, and the message says what to do."""
    for model, sites in ((mlp, SITES), (cnn, "*.2")):
        folder = tmp_path / type(model).__name__
        folder.mkdir()
        bank = attach(model, sites, ["ann"])
        bank.detach()
        for name, state in (("ann", bank.state("ann")), ("speaker-independent", bank.state(""))):
            description = {"format": "lhuc-speaker-1", "speaker": state.speaker, "amplitude": "exp", "extras": []}
            description |= {"model": first_form(model), "sites": [[s.name, s.dim, s.batch_dim] for s in state.sites]}
            save_file(dict(state.r), folder / f"{name}.safetensors", {"description": json.dumps(description)})
        old = [SpeakerState.load(path) for path in sorted(folder.iterdir())]
        write_archive(tmp_path / "archive", old)
        loaded = SpeakerBank.load(folder, torch.compile(model, backend="eager"))
        loaded.open_archive(tmp_path / "archive")
        assert is_model(first_form(model), model)
        loaded.save(folder)
        loaded.detach()
        assert SpeakerState.load(folder / "ann.safetensors").model == model_hash(model)
        bank.put(*old)
        message = (
            "this one is .* The file is of the older form, .* load the speaker onto the model as it was, and save it"
        )
        for changed in (copy.deepcopy(model).float(), seeded(type(model), seed=5)):
            with pytest.raises(ModelMismatchError, match=message):
                SpeakerBank(changed, bank.sites).put(*old)
