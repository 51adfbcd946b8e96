"""A network of random weights, and speakers with random frames: for the arithmetic of adaptation, not for gains."""

import numpy as np
import torch
from scaled_speakers import PDFS, WIDTH, small_dnn

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.nnet.dnn import Dnn

UNITS = 24


def random_dnn() -> Dnn:
    """A network of random weights with confident outputs and 24 units per layer."""
    return small_dnn(UNITS)


def random_frames(
    seed: int, lengths: tuple[int, ...] = (30, 1, 19), weight: float | None = None, repeated: bool = False
) -> SpeakerData:
    """Random frames, targets and weights; with ``repeated`` all frames are the same."""
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    features = generator.standard_normal((count, WIDTH)).astype(np.float32)
    pdfs = generator.integers(PDFS, size=count).astype(np.int32)
    if repeated:
        features[:], pdfs[:] = features[0], pdfs[0]
    weights = generator.choice([0.0, 0.01, 1.0], count) if weight is None else np.full(count, weight)
    return SpeakerData(features, lengths, FrameTargets.certain(pdfs, weights.astype(np.float32)))


def r_of(speakers: Amplitudes, name: str) -> list[torch.Tensor]:
    bank = speakers.bank
    return [bank.r(site.name, bank.rows_of([name])).detach()[0] for site in bank.sites]


def logits_of(model: Dnn, spliced: torch.Tensor, amplitudes: list[torch.Tensor]) -> torch.Tensor:
    """Equation 3 by hand, in the tensors' precision."""
    hidden = spliced
    for layer, a in zip(model.hidden, amplitudes, strict=True):
        weight, bias = layer.linear.weight.detach().double(), layer.linear.bias.detach().double()
        hidden = a * torch.sigmoid(hidden @ weight.T + bias)
    return hidden @ model.output.weight.detach().double().T + model.output.bias.detach().double()
