"""Time of loading a speaker's file onto a model of 94 million parameters. Aim: at most 20 ms after the first.

The first file that is loaded onto a model waits for the model's identity, which is hashed; later ones for the look
whether anything of the model has changed since. The model is wav2vec 2.0's base, with random weights. Times are the
processor's, of one thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import torch
from timing import Spread, show
from torchaudio.models import wav2vec2_base

from lhuc_asr.lhuc import SpeakerBank, SpeakerState, attach
from lhuc_asr.lhuc.speaker import speaker_path

SITES = "**.feed_forward.intermediate_dense"  # 12 x 3,072 units
LOADS = 30
AIM = 20


def main() -> None:
    """Measure one file into a bank, and a folder of one speaker onto the model, at first and later."""
    torch.set_num_threads(1)
    model = wav2vec2_base().eval()
    with tempfile.TemporaryDirectory() as folder:
        bank = attach(model, SITES, ["alice"])
        bank.save(folder)
        path = speaker_path(folder, "alice")

        def file() -> None:
            bank.put(SpeakerState.load(path))

        def whole_folder() -> object:
            loaded = SpeakerBank.load(folder, model)
            loaded.detach()
            return loaded

        bank.detach()
        rows = []
        for name, load in (("a speaker's file, bank.put", file), ("a folder, SpeakerBank.load", whole_folder)):
            with torch.no_grad():
                model.encoder.transformer.layer_norm.bias.add_(0.0)  # the identity is computed anew
            first = milliseconds(load)
            later = Spread.of([milliseconds(load) for _ in range(LOADS)])
            rows.append([name, f"{first:.0f}", later, AIM])
        numbers = sum(parameter.numel() for parameter in model.parameters())
        title = f"Loading a speaker onto {numbers / 1e6:.0f} M parameters ({path.stat().st_size / 1e3:.0f} kB), ms"
        show(title, ["load", "first", "later [quartiles]", "aim"], rows)


def milliseconds(function: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
