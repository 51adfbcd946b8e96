"""A method that changes features, written for the tests: an affine map of each speaker's features.

    x' = A x + b

A and b are estimated by gradient descent on the cross-entropy of the speaker's frames, the network frozen: feature
discriminative linear regression (Seide et al., "Feature engineering in context-dependent deep neural networks", ASRU
2011). Priors around the identity hold
them back: A has many numbers for the frames of one speaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from tensor_speakers import Tensors, TensorSpeakers, spliced, utterances_of

from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.objective import FrameCrossEntropy
from lhuc_asr.nnet.acoustic_model import AcousticModel


class AffineSpeakers(TensorSpeakers):
    """Speakers with an affine map of their features each."""

    format: ClassVar[str] = "test-affine-1"
    names: ClassVar[tuple[str, ...]] = ("matrix", "offset")

    @classmethod
    def inputs(cls, model: AcousticModel, own: Tensors, features: torch.Tensor) -> torch.Tensor:
        return spliced(model, features @ own["matrix"].T + own["offset"])


class AffineConfig(MethodConfig):
    """Options of the affine map.

    Attributes:
        kind: Name of the method.
        steps: Number of steps of Adam, all frames in each.
        learning_rate: Step size of Adam.
        matrix_prior: Weight of |A - 1|^2 beside the sum over the frames.
        offset_prior: Weight of |b|^2.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = AffineSpeakers

    kind: Literal["affine"] = "affine"
    steps: int = 30
    learning_rate: float = 0.03
    matrix_prior: float = 1000.0
    offset_prior: float = 1.0

    def make(self, folder: Path | None) -> Affine:
        return Affine(self)


class Affine:
    """The affine map as an adaptation method."""

    def __init__(self, config: AffineConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> AffineSpeakers:
        with frozen(model):
            tensors = {name: self._estimate(model, name, data) for name, data in speakers.items()}
        diverged = [name for name, own in tensors.items() if not all(bool(t.isfinite().all()) for t in own.values())]
        warn_unadapted("they diverged", diverged, len(speakers))
        identity = {"matrix": torch.eye(model.feature_dimension), "offset": torch.zeros(model.feature_dimension)}
        return AffineSpeakers(model, tensors | dict.fromkeys(diverged, identity))

    def _estimate(self, model: AcousticModel, name: str, data: SpeakerData) -> dict[str, torch.Tensor]:
        data.check_fits(name, model)
        identity, targets = torch.eye(model.feature_dimension), data.targets.tensors()
        own = {"matrix": identity.clone(), "offset": torch.zeros(model.feature_dimension)}
        if not targets.weights.any():
            return own
        utterances, objective = utterances_of(data), FrameCrossEntropy()
        optimizer = torch.optim.Adam([tensor.requires_grad_() for tensor in own.values()], lr=self.config.learning_rate)
        for _ in range(self.config.steps):
            inputs = torch.cat([AffineSpeakers.inputs(model, own, features) for features in utterances])
            loss = objective(model(inputs), targets)
            loss = loss + self.config.matrix_prior * (own["matrix"] - identity).square().sum()
            loss = loss + self.config.offset_prior * own["offset"].square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return {name: tensor.detach() for name, tensor in own.items()}
