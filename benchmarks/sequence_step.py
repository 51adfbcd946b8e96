"""Time of an epoch of sequence training, over that of frame cross-entropy plus the lattices. Aim: at most 1.5.

An epoch of sequence training goes forward and backward through the network as cross-entropy does, and through the
lattices between. "Lattices" is a forward-backward over each, with its derivative, by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from timing import Turns, show
from training_step import epoch

from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.denominator import DenominatorLattice, span_offsets
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.lattice_objectives import Reference, mmi, smbr
from lhuc_asr.nnet.lattice_store import LatticeStore, write_lattices
from lhuc_asr.nnet.schedule import Newbob
from lhuc_asr.nnet.sequence_source import SequenceSource, sequence_source
from lhuc_asr.nnet.sequence_trainer import SequenceConfig, _Worker
from lhuc_asr.nnet.trainer import TrainerConfig

DIMENSION, PDFS, FRAMES, UTTERANCES = 40, 2000, 1000, 4
SHAPE = DnnConfig(hidden_layers=6, hidden_units=512, context=5)
SECONDS = 25
CPU = torch.device("cpu")


def main() -> None:
    """Measure lattices of words, with 10 to 50 arcs alive at a frame, and one of single frames."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for alive, span in ((10, 30), (30, 30), (50, 30), (50, 1)):
            source = noise_source(Path(folder) / f"{alive}-{span}", alive, span)
            for objective in ("mmi", "smbr"):
                turns = Turns(candidates(source, objective), SECONDS)
                both = zip(turns.seconds["frames"], turns.seconds["lattices"], strict=True)
                turns.seconds["sum"] = [first + second for first, second in both]
                medians = [f"{turns.of(part).median / UTTERANCES:.3f}" for part in ("frames", "lattices", "sequences")]
                rows.append([f"{alive} arcs of {span}, {objective}", *medians, turns.ratio("sequences", "sum")])
    show(
        f"seconds for {FRAMES} frames, 6 x 512, {PDFS} pdfs: sequences against cross-entropy + lattices",
        ["lattice", "cross-entropy", "lattices", "sequences", "ratio (aim: at most 1.5)"],
        rows,
    )


def candidates(source: SequenceSource, objective: str) -> dict[str, Callable[[], object]]:
    """Functions that go through all utterances: by cross-entropy, over the lattices alone, and by sequence training."""
    model = Dnn(SHAPE, DIMENSION, PDFS)
    model.initialise(torch.Generator().manual_seed(1))
    newbob = Newbob(1e-6)
    config = SequenceConfig.model_validate({"objective": objective, "learning_rate": newbob.learning_rate})
    optimizer = torch.optim.SGD(model.parameters(), lr=newbob.learning_rate, fused=True)
    measure = mmi if objective == "mmi" else smbr
    scores = np.random.default_rng(2).standard_normal((FRAMES, PDFS)).astype(np.float32)

    def lattices() -> None:
        derivative = np.empty_like(scores)
        for utterance in source.frames.utterances:
            reference = Reference(source.frames.targets[utterance.rows], source.classes)
            measure(source.lattices[utterance.id], scores, reference, derivative)

    def sequences() -> None:
        with ThreadPoolExecutor(1) as pool:
            _Worker(model, config, 0.1, CPU, pool).epoch(source, optimizer, newbob, 1)

    return {
        "frames": epoch(model, source.frames, TrainerConfig(), newbob),
        "lattices": lattices,
        "sequences": sequences,
    }


def noise_source(folder: Path, alive: int, span: int) -> SequenceSource:
    """Utterances of noise with random pdfs as targets, each with a lattice that has the targets as one of its paths."""
    generator = np.random.default_rng(1)
    features = generator.standard_normal((FRAMES * UTTERANCES, DIMENSION), dtype=np.float32)
    targets = generator.integers(0, PDFS, FRAMES * UTTERANCES, dtype=np.int32)
    stored = [StoredUtterance(str(u), str(u), u * FRAMES, FRAMES) for u in range(UTTERANCES)]
    lattices = ((u.id, noise_lattice(generator, targets[u.rows], alive, span)) for u in stored)
    write_lattices(folder, lattices, PDFS)
    source = FrameSource(features, targets, stored, Context.both(SHAPE.context))
    return sequence_source(source, LatticeStore(folder), range(9))


def noise_lattice(generator: np.random.Generator, targets: np.ndarray, alive: int, span: int) -> DenominatorLattice:
    """A lattice of ``alive`` chains of arcs side by side, all of which meet every ``span`` frames.

    With arcs of one frame, there are as many nodes beside each other, and each arc leads to a random one.
    """
    frames = len(targets)
    if span == 1:
        frame = np.concatenate([[0], np.repeat(np.arange(1, frames), alive), [frames]]).astype(np.int32)
        first = np.concatenate([[0], 1 + alive * np.arange(frames - 1), [len(frame) - 1]])
        source = np.arange(len(frame) - 1)
        counts = np.diff(np.append(first, len(frame)))[frame[source] + 1]
        target = first[frame[source] + 1] + generator.integers(0, counts)
    else:
        frame = np.append(np.arange(0, frames, span), frames).astype(np.int32)
        source = np.repeat(np.arange(len(frame) - 1), alive)
        target = source + 1
    source, target = source.astype(np.int32), target.astype(np.int32)
    offsets = span_offsets(frame, source, target)
    pdf = generator.integers(0, PDFS, offsets[-1], dtype=np.int32)
    # The first arc out of a frame has the reference's pdfs.
    for arc in np.flatnonzero(np.diff(frame[source], prepend=-1)):
        pdf[offsets[arc] : offsets[arc + 1]] = targets[frame[source[arc]] : frame[target[arc]]]
    final = np.where(frame == frames, 0.0, np.inf)
    return DenominatorLattice(frame, final, source, target, generator.exponential(5.0, len(source)), pdf, offsets)


if __name__ == "__main__":
    main()
