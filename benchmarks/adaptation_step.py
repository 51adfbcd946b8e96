"""Time of estimating LHUC amplitudes over that of its matrix products. Aim: at most 1.2 for a wide network.

The products are the bottom layer's of every frame, once; and for each mini-batch of each sweep, those of every layer
above, and the gradient of the output of every layer with amplitudes. No weight takes a gradient. Amplitudes, losses,
fetching the frames and the optimizer are overhead, which weighs more in a narrow network.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from timing import Turns, show

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

DIMENSION, PDFS, CONTEXT, BATCH = 40, 105, 7, 256
UTTERANCES, UTTERANCE_FRAMES = 14, 256  # 36 s a speaker, in full mini-batches
AIM = {512: 1.5, 2048: 1.2}


def main() -> None:
    """Measure one speaker and ten, on the networks of the AN4 recipe and of the paper."""
    torch.set_num_threads(1)
    narrow = DnnConfig(hidden_layers=5, hidden_units=512, activation="relu", context=CONTEXT)
    wide = DnnConfig(hidden_layers=6, hidden_units=2048, context=CONTEXT)
    rows = []
    for name, config, speakers, sweeps in (
        ("5 x 512 ReLU", narrow, 1, 3),
        ("5 x 512 ReLU", narrow, 10, 1),
        ("6 x 2048 sigmoid", wide, 1, 3),
    ):
        turns = Turns(
            {"estimate": estimation(config, speakers, sweeps), "products": products(config, speakers, sweeps)}
        )
        seconds = [f"{turns.of(part).median:.2f}" for part in ("estimate", "products")]
        rows.append([name, speakers, sweeps, *seconds, turns.ratio("estimate", "products"), AIM[config.hidden_units]])
    show(
        "LHUC, 36 s a speaker: estimation against its matrix products",
        ["network", "speakers", "sweeps", "estimate, s", "products, s", "ratio [quartiles]", "aim"],
        rows,
    )


def estimation(config: DnnConfig, speakers: int, sweeps: int) -> Callable[[], object]:
    """A function that estimates the amplitudes of all layers on noise."""
    model = Dnn(config, DIMENSION, PDFS)
    model.initialise(torch.Generator().manual_seed(1))
    model.eval()
    torch.nn.init.normal_(model.output.weight, std=0.05)
    generator = np.random.default_rng(1)
    frames = UTTERANCES * UTTERANCE_FRAMES
    data = {
        str(speaker): SpeakerData(
            generator.standard_normal((frames, DIMENSION), dtype=np.float32),
            (UTTERANCE_FRAMES,) * UTTERANCES,
            FrameTargets.certain(generator.integers(0, PDFS, frames, dtype=np.int32), np.ones(frames, np.float32)),
        )
        for speaker in range(speakers)
    }
    method = Lhuc(LhucConfig(sweeps=sweeps, batch_size=BATCH, kl_weight=0.0))
    return lambda: method.estimate(model, data, seed=1)


def products(config: DnnConfig, speakers: int, sweeps: int) -> Callable[[], object]:
    """A function that does the products alone, all speakers' mini-batches side by side, in allocated memory."""
    widths = [(2 * CONTEXT + 1) * DIMENSION] + [config.hidden_units] * config.hidden_layers + [PDFS]
    weights = [torch.randn(above, below) for below, above in pairwise(widths)]
    values = [torch.randn(speakers * BATCH, width) for width in widths]
    results = [torch.empty_like(value) for value in values]
    steps = UTTERANCES * UTTERANCE_FRAMES // BATCH

    def run() -> None:
        for step in range(sweeps * steps):
            if step < steps:
                torch.mm(values[0], weights[0].T, out=results[1])
            for layer, weight in enumerate(weights[1:], start=1):
                torch.mm(values[layer], weight.T, out=results[layer + 1])
                torch.mm(values[layer + 1], weight, out=results[layer])

    return run


if __name__ == "__main__":
    main()
