"""A GPU against its own matrix products and against the CPU: training, and adapting 32 speakers. It needs a GPU.

Training is stated beside its products. Aim: 32 speakers together at least 15 times as fast as one by one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from adaptation import estimate, speaker_data
from adaptation import network as adapted_network
from timing import Turns, clock_of, show
from training_step import BATCH, CPU, products, training_steps

from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDE = DnnConfig(hidden_layers=6, hidden_units=2048, context=5)
NARROW = DnnConfig(hidden_layers=5, hidden_units=512, activation="relu", context=5)
STEPS, SPEAKERS, AIM = 200, 32, 15


def main() -> None:
    """Measure on the first GPU, and on the CPU with all cores unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    gpu = torch.device("cuda")
    training(gpu)
    adapting(gpu)
    agreement(gpu)


def training(gpu: torch.device) -> None:
    """Frames a second of training, and of its products."""
    rows = []
    for name, config in (("6 x 2048 sigmoid", WIDE), ("5 x 512 ReLU", NARROW)):
        for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            turns = Turns(
                {
                    "steps": training_steps(config, gpu, precision, STEPS),
                    "products": products(config, gpu, dtype, STEPS),
                },
                clock=clock_of(gpu, 1),
            )
            rates = [f"{STEPS * BATCH / turns.of(part).median:,.0f}" for part in ("steps", "products")]
            rows.append([name, precision, *rates, turns.ratio("steps", "products")])
        turns = Turns({"steps": training_steps(config)}, clock=clock_of(CPU, 2))
        rows.append([name, "float32, CPU", f"{8 * BATCH / turns.of('steps').median:,.0f}", "", ""])
    show(
        f"Training, batches of {BATCH}, {torch.cuda.get_device_name(gpu)}",
        ["network", "", "frames / s", "of the products", "step / products [quartiles]"],
        rows,
    )


def adapting(gpu: torch.device) -> None:
    """Seconds for 32 speakers of 12 s, together, one by one, and on the CPU."""
    rows = []
    data = speaker_data(SPEAKERS, utterances=4)
    for name, config in (("6 x 2048 sigmoid", WIDE), ("5 x 512 ReLU", NARROW)):
        on_gpu, on_cpu = adapted_network(config).to(gpu), adapted_network(config)

        def one_by_one(model: Dnn) -> None:
            for speaker, own in data.items():
                estimate(model, {speaker: own})

        ways: dict[str, Callable[[], object]] = {
            "together": partial(estimate, on_gpu, data),
            "together, bfloat16": partial(estimate, on_gpu, data, bfloat16=True),
            "one by one": partial(one_by_one, on_gpu),
        }
        turns = Turns(ways, clock=clock_of(gpu, 1))
        cpu = Turns({"CPU": partial(estimate, on_cpu, data)}, 1.0, clock=clock_of(CPU, 2)).of("CPU")
        rows += [
            [name, way, turns.of(way), turns.ratio("one by one", way), f"{cpu.median / turns.of(way).median:.3g}"]
            for way in ways
        ]
        rows.append([name, f"CPU, {torch.get_num_threads()} threads, together", cpu, "", ""])
    show(
        f"{SPEAKERS} speakers of 12 s (aim: together at least {AIM} times as fast as one by one)",
        ["network", "way", "seconds", "one by one / this", "CPU / this"],
        rows,
    )


def agreement(gpu: torch.device) -> None:
    """Largest differences of the posteriors from the CPU's."""
    rows = []
    spliced = torch.randn(2000, 11 * 40)
    for name, config in (("6 x 2048 sigmoid", WIDE), ("5 x 512 ReLU", NARROW)):
        model = adapted_network(config)
        with torch.no_grad():
            reference = model(spliced).log_softmax(1)
            model.to(gpu)
            for precision in ("float32", "bfloat16"):
                with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                    found = model(spliced.to(gpu)).float().log_softmax(1).cpu()
                rows.append([name, precision, f"{float((found - reference).abs().max()):.2g}"])
    show("Largest difference of log posteriors from the CPU's in float32", ["network", "", "difference"], rows)


if __name__ == "__main__":
    main()
