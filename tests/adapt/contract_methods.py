"""The methods that the contract suite runs over: all of ``METHODS``, some with several options, and the tests' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from scaled_speakers import frames_of
from speaker_codes import CodeConfig

from lhuc_asr.adapt.ivector import IvectorConfig
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, PreparedMethod
from lhuc_asr.adapt.methods import METHODS, AnyMethod
from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.stacked import Stacked, StackedMethod
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.adapt.vtln import WARPS_FILE, Vtln, save_warps
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dnn import Dnn

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
    "fmllr": {"min_counts": {"full": 60.0}},
    "basis_fmllr": {"min_count": 20.0},
    "fdlr": {"learning_rate": 0.01},
    "fdlr in blocks": {"kind": "fdlr", "min_counts": {"block": 1.0}, "blocks": 3, "learning_rate": 0.02},
    "vtln": {"lowest": 0.9, "highest": 1.1, "step": 0.05, "min_count": 1.0},
    "lin": {"learning_rate": 0.01},
    "lhn": {"learning_rate": 0.02},
    "lhn below": {"kind": "lhn", "layer": 0, "learning_rate": 0.02},
    "speaker_bias": {"learning_rate": 0.05},
    "prelu": {"learning_rate": 0.02},
    "lora": {"learning_rate": 0.02},
    "whole_network": {"learning_rate": 0.01},
    "batch_statistics": {"prior_frames": 10.0},
    "lhuc on fmllr": {"kind": "lhuc", "on": "fmllr"},
    "moments on fmllr": {"kind": "moments", "on": "fmllr", "prior_frames": 1000.0},
    "fdlr on fmllr": {"kind": "fdlr", "on": "fmllr"},
    "ivector": {},
    "ivector on fmllr": {"kind": "ivector", "on": "fmllr"},
    "lhuc on ivector": {"kind": "lhuc", "on": "ivector"},
    "fdlr on ivector": {"kind": "fdlr", "on": "ivector", "learning_rate": 0.01},
    "moments on ivector": {"kind": "moments", "on": "ivector", "prior_frames": 1000.0},
    "batch_statistics on ivector": {"kind": "batch_statistics", "on": "ivector", "prior_frames": 10.0},
    "bayes on ivector": {"kind": "bayes", "on": "ivector"},
    "subspace on ivector": {"kind": "subspace", "on": "ivector", "dimensions": 2},
    "predicted on ivector": {"kind": "predicted", "on": "ivector", "dimensions": 2},
    "none": {},
    "code": {},
}
# Methods that do not look at targets, and a stack of such a one on vectors, which do.
WITHOUT_TARGETS = ("predicted", "none")
TARGETS_BELOW = ("predicted on ivector",)


def add_test_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tests' own methods into the table, as a new file in adapt/ would."""
    monkeypatch.setitem(METHODS, "code", CodeConfig)


def gaussians(model: Dnn, folder: Path) -> AlignmentModel:
    """The files of a Gaussian for each pdf of the network's frames, and of wider ones for unadapted features."""
    frames = frames_of(model, 4, 4000)
    features, pdfs = torch.from_numpy(frames.features), torch.from_numpy(frames.targets.pdf[:, 0]).long()
    flat = DiagonalGmm.flat(features.mean(0), features.var(0), model.pdf_count)
    adapted = flat.update(flat.accumulate(features, pdfs))
    files = AlignmentModel(folder / "adapted.safetensors", folder / "unadapted.safetensors", model.pdf_count)
    adapted.save(files.adapted)
    replace(adapted, variance=1.3 * adapted.variance).save(folder / "unadapted.safetensors")
    return files


def prepared_method(
    name: str, model: AcousticModel, folder: Path, mixtures: AlignmentModel | None = None
) -> AdaptationMethod:
    """A method by its name in ``OPTIONS``, prepared on six training speakers if it learns from them.

    The data of speakers gets ``mixtures``, if there are any. Under a method on top of vectors, training speakers have
    theirs beside their features.
    """
    options = {"kind": name, **OPTIONS[name]}
    method: AdaptationMethod = TypeAdapter(AnyMethod).validate_python(options).make(folder)
    if isinstance(method, Vtln):
        # Warps are learned from sound, and nothing sounds here.
        size, warps = model.feature_dimension, method.config.warps
        noise = torch.randn(len(warps), size, size + 1, generator=torch.Generator().manual_seed(3)).double()
        save_warps(folder / WARPS_FILE, warps, torch.eye(size, size + 1) + 0.2 * noise)
    elif isinstance(method, PreparedMethod):
        # A basis of transforms has one direction for each number of a transform.
        generator, frames = torch.Generator().manual_seed(3), 600 if name == "basis_fmllr" else 60
        spoken = {f"t{n}": frames_of(model, n, frames, 0.3 * torch.randn(2, 16, generator=generator)) for n in range(6)}
        training = {name: replace(each, alignment_model=mixtures) for name, each in spoken.items()}
        if options.get("on") == "ivector":
            vectors = IvectorConfig().make(None).estimate(model, training, seed=0)
            training = {
                name: replace(each, features=vectors.transformed(name, each.features))
                for name, each in training.items()
            }
        method.prepare(model, training, seed=0)
    if options.get("on"):
        below = OPTIONS[str(options["on"])]
        method = On(TypeAdapter(AnyMethod).validate_python({"kind": options["on"], **below}).make(None), method)
    needs_mixtures = METHODS[str(options["kind"])].uses_gaussians or options.get("on") == "fmllr"
    return WithMixtures(method, mixtures) if mixtures is not None and needs_mixtures else method


@dataclass(frozen=True)
class WithMixtures:
    """A method whose speakers' data comes with Gaussian mixtures.

    Attributes:
        method: The method.
        mixtures: The mixtures.
    """

    method: AdaptationMethod
    mixtures: AlignmentModel

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> AdaptedSpeakers:
        data = {name: replace(each, alignment_model=self.mixtures) for name, each in speakers.items()}
        return self.method.estimate(model, data, seed)


@dataclass(frozen=True)
class On:
    """A method on top of one that changes features, which is estimated on the same data as a pass before would.

    Attributes:
        below: The method below.
        method: The method above.
    """

    below: AdaptationMethod
    method: AdaptationMethod

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Stacked:
        below = self.below.estimate(model, speakers, seed)
        if not isinstance(below, ChangedFeatures):
            raise TypeError(f"{type(self.below).__name__} does not change features")
        return StackedMethod(below, self.method).estimate(model, speakers, seed)


def above(speakers: AdaptedSpeakers) -> AdaptedSpeakers:
    """The parameters of the method itself, without transforms below."""
    return speakers.above if isinstance(speakers, Stacked) else speakers
