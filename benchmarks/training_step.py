"""Time of a training step over that of its matrix products. Aim: at most 1.5.

A step fetches a mini-batch (shuffled frames with their context), goes forward and backward, clips the gradient and
updates the weights. Its products are those of the forward pass in every layer, the gradient of every weight, and the
gradient of every layer's input but the lowest. Everything else is overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import Turns, show

from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.companion import ALONE
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.layered_network import NetworkShape
from lhuc_asr.nnet.schedule import Newbob
from lhuc_asr.nnet.tdnn import TdnnConfig
from lhuc_asr.nnet.trainer import TrainerConfig, _epoch
from lhuc_asr.nnet.training_state import TrainingState

DIMENSION, PDFS, CONTEXT, BATCH, STEPS = 40, 105, 7, 256, 8
AIM = 1.5
CPU = torch.device("cpu")


def main() -> None:
    """Measure the shapes of the AN4 recipe and of the paper, normalisation, and time delays."""
    torch.set_num_threads(1)
    narrow = DnnConfig(hidden_layers=5, hidden_units=512, activation="relu", context=CONTEXT)
    wide = DnnConfig(hidden_layers=6, hidden_units=2048, context=CONTEXT)
    rows = []
    for name, config, seconds in (
        ("5 x 512 ReLU", narrow, 10),
        ("5 x 512 ReLU, dropout 0.2", narrow.model_copy(update={"dropout": 0.2}), 10),
        ("5 x 512 ReLU, batch", narrow.model_copy(update={"normalisation": "batch"}), 10),
        ("5 x 512 ReLU, layer", narrow.model_copy(update={"normalisation": "layer"}), 10),
        ("time delays, 4 x 512 and 512 ReLU", TdnnConfig(), 10),
        ("time delays, batch", TdnnConfig(normalisation="batch"), 10),
        ("6 x 2048 sigmoid", wide, 20),
    ):
        turns = Turns({"steps": training_steps(config), "products": products(config)}, seconds)
        milliseconds = [f"{1000 * turns.of(part).median / STEPS:.1f}" for part in ("steps", "products")]
        rows.append([name, *milliseconds, turns.ratio("steps", "products")])
    show(
        f"training, batches of {BATCH}: a step against its matrix products (aim: at most {AIM})",
        ["network", "step, ms", "products, ms", "ratio [quartiles]"],
        rows,
    )


def training_steps(
    config: NetworkShape, device: torch.device = CPU, precision: str = "float32", steps: int = STEPS
) -> Callable[[], object]:
    """A function that trains an epoch on utterances of 2.56 s, which make ``steps`` mini-batches."""
    model = config.make(DIMENSION, PDFS)
    source = noise_source(BATCH, steps, model.context)
    model.initialise(torch.Generator().manual_seed(1))
    model.to(device)
    trainer = TrainerConfig.model_validate({"batch_size": BATCH, "precision": precision})
    return epoch(model, source, trainer, Newbob(0.001), device)


def epoch(
    model: AcousticModel, source: FrameSource, config: TrainerConfig, newbob: Newbob, device: torch.device = CPU
) -> Callable[[], object]:
    """A function that trains an epoch by cross-entropy."""
    optimizer = torch.optim.SGD(model.parameters(), lr=newbob.learning_rate, momentum=config.momentum, fused=True)
    state = TrainingState(Path("no-state"), model, optimizer, ALONE, 0)  # written after minutes alone
    return lambda: _epoch(state, model, source, config, newbob, 1, device)


def noise_source(frames: int, utterances: int, context: Context) -> FrameSource:
    """Utterances of noise with random pdfs as targets."""
    generator = np.random.default_rng(1)
    features = generator.standard_normal((frames * utterances, DIMENSION), dtype=np.float32)
    targets = generator.integers(0, PDFS, frames * utterances, dtype=np.int32)
    stored = [StoredUtterance(str(u), str(u), u * frames, frames) for u in range(utterances)]
    return FrameSource(features, targets, stored, context)


def products(
    config: NetworkShape, device: torch.device = CPU, dtype: torch.dtype = torch.float32, steps: int = STEPS
) -> Callable[[], object]:
    """A function that does the products of as many steps, in allocated memory."""
    layers = config.layers(config.splicing(DIMENSION))
    # Rows, inputs and outputs of each product.
    sizes = [(BATCH * layer.arrangement.positions, layer.inputs, layer.units) for layer in layers]
    sizes.append((BATCH, layers[-1].units, PDFS))
    # Activations, and gradients of the same shapes.
    below = [torch.randn(rows, inputs, device=device, dtype=dtype) for rows, inputs, _ in sizes]
    above = [torch.randn(rows, units, device=device, dtype=dtype) for rows, _, units in sizes]
    weights = [torch.randn(units, inputs, device=device, dtype=dtype) for _, inputs, units in sizes]
    gradients = [torch.empty_like(weight) for weight in weights]

    def run() -> None:
        for _ in range(steps):
            for layer, weight in enumerate(weights):
                torch.mm(below[layer], weight.T, out=above[layer])
                torch.mm(above[layer].T, below[layer], out=gradients[layer])
                if layer:
                    torch.mm(above[layer], weight, out=below[layer])

    return run


if __name__ == "__main__":
    main()
