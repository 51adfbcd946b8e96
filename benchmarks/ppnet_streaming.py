"""Ten million generated examples streamed from one Parquet file: memory, and examples a second. Aim: memory is flat.

    python benchmarks/ppnet_streaming.py [FOLDER]        # a temporary folder unless given; the file takes a gigabyte

Memory is the resident set of the process after each tenth of the stream; it is flat if the last tenths hold no more
than the second. Seconds are processor seconds of one thread. The stream is read in shuffled blocks, as in training,
first alone, then a PPNet is trained on a part of it. ``ppnet.py`` has the ratio of its steps to the plain network's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console

from lhuc_asr.base.config import load_config
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.examples import BLOCK, Examples
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.recommender import RecommenderConfig
from lhuc_asr.ppnet.synthetic import SyntheticCorpus, SyntheticUsersConfig, write_draws
from lhuc_asr.ppnet.trainer import make_optimizers, step
from lhuc_asr.ppnet.vocabulary import Vocabularies

EXAMPLES, TRAINED, BATCH = 10_000_000, 2_000_000, 1024
USERS = 100_000
# Only the rows of a batch are moved: the table has many users.
ROWS = {"embedding_optimizer": "row_adam", "embedding_l2": 0.0}
RECIPE = Path(__file__).parents[1] / "recipes" / "ppnet_synthetic" / "config.yaml"

console = Console(width=120)
Result = TypeVar("Result")


def main(folder: Path) -> None:
    """Write the examples to a folder where they are missing, read them, and train on a part of them."""
    torch.set_num_threads(1)
    config = load_config(RecommenderConfig, RECIPE)
    path = folder / "examples.parquet"
    if not path.exists():
        corpus = SyntheticCorpus(SyntheticUsersConfig(users=USERS))
        report("written", EXAMPLES, partial(write_draws, path, corpus, EXAMPLES, np.random.default_rng(0)))
    blocks = Reader([path], config.examples).blocks(BLOCK)
    vocabularies = report("vocabularies", EXAMPLES, partial(Vocabularies.fit, blocks, config.examples))
    examples = Examples([path], config.examples, vocabularies)
    watch("read", EXAMPLES, examples, lambda batch: None)
    ppnet = config.models["ppnet"]
    if not isinstance(ppnet, RankingConfig):
        sys.exit(f"{RECIPE}: the model 'ppnet' is not a network")
    model = build(ppnet, config.examples, vocabularies.rows, torch.Generator().manual_seed(1))
    optimizers = make_optimizers(model, config.trainer.model_copy(update=ROWS))
    watch("trained on", TRAINED, examples, lambda batch: step(model, optimizers, batch))


def watch(what: str, count: int, examples: Examples, use: Callable[[Batch], object]) -> None:
    """Stream ``count`` examples; show the resident memory after each tenth."""
    megabytes: list[float] = []
    start, done = time.process_time(), 0
    for batch in islice(examples.batches(BATCH, 1), count // BATCH):
        use(batch)
        done += len(batch)
        if done * 10 >= (len(megabytes) + 1) * (count - BATCH):
            megabytes.append(resident())
    seconds = time.process_time() - start
    console.print(
        f"{what}: {done / seconds:,.0f} examples/s; megabytes by tenths: {', '.join(f'{m:.0f}' for m in megabytes)}"
    )


def report(what: str, count: int, action: Callable[[], Result]) -> Result:
    """Do something with ``count`` examples; show the resident memory before and after."""
    start, before = time.process_time(), resident()
    result = action()
    seconds = time.process_time() - start
    console.print(f"{what}: {count / seconds:,.0f} examples/s; {before:.0f} megabytes before, {resident():.0f} after")
    return result


def resident() -> float:
    """Megabytes of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
