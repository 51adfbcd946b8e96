"""The methods that the contract suite runs over: all of ``METHODS``, some with several options, and the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from affine_features import AffineConfig
from pydantic import TypeAdapter
from scaled_speakers import frames_of
from speaker_codes import CodeConfig

from lhuc_asr.adapt.method import AdaptationMethod, PreparedMethod
from lhuc_asr.adapt.methods import METHODS, AnyMethod
from lhuc_asr.nnet.acoustic_model import AcousticModel

# Options of each method, by a name for the test; the kind is the name unless given.
OPTIONS: dict[str, dict[str, object]] = {
    "lhuc": {},
    "paper": {"kind": "lhuc", "preset": "paper"},
    "prior": {"kind": "lhuc", "prior_deviation": 0.3},
    "moments": {"prior_frames": 1000.0},  # people say a few seconds here
    "moments, then descent": {"kind": "moments", "descent": {"kind": "lhuc"}},
    "bayes": {},
    "map": {"kind": "bayes", "estimate": "map"},
    "subspace": {"dimensions": 2},
    "predicted": {"dimensions": 2},
    "none": {},
    "affine": {},
    "code": {},
}
# Methods that do not look at targets.
WITHOUT_TARGETS = ("predicted", "none")


def add_test_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tests' own methods into the table, as a new file in adapt/ would."""
    monkeypatch.setitem(METHODS, "affine", AffineConfig)
    monkeypatch.setitem(METHODS, "code", CodeConfig)


def prepared_method(name: str, model: AcousticModel, folder: Path) -> AdaptationMethod:
    """A method by its name in ``OPTIONS``, prepared on six training speakers if it learns from them."""
    options = {"kind": name, **OPTIONS[name]}
    method: AdaptationMethod = TypeAdapter(AnyMethod).validate_python(options).make(folder)
    if isinstance(method, PreparedMethod):
        generator = torch.Generator().manual_seed(3)
        training = {f"t{n}": frames_of(model, n, 60, 0.3 * torch.randn(2, 16, generator=generator)) for n in range(6)}
        method.prepare(model, training, seed=0)
    return method
