"""A network of random weights, and speakers with random frames: for the arithmetic of adaptation, not for gains."""

import numpy as np
import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS = 6, 8, 24


def random_dnn() -> Dnn:
    """A network of random weights with confident outputs; adaptation must not use its dropout."""
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1, dropout=0.3), WIDTH, PDFS)
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, std=2.0, generator=generator)
    with torch.no_grad():
        # Units are on half of the time, 0.5 each: without this all frames were of the same few pdfs.
        made.output.bias.copy_(-0.5 * made.output.weight.sum(1))
    return made.eval()


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
