"""A small network, sure of what it says, and speakers whose units are scaled by amplitudes from a known prior."""

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.targets import FrameTargets, SpeakerFrames
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS = 6, 8, 16


@pytest.fixture
def small() -> Dnn:
    """Two hidden layers of 16, context 1, 8 pdfs; its dropout is not for adaptation."""
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1, dropout=0.3), WIDTH, PDFS)
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=2.0, generator=generator)
    with torch.no_grad():
        # Units are on half of the time: without this all frames were of the same few pdfs.
        made.output.bias.copy_(-0.5 * made.output.weight.sum(1))
    return made.eval()


@pytest.fixture
def speaker_of(small):
    """(seed, frames, log amplitudes (2 x 16) or None) -> frames whose pdfs are drawn from the scaled network.

    ``scale`` is the features' standard deviation, ``weight`` that of the targets.
    """

    def make(seed: int, frames: int, log_amplitudes=None, weight: float = 1.0, scale: float = 1.0) -> SpeakerFrames:
        generator = torch.Generator().manual_seed(seed)
        features = scale * torch.randn(frames, WIDTH, generator=generator)
        hidden = splice(features, 1)
        with torch.no_grad():
            for number, layer in enumerate(small.hidden):
                hidden = layer.activation(layer.linear(hidden))
                if log_amplitudes is not None:
                    hidden = hidden * log_amplitudes[number].exp()
            pdfs = torch.multinomial(torch.softmax(small.output(hidden), 1), 1, generator=generator).squeeze(1)
        targets = FrameTargets.certain(pdfs.numpy().astype(np.int32), np.full(frames, weight, np.float32))
        return SpeakerFrames(features.numpy(), (frames,), targets)

    return make


@pytest.fixture
def loss_of(small):
    """(adapted speakers, name, frames) -> mean cross-entropy of these frames."""

    def measure(found, name: str, frames: SpeakerFrames) -> float:
        spliced = splice(torch.from_numpy(frames.features), 1)
        pdfs = torch.from_numpy(frames.targets.pdf[:, 0]).long()
        with torch.no_grad(), found.applied(small, name):
            return float(torch.nn.functional.cross_entropy(small(spliced), pdfs))

    return measure
