"""What the refusal of a speaker says of the model: where it differs from the speaker's own, and what to do."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from small_models import Mlp, seeded
from torch import nn

from lhuc_asr.base.errors import ModelMismatchError
from lhuc_asr.lhuc import SpeakerBank, SpeakerState, attach

SITES = "hidden.*.activation"
HEAD = nn.Linear(6, 9).double()


@pytest.fixture
def folder(mlp, tmp_path):
    bank = attach(mlp, SITES, ["ann"])
    bank.save(tmp_path)
    bank.detach()
    return tmp_path


def refusal(folder, model: nn.Module) -> str:
    with pytest.raises(
        ModelMismatchError, match=r"speaker 'ann' was adapted on the model \w{12}, this one is"
    ) as error:
        SpeakerBank.load(folder, model)
    assert "\n" not in str(error.value)
    return str(error.value)


def wider_head(model: nn.Module) -> None:
    model.output = copy.deepcopy(HEAD)


def renamed_head(model: nn.Module) -> None:
    model.scores = model.output
    del model.output


def trained_head(model: nn.Module) -> None:
    model.output.bias.data += 0.1


def trained_encoder(model: nn.Module) -> None:
    model.hidden[1].linear.weight.data[2, 3] += 0.1


def nudged(model: nn.Module) -> None:
    model.output.bias.data[0] *= 1 + 1e-12


HINT = "if no site depends on what differs, load the speaker onto its own model, set bank.parts = ['{}.**'], and save"


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (wider_head, "(other names or shapes: output)", HINT.format("hidden")),
        (renamed_head, "(missing here: output; new here: scores)", HINT.format("hidden")),
        (trained_head, "(other values: output)", HINT.format("hidden")),
        (trained_encoder, "(other values: hidden)", HINT.format("output")),
        (nudged, "(other values, which the checksums in bfloat16 do not show)", ""),
    ],
)
def test_the_parts_that_differ_are_named(folder, mlp, change: Callable[[nn.Module], None], said, hint):
    change(mlp)
    message = refusal(folder, mlp)
    assert said in message
    assert hint in message
    assert bool(hint) == ("bank.parts" in message)


def test_what_the_hint_says_works(folder, mlp):
    own, new = copy.deepcopy(mlp), copy.deepcopy(mlp)
    wider_head(new)
    assert HINT.format("hidden") in refusal(folder, new)
    bank = SpeakerBank.load(folder, own)
    bank.parts = ["hidden.**"]
    bank.save(folder)
    assert SpeakerBank.load(folder, new).speakers == ("ann",)


def test_another_model_shares_nothing(folder):
    message = refusal(folder, seeded(Mlp, seed=5))
    assert "(other values: hidden, output); load the model it belongs to, or adapt the speaker again" in message
    assert "bank.parts" not in message
    assert "(missing here: hidden, output; new here: 0, 1)" in refusal(
        folder, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    )


def test_models_of_other_types_are_compared_as_far_as_they_can_be(folder, mlp):
    trained_head(mlp)
    assert "(other values: output)" in refusal(folder, copy.deepcopy(mlp).bfloat16())
    assert "(other values, which the checksums" in refusal(folder, copy.deepcopy(mlp).half())
    wider_head(mlp)
    assert "(other names or shapes: output)" in refusal(folder, copy.deepcopy(mlp).half())


@pytest.mark.parametrize("top", ["", "nonsense", "a.00,b.12345678.1234567x", "%0A.12345678.12345678"])
def test_files_of_the_form_before_and_damaged_checksums(folder, mlp, top):
    """The checksums decide nothing; a file of the form before has none."""
    for path in folder.iterdir():
        state = SpeakerState.load(path)
        exact, _, *fields, _ = state.model.split(":")
        old = [exact, "2", *fields] if not top else [exact, "3", *fields, top]
        replace(state, model=":".join(old)).save(path)
    if "%0A" not in top:
        bank = SpeakerBank.load(folder, mlp)
        assert bank.speakers == ("ann",)
        bank.detach()
    trained_head(mlp)
    message = refusal(folder, mlp)
    assert "of an earlier version, does not say where" in message or "%0A" in top
