"""A small network with confident outputs, and speakers for whom its units are scaled by known amplitudes."""

from typing import Literal

import numpy as np
import torch

from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS = 6, 8, 16


def small_dnn(units: int = UNITS, activation: Literal["sigmoid", "relu"] = "sigmoid") -> Dnn:
    """Two hidden layers, context 1, 8 pdfs; adaptation must not use its dropout."""
    made = Dnn(
        DnnConfig(hidden_layers=2, hidden_units=units, context=1, dropout=0.3, activation=activation), WIDTH, PDFS
    )
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=2.0, generator=generator)
    with torch.no_grad():
        # Units are on half of the time. Without this bias all frames would have the same few pdfs.
        made.output.bias.copy_(-0.5 * made.output.weight.sum(1))
    return made.eval()


def frames_of(model: Dnn, seed: int, frames: int, log_amplitudes=None, weight: float = 1.0, scale: float = 1.0):
    """Random features of standard deviation ``scale``, and pdfs drawn from the network with amplitudes (2, H)."""
    generator = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(frames, WIDTH, generator=generator)
    hidden = splice(features, 1)
    with torch.no_grad():
        for number, layer in enumerate(model.hidden):
            hidden = layer.activation(layer.linear(hidden))
            if log_amplitudes is not None:
                hidden = hidden * log_amplitudes[number].exp()
        pdfs = torch.multinomial(torch.softmax(model.output(hidden), 1), 1, generator=generator).squeeze(1)
    targets = FrameTargets.certain(pdfs.numpy().astype(np.int32), np.full(frames, weight, np.float32))
    return SpeakerData(features.numpy(), (frames,), targets)


def cross_entropy_of(model: Dnn, adapted, name: str, frames: SpeakerData) -> float:
    """Mean cross-entropy of a speaker's frames with the speaker's amplitudes."""
    spliced = splice(torch.from_numpy(frames.features), 1)
    pdfs = torch.from_numpy(frames.targets.pdf[:, 0]).long()
    with torch.no_grad(), adapted.applied(name):
        return float(torch.nn.functional.cross_entropy(model(spliced), pdfs))
