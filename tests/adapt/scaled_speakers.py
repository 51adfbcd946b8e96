"""A small network with confident outputs, and speakers for whom its units are scaled by known amplitudes."""

from typing import Literal

import numpy as np
import torch

from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.features.context import splice
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.ivector import IvectorExtractor
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.layered_network import LayeredNetwork
from lhuc_asr.nnet.vector_tensors import VectorTensors

WIDTH, PDFS, UNITS = 6, 8, 16
VECTOR = 2


def small_dnn(units: int = UNITS, activation: Literal["sigmoid", "relu"] = "sigmoid", vectors: bool = False) -> Dnn:
    """Two hidden layers, context 1, 8 pdfs; adaptation must not use its dropout. It may take vectors of speakers."""
    shape = DnnConfig(hidden_layers=2, hidden_units=units, context=1, dropout=0.3, activation=activation)
    made = Dnn(shape, WIDTH, PDFS, VECTOR if vectors else 0)
    generator = torch.Generator().manual_seed(0)
    if vectors:
        made.vectors = VectorTensors(voices().tensors(), "a test")
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=2.0, generator=generator)
    with torch.no_grad():
        # Units are on half of the time. Without this bias all frames would have the same few pdfs.
        made.output.bias.copy_(-0.5 * made.output.weight.sum(1))
    return made.eval()


def voices() -> IvectorExtractor:
    """An i-vector extractor around three Gaussians."""
    generator = torch.Generator().manual_seed(6)
    mean = torch.randn(3, WIDTH, generator=generator)
    background = DiagonalGmm(torch.zeros(3, dtype=torch.int64), torch.full((3,), 1 / 3), mean, torch.ones(3, WIDTH), 1)
    loading = torch.randn(3, WIDTH, VECTOR, generator=generator).double()
    return IvectorExtractor(background, loading, frame_weight=1.0, most_frames=1000.0)


def frames_of(
    model: LayeredNetwork, seed: int, frames: int, log_amplitudes=None, weight: float = 1.0, scale: float = 1.0
):
    """Random features of standard deviation ``scale``, and pdfs drawn from the network with amplitudes (2, H)."""
    generator = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(frames, WIDTH, generator=generator)
    hidden = model.splicing.utterance(features)
    with torch.no_grad():
        for number, layer in enumerate(model.hidden_layers().values()):
            hidden = layer(hidden)
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
