"""Time of estimating LHUC amplitudes, and fDLR maps, over that of their matrix products.

For amplitudes the products are the bottom layer's of every frame, once; and for each mini-batch of each sweep, those of
every layer above, and the gradient of the output of every layer with amplitudes. For fDLR they are, for each
mini-batch, the map's of every frame in the context, every layer's, the gradient of every layer's input, and the map's
gradient. No weight takes a gradient. Amplitudes, losses, fetching the frames and the optimizer are overhead, which
weighs more in a narrow network. Aims: 1.2 for amplitudes in a wide network, 1.3 for fDLR.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from timing import Turns, show

from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.method import AdaptationMethod
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

DIMENSION, PDFS, CONTEXT, BATCH = 40, 105, 7, 256
UTTERANCE_FRAMES = 256  # full mini-batches
SHORT, MINUTE = 14, 24  # utterances: 36 and 61 s


def main() -> None:
    """Measure one speaker and ten, on the networks of the AN4 recipe and of the paper."""
    torch.set_num_threads(1)
    narrow = DnnConfig(hidden_layers=5, hidden_units=512, activation="relu", context=CONTEXT)
    wide = DnnConfig(hidden_layers=6, hidden_units=2048, context=CONTEXT)
    rows = []
    for name, config, kind, speakers, utterances, sweeps, aim in (
        ("5 x 512 ReLU", narrow, "lhuc", 1, SHORT, 3, 1.5),
        ("5 x 512 ReLU", narrow, "lhuc", 10, SHORT, 1, 1.5),
        ("6 x 2048 sigmoid", wide, "lhuc", 1, SHORT, 3, 1.2),
        ("5 x 512 ReLU", narrow, "fdlr", 1, MINUTE, 1, 1.3),
        ("5 x 512 ReLU", narrow, "fdlr", 10, SHORT, 1, 1.3),
    ):
        bare = lhuc_products if kind == "lhuc" else fdlr_products
        turns = Turns(
            {
                "estimate": estimation(config, method_of(kind, sweeps), speakers, utterances),
                "products": bare(config, speakers, sweeps * utterances, utterances),
            }
        )
        seconds = [f"{turns.of(part).median:.2f}" for part in ("estimate", "products")]
        heard = f"{utterances * UTTERANCE_FRAMES / 100:.0f}"
        rows.append([name, kind, speakers, heard, sweeps, *seconds, turns.ratio("estimate", "products"), aim])
    show(
        "Estimation against its matrix products",
        ["network", "method", "speakers", "s each", "sweeps", "estimate, s", "products, s", "ratio [quartiles]", "aim"],
        rows,
    )


def method_of(kind: str, sweeps: int) -> AdaptationMethod:
    """A method with hard targets."""
    options = FdlrConfig if kind == "fdlr" else LhucConfig
    return options(sweeps=sweeps, batch_size=BATCH, kl_weight=0.0).make(None)


def estimation(config: DnnConfig, method: AdaptationMethod, speakers: int, utterances: int) -> Callable[[], object]:
    """A function that estimates the parameters of speakers of noise."""
    model = Dnn(config, DIMENSION, PDFS)
    model.initialise(torch.Generator().manual_seed(1))
    model.eval()
    torch.nn.init.normal_(model.output.weight, std=0.05)
    generator = np.random.default_rng(1)
    frames = utterances * UTTERANCE_FRAMES
    data = {
        str(speaker): SpeakerData(
            generator.standard_normal((frames, DIMENSION), dtype=np.float32),
            (UTTERANCE_FRAMES,) * utterances,
            FrameTargets.certain(generator.integers(0, PDFS, frames, dtype=np.int32), np.ones(frames, np.float32)),
        )
        for speaker in range(speakers)
    }
    return lambda: method.estimate(model, data, seed=1)


def lhuc_products(config: DnnConfig, speakers: int, steps: int, first_sweep: int) -> Callable[[], object]:
    """A function that does the products alone, all speakers' mini-batches side by side, in allocated memory.

    Args:
        config: The network.
        speakers: Number of speakers.
        steps: Number of mini-batches of all sweeps.
        first_sweep: Number of mini-batches of the first sweep, whose bottom layer's outputs are kept.
    """
    weights, values, results = layers(config, speakers)

    def run() -> None:
        for step in range(steps):
            if step < first_sweep:
                torch.mm(values[0], weights[0].T, out=results[1])
            for layer, weight in enumerate(weights[1:], start=1):
                torch.mm(values[layer], weight.T, out=results[layer + 1])
                torch.mm(values[layer + 1], weight, out=results[layer])

    return run


def fdlr_products(config: DnnConfig, speakers: int, steps: int, first_sweep: int) -> Callable[[], object]:
    """The same of fDLR, whose every sweep is like the first; arguments as ``lhuc_products``."""
    weights, values, results = layers(config, speakers)
    frames = values[0].view(speakers, -1, DIMENSION)
    moved, maps = torch.empty_like(frames), torch.randn(speakers, DIMENSION, DIMENSION)
    gradient = torch.empty_like(maps)

    def run() -> None:
        for _ in range(steps):
            torch.bmm(frames, maps, out=moved)
            for layer, weight in enumerate(weights):
                torch.mm(values[layer], weight.T, out=results[layer + 1])
                torch.mm(values[layer + 1], weight, out=results[layer])
            torch.bmm(frames.mT, moved, out=gradient)

    return run


def layers(config: DnnConfig, speakers: int) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The weights of a network, the values of each layer for a mini-batch of each speaker, and memory for results."""
    widths = [(2 * CONTEXT + 1) * DIMENSION] + [config.hidden_units] * config.hidden_layers + [PDFS]
    values = [torch.randn(speakers * BATCH, width) for width in widths]
    return (
        [torch.randn(above, below) for below, above in pairwise(widths)],
        values,
        [torch.empty_like(v) for v in values],
    )


if __name__ == "__main__":
    main()
