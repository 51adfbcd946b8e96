"""Predicted probabilities of examples, written as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import ExamplesError, ScoreError
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.ranker_folder import Ranker
from lhuc_asr.ppnet.table_files import listed
from lhuc_asr.ppnet.trainer import predict

with extra("rank"):
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

BATCH = 8192


def write_predictions(ranker: Ranker, paths: Sequence[Path], out: Path, device: torch.device) -> int:
    """Write a column of probabilities for each task and a row for each example, in the examples' order.

    Args:
        ranker: The trained ranker.
        paths: Files, folders and patterns of examples, with labels or without (``table_files.py``).
        out: The ``.csv`` or ``.parquet`` file, written whole or not at all.
        device: Device of the network.

    Returns:
        Number of examples.

    Raises:
        ExamplesError: The examples do not fit the network's schema, or ``out`` has another ending, is one of the files
            of examples, would be one of them the next time, or is there and is not a table of predictions.
        ScoreError: A probability is not a number.
    """
    writers = {".csv": pacsv.CSVWriter, ".parquet": pq.ParquetWriter}
    if out.suffix not in writers:
        raise ExamplesError(f"{out}: cannot write predictions to such a file; give a .csv or .parquet file")
    examples = Examples(paths, ranker.schema, ranker.vocabularies, labelled=False)
    _refuse_an_input(out, paths, examples.files)
    _refuse_to_lose(out, ranker.schema.labels)
    types = pa.schema({label: pa.float32() for label in ranker.schema.labels})
    count = 0
    with atomic_path(out) as temporary, writers[out.suffix](temporary, types) as writer:
        for table in _tables(ranker, examples, types, device):
            writer.write_table(table)
            count += table.num_rows
    examples.report_unseen(listed(paths))
    return count


def _refuse_an_input(out: Path, paths: Sequence[Path], files: Sequence[Path]) -> None:
    if any(out.exists() and file.samefile(out) for file in files):
        raise ExamplesError(f"{out}: is one of the files of examples, which would be lost; choose another name")
    place = out.resolve()
    for path in paths:
        if path.is_dir() and place.is_relative_to(path.resolve()):
            raise ExamplesError(f"{out}: is in a folder of examples, and would be read as one; choose another place")


def _refuse_to_lose(out: Path, labels: Sequence[str]) -> None:
    """Refuse to replace a table that is not one of predictions: its columns are not the tasks, and nothing else."""
    if not out.is_file() or out.stat().st_size == 0:
        return
    try:
        names = pq.read_schema(out).names if out.suffix == ".parquet" else pacsv.open_csv(out).schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        names = []
    if names != list(labels):
        raise ExamplesError(f"{out}: exists and is not a table of such predictions; choose another name")


def _tables(ranker: Ranker, examples: Examples, types: pa.Schema, device: torch.device) -> Iterator[pa.Table]:
    network = ranker.network.to(device)
    for number, batch in enumerate(examples.batches(BATCH)):
        probabilities = predict(network, batch, device)
        bad = (~probabilities.isfinite()).any(1).nonzero()[:, 0].tolist()
        if bad:
            raise ScoreError(
                f"example {number * BATCH + bad[0] + 1}: the probability is not a number: its values are far from "
                "those of training, or the network's weights are damaged; check the example, or train again"
            )
        yield pa.table(list(probabilities.T.contiguous().numpy()), schema=types)
