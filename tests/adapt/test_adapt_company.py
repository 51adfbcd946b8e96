"""Speakers have the same parameters, to the bit, whoever else adapts beside them: work may be divided in any way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

FEATURES, PDFS = 13, 163
# Full mini-batches, batches with a frame too many, and less than one.
FRAMES = {"a": 35, "b": 200, "c": 256, "d": 257, "e": 511, "f": 700, "g": 1, "h": 90}
DIVISIONS = ["ab cd ef gh", "abc defgh", "a b c d e f g h", "hgfedcba"]
# Odd sizes: libraries sum what is left over of a processor's vectors in another order.
MODEL = DnnConfig(hidden_layers=2, hidden_units=47, activation="relu", context=2)
KINDS = ("lhuc", "whole_network", "speaker_bias", "prelu", "lora", "lin", "lhn", "fdlr")


@pytest.fixture(scope="module")
def model() -> Dnn:
    model = Dnn(MODEL, FEATURES, PDFS)
    model.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.output.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.fixture(scope="module")
def people() -> dict[str, SpeakerData]:
    generator = np.random.default_rng(0)
    data = {}
    for name, frames in FRAMES.items():
        pdfs = generator.integers(0, PDFS, (frames, 1)).astype(np.int32)
        targets = FrameTargets(pdfs, np.ones((frames, 1), np.float32), np.ones(frames, np.float32))
        features = generator.standard_normal((frames, FEATURES)).astype(np.float32)
        data[name] = SpeakerData(features, (frames,), targets, ())
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_no_bit(kind: str, model: Dnn, people: dict[str, SpeakerData], tmp_path: Path) -> None:
    method = METHODS[kind](sweeps=2, learning_rate=0.01).make(None)

    def parameters(division: str) -> dict[str, dict[str, torch.Tensor]]:
        by_speaker = {}
        for number, names in enumerate(division.split()):
            folder = tmp_path / f"{division}-{number}"
            method.estimate(model, {name: people[name] for name in names}, 1).save(folder)
            by_speaker |= {path.stem: load_tensors(path)[0] for path in folder.glob("?.safetensors")}
        return by_speaker

    together = parameters("abcdefgh")
    assert len(together) == len(FRAMES)
    contents = {b"".join(tensor.numpy().tobytes() for tensor in tensors.values()) for tensors in together.values()}
    assert len(contents) == len(FRAMES), "everybody has moved"
    for division in DIVISIONS:
        apart = parameters(division)
        assert apart.keys() == together.keys()
        for name, tensors in together.items():
            assert all(torch.equal(apart[name][key], value) for key, value in tensors.items()), (division, name)
