"""Speakers have the same parameters, to the bit, whoever else adapts beside them: work may be divided in any way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.method import PreparedMethod
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

FEATURES, PDFS = 13, 163
# Full mini-batches, batches with a frame too many, and less than one.
FRAMES = {"a": 35, "b": 200, "c": 256, "d": 257, "e": 511, "f": 700, "g": 1, "h": 90, "i": 9, "j": 16}
DIVISIONS = ["ab cd ef gh ij", "abc defghij", "a b c d e f g h i j", "jihgfedcba"]
# Odd sizes: libraries sum what is left over of a processor's vectors in another order.
MODEL = DnnConfig(hidden_layers=2, hidden_units=47, activation="relu", context=2)
KINDS = ("lhuc", "whole_network", "speaker_bias", "prelu", "lora", "lin", "lhn", "fdlr")
NEEDS_RELU = ("sigmoid", "prelu")
# More speakers than a processor's vectors have numbers, and as many steps as Adam takes until its powers show it.
CROWD, STEPS = 40, 40
OF_CROWDS: list[tuple[str, dict[str, Any]]] = [
    ("lhuc", {"amplitude": "exp"}),
    ("lhuc", {"amplitude": "exp", "optimizer": "sgd"}),
    ("lhuc", {"amplitude": "2sigmoid"}),
    ("lhuc", {"amplitude": "exp", "prior_deviation": 0.1}),
    ("bayes", {}),
    ("bayes", {"estimate": "map"}),
    ("subspace", {"dimensions": 3}),
    ("speaker_bias", {}),
    ("prelu", {}),
    ("lora", {}),
    ("fdlr", {}),
]


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Dnn:
    model = Dnn(MODEL.model_copy(update={"activation": request.param}), FEATURES, PDFS)
    model.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.output.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return model.eval()


def spoken(frames_of: dict[str, int]) -> dict[str, SpeakerData]:
    """Random data of some speakers, by their numbers of frames."""
    generator = np.random.default_rng(0)
    data = {}
    for name, frames in frames_of.items():
        pdfs = generator.integers(0, PDFS, (frames, 1)).astype(np.int32)
        targets = FrameTargets(pdfs, np.ones((frames, 1), np.float32), np.ones(frames, np.float32))
        features = generator.standard_normal((frames, FEATURES)).astype(np.float32)
        data[name] = SpeakerData(features, (frames,), targets, ())
    return data


@pytest.fixture(scope="module")
def people() -> dict[str, SpeakerData]:
    return spoken(FRAMES)


@pytest.mark.parametrize(
    ("model", "kind"),
    [(activation, kind) for activation in ("relu", "sigmoid") for kind in KINDS if (activation, kind) != NEEDS_RELU],
    indirect=["model"],
)
def test_company_changes_no_bit(kind: str, model: Dnn, people: dict[str, SpeakerData], tmp_path: Path) -> None:
    method = METHODS[kind](sweeps=2, learning_rate=0.01).make(None)

    def parameters(division: str) -> dict[str, dict[str, torch.Tensor]]:
        by_speaker = {}
        for number, names in enumerate(division.split()):
            folder = tmp_path / f"{division}-{number}"
            method.estimate(model, {name: people[name] for name in names}, 1).save(folder)
            by_speaker |= {path.stem: load_tensors(path)[0] for path in folder.glob("?.safetensors")}
        return by_speaker

    together = parameters("abcdefghij")
    assert len(together) == len(FRAMES)
    contents = {b"".join(tensor.numpy().tobytes() for tensor in tensors.values()) for tensors in together.values()}
    assert len(contents) == len(FRAMES), "everybody has moved"
    for division in DIVISIONS:
        apart = parameters(division)
        assert apart.keys() == together.keys()
        for name, tensors in together.items():
            assert all(torch.equal(apart[name][key], value) for key, value in tensors.items()), (division, name)


@pytest.mark.parametrize("model", ["relu"], indirect=True)
@pytest.mark.parametrize(("kind", "own"), OF_CROWDS, ids=str)
def test_a_crowd_changes_no_bit(kind: str, own: dict[str, Any], model: Dnn, tmp_path: Path) -> None:
    """Forty speakers share every mini-batch. Four of them adapt alone, too, and get the same parameters."""
    crowd = spoken({f"p{number:02d}": 50 + number for number in range(CROWD)})
    descent = {"sweeps": STEPS, "learning_rate": 0.01, "optimizer": "adam"}
    options = {"lhuc": descent} if kind in ("bayes", "subspace") else descent
    method = METHODS[kind](**(options | own)).make(tmp_path)
    if isinstance(method, PreparedMethod):
        method.prepare(model, dict(list(crowd.items())[:8]), 1)

    def parameters(names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        folder = tmp_path / f"{len(names)}-{names[0]}"
        method.estimate(model, {name: crowd[name] for name in names}, 1).save(folder)
        return {path.stem: load_tensors(path)[0] for path in folder.glob("p??.safetensors")}

    together = parameters(list(crowd))
    assert len(together) == CROWD
    for name in ("p00", "p17", "p31", "p39"):
        alone = parameters([name])[name]
        assert all(torch.equal(alone[key], value) for key, value in together[name].items()), name
