"""Training from shards: megabytes of memory for five hours and for fifty, and frames a second against the bare reading.

    python benchmarks/shards.py FOLDER [HOURS...]      # 5 and 50 hours: 3.2 GB in the folder, which are kept

Frames of noise, 40 features each, in shards of ten minutes. A process of its own trains a network for an epoch on each
number of hours. The network is small (two layers of 64 units), so that the loader counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from timing import show

from lhuc_asr.base.atomic import sha256_of
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.shar import ShardWriter, array_bytes
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frame_shards import FEATURES, PDFS, FrameShard, ShardedFrames
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

DIMENSION, PDF_COUNT, UTTERANCE, SHARD = 40, 500, 1_000, 60_000
SHAPE = DnnConfig(hidden_layers=2, hidden_units=64, activation="relu", context=5)


def write(folder: Path, hours: float) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    frames = generator.standard_normal((SHARD, DIMENSION), dtype=np.float32)
    pdfs = generator.integers(0, PDF_COUNT, SHARD).astype(np.int32)
    for number in range(_shards(hours)):
        if (folder / f"{PDFS}.{number:06d}.tar").exists():
            continue
        with ShardWriter(folder, number, (FEATURES, PDFS)) as shard:
            for name, rows in _utterances(number):
                data = {FEATURES: array_bytes(frames[rows]), PDFS: array_bytes(pdfs[rows])}
                shard.write({"id": name}, {field: (".npy", content, {}) for field, content in data.items()})


def source(folder: Path, hours: float) -> ShardedFrames:
    """The frames, with nothing of them in memory."""
    shards, utterances = [], []
    for number in range(_shards(hours)):
        files = {field: f"{field}.{number:06d}.tar" for field in (FEATURES, PDFS)}
        names = tuple(name for name, _ in _utterances(number))
        shards.append(FrameShard(names, files, {field: sha256_of(folder / file) for field, file in files.items()}))
        utterances += [
            StoredUtterance(name, "s", number * SHARD + rows.start, UTTERANCE) for name, rows in _utterances(number)
        ]
    nothing = np.broadcast_to(np.float32(0), (len(shards) * SHARD, DIMENSION))
    return ShardedFrames(
        nothing,
        np.broadcast_to(np.int32(0), len(nothing)),
        utterances,
        Context.both(SHAPE.context),
        store=open_store(str(folder)),
        index=folder,
        shards=shards,
    )


def epoch(folder: Path, hours: float) -> None:
    """Load and train for an epoch; print the frames a second of both, and the most memory."""
    torch.set_num_threads(2)
    frames = source(folder, hours)
    loaded = time.perf_counter()
    count = sum(len(batch) for batch in frames.shuffled(1024, torch.Generator().manual_seed(1)))
    loaded = time.perf_counter() - loaded
    model = Dnn(SHAPE, DIMENSION, PDF_COUNT)
    model.initialise(torch.Generator().manual_seed(1))
    config = TrainerConfig(batch_size=1024, schedule=NewbobConfig(learning_rate=0.01, max_epochs=1))
    heldout = FrameSource(
        np.zeros((SHARD, DIMENSION), np.float32), np.zeros(SHARD, np.int32), frames.utterances[:60], frames.context
    )
    state = folder / f"state-{hours:g}"
    begun = time.perf_counter()
    train(model, frames, heldout, config, state, 1, torch.device("cpu"), lambda figures: None)
    trained = time.perf_counter() - begun  # with two looks at 60,000 held-out frames
    state.unlink()
    sys.stdout.write(json.dumps([count / loaded, count / trained, _most_memory()]))


def bare(folder: Path, hours: float) -> float:
    """Read the same files, and nothing else; frames a second."""
    begun = time.perf_counter()
    for number in range(_shards(hours)):
        for field in (FEATURES, PDFS):
            np.fromfile(folder / f"{field}.{number:06d}.tar", np.uint8)
    return _shards(hours) * SHARD / (time.perf_counter() - begun)


def _most_memory() -> float:
    """Megabytes: the largest resident size of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


def _shards(hours: float) -> int:
    return max(1, round(hours * 360_000 / SHARD))


def _utterances(number: int) -> list[tuple[str, slice]]:
    return [(f"u{number}-{first}", slice(first, first + UTTERANCE)) for first in range(0, SHARD, UTTERANCE)]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if "--epoch" in sys.argv:
        epoch(place, float(sys.argv[3]))
    else:
        amounts = [float(each) for each in sys.argv[2:]] or [5.0, 50.0]
        write(place, max(amounts))
        rows = []
        for amount in amounts:
            command = [sys.executable, __file__, str(place), "--epoch", str(amount)]
            loaded, trained, most = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            figures = (bare(place, amount), loaded, trained)
            rows.append([f"{amount:g}", *(f"{figure:,.0f}" for figure in figures), f"{most:.0f}"])
        titles = ["hours", "read, frames/s", "loaded and shuffled", "trained on", "most memory, MB"]
        show("an epoch from shards", titles, rows)
