"""Speed of estimating LHUC amplitudes, against a plain implementation; of many speakers together; of decoding.

The plain implementation has hooks on the network, autograd through all of it with gradients of the weights, and every
product in every sweep. The data is a minute of speech (6,000 frames), for three sweeps. Decoding is the network's
forward pass over that minute: as it is, with hooks, and with the amplitudes folded into its weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from timing import Turns, show

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.features.context import splice
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.fold import fold
from lhuc_asr.lhuc.objective import CandidateTargets, FrameCrossEntropy
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

DIMENSION, PDFS, CONTEXT, BATCH, SWEEPS = 40, 400, 5, 256, 3
UTTERANCES, UTTERANCE_FRAMES = 20, 300  # a minute
WIDE = DnnConfig(hidden_layers=6, hidden_units=2048, context=CONTEXT)
NARROW = DnnConfig(hidden_layers=5, hidden_units=512, activation="relu", context=CONTEXT)


def main() -> None:
    """Measure with the number of threads that is the first argument; one unless given."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    rows = []
    for name, config in (("6 x 2048 sigmoid", WIDE), ("5 x 512 ReLU", NARROW)):
        model, data = network(config), speaker_data(1)
        turns = Turns(
            {
                "plain": partial(plain, model, data["0"]),
                "lhuc": partial(estimate, model, data),
                "lhuc, bfloat16": partial(estimate, model, data, bfloat16=True),
            },
            clock=clock,
        )
        rows += [[name, way, turns.of(way), turns.ratio("plain", way)] for way in ("plain", "lhuc", "lhuc, bfloat16")]
    show(
        f"A minute, {SWEEPS} sweeps, {threads} thread(s) (aim: at least twice as fast as the plain way)",
        ["network", "written", "seconds", "plain / this [quartiles]"],
        rows,
    )

    model, many = network(NARROW), speaker_data(32, utterances=4)
    turns = Turns({"32": lambda: estimate(model, many), "1": lambda: estimate(model, {"0": many["0"]})}, clock=clock)
    show(
        f"12 s a speaker, 5 x 512, {SWEEPS} sweeps: 32 speakers together against one (aim: at most 32)",
        ["speakers", "seconds"],
        [[count, turns.of(count)] for count in ("1", "32")] + [["32 / 1", turns.ratio("32", "1")]],
    )
    show(
        "Decoding a minute (aims: folded at most 1.02, hooked under 1.05)",
        ["network", "ratio to the unadapted network: folded", "hooked"],
        [[name, *decoding(config, clock)] for name, config in (("6 x 2048", WIDE), ("5 x 512", NARROW))],
    )


def network(config: DnnConfig) -> Dnn:
    """A network of random weights."""
    model = Dnn(config, DIMENSION, PDFS)
    model.initialise(torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.output.weight, std=0.05)
    return model.eval()


def speaker_data(speakers: int, utterances: int = UTTERANCES) -> dict[str, SpeakerData]:
    """Speakers whose features and targets are noise."""
    generator = np.random.default_rng(1)
    frames = utterances * UTTERANCE_FRAMES
    return {
        str(speaker): SpeakerData(
            generator.standard_normal((frames, DIMENSION), dtype=np.float32),
            (UTTERANCE_FRAMES,) * utterances,
            FrameTargets.certain(generator.integers(0, PDFS, frames, dtype=np.int32), np.ones(frames, np.float32)),
        )
        for speaker in range(speakers)
    }


def estimate(model: Dnn, data: dict[str, SpeakerData], bfloat16: bool = False) -> object:
    """The package's implementation."""
    options = LhucConfig(sweeps=SWEEPS, batch_size=BATCH, kl_weight=0.0, bfloat16=bfloat16)
    return Lhuc(options).estimate(model, data, seed=1)


def plain(model: Dnn, data: SpeakerData) -> None:
    """The plain implementation: the same steps with hooks, autograd, and gradients of everything."""
    bank = attach(model, model.sites(), ["0"])
    optimizer = bank.optimizer("adam", lr=0.005)
    features = torch.from_numpy(data.features)
    spliced = torch.cat([splice(part, CONTEXT) for part in features.split(data.lengths)])
    targets = CandidateTargets(
        weights=torch.from_numpy(data.targets.weight),
        classes=torch.from_numpy(data.targets.pdf).long(),
        posteriors=torch.from_numpy(data.targets.posterior),
        reference=torch.empty(len(spliced), 0),
    )
    objective = FrameCrossEntropy()
    for _ in range(SWEEPS):
        for batch in torch.randperm(len(spliced)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            model.zero_grad(set_to_none=True)
            with bank.speaker("0"):
                loss = objective(model(spliced[batch]), targets.select(batch))
            (loss / BATCH).backward()
            optimizer.step()
    bank.detach()
    model.zero_grad(set_to_none=True)


def decoding(config: DnnConfig, clock: Callable[[], float]) -> list[object]:
    """Ratios of the folded network's time, and of the hooked one's, to the unadapted one's."""
    model, hooked = network(config), network(config)
    bank = attach(hooked, hooked.sites(), ["0"])
    with torch.no_grad():
        for table in bank.tables:
            table[1].normal_(std=0.1)
    folded = fold(bank, "0")
    spliced = torch.randn(UTTERANCE_FRAMES, (2 * CONTEXT + 1) * DIMENSION)

    def minute(scored: torch.nn.Module) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad(), bank.speaker("0"):
                for _ in range(UTTERANCES):
                    scored(spliced)

        return run

    turns = Turns({"si": minute(model), "folded": minute(folded), "hooked": minute(hooked)}, clock=clock)
    return [turns.ratio("folded", "si"), turns.ratio("hooked", "si")]


if __name__ == "__main__":
    main()
