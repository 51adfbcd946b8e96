"""A batch of 32 speakers against the unadapted network. Aim: at most 1.05 times its time, each with its own output.

Six layers of 2,048 sigmoid units, 32 utterances of 256 frames. ``mixed`` gives each utterance a speaker
(``bank.rows``), ``blocks`` is for utterances that are sorted by speaker, ``one`` is a single speaker's batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from timing import Turns, clock_of, show
from torch import Tensor, nn

from lhuc_asr.lhuc import SpeakerBank, attach

INPUTS, UNITS, LAYERS, PDFS = 440, 2048, 6, 400
UTTERANCES, FRAMES = 32, 256
AIM = 1.05


def main() -> None:
    """Measure the forward pass, on the CPU with one thread unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if arguments.bfloat16 else torch.float32

    torch.manual_seed(1)
    plain = network().to(device, dtype).eval()
    model = network().to(device, dtype).eval()
    model.load_state_dict(plain.state_dict())
    x = torch.randn(UTTERANCES, FRAMES, INPUTS, device=device, dtype=dtype)
    names = [f"speaker{n}" for n in range(UTTERANCES)]
    bank = attach(model, nn.Sigmoid, speakers=names, example=x[:2], batch_dim=0)
    with torch.no_grad():
        for table in bank.tables:
            table[1:] += 0.3 * torch.randn_like(table[1:])

    def forward(model: nn.Module, context: Callable[[], AbstractContextManager[object]]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad(), context():
                output: Tensor = model(x)
                return output

        return run

    ways = {
        "unadapted": forward(plain, nullcontext),
        "one": forward(model, lambda: bank.speaker("speaker0")),
        "mixed": forward(model, lambda: bank.rows(names)),
        "blocks": forward(model, lambda: bank.blocks(names)),
    }
    turns = Turns(ways, seconds=20.0, clock=clock_of(device, arguments.threads))
    show(
        f"{LAYERS} x {UNITS}, {UTTERANCES} utterances of {FRAMES} frames, {dtype}, {device}, "
        f"{arguments.threads} thread(s) (aim: mixed at most {AIM})",
        ["batch", "ms", "over unadapted [quartiles]"],
        [[way, f"{1000 * turns.of(way).median:.3g}", turns.ratio(way, "unadapted")] for way in ways],
    )
    show(
        "Largest difference from the speakers one at a time",
        ["batch", "difference"],
        [[way, f"{difference(ways[way](), alone(model, bank, x, names)):.3g}"] for way in ("mixed", "blocks")],
    )


def network() -> nn.Module:
    """A network of random weights over the last axis."""
    widths = [INPUTS] + [UNITS] * LAYERS
    layers = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(UNITS, PDFS))


def alone(model: nn.Module, bank: SpeakerBank, x: Tensor, names: Iterable[str]) -> Tensor:
    """The outputs of the same batch, computed once for each speaker; of each the speaker's utterance."""
    outputs = []
    for place, name in enumerate(names):
        with torch.no_grad(), bank.speaker(name):
            outputs.append(model(x)[place])
    return torch.stack(outputs)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors."""
    return float((one - other).abs().max())


if __name__ == "__main__":
    main()
