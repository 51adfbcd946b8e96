"""The histories of an n-gram model in a folder, read through memory maps.

An ARPA file of millions of n-grams takes a minute to read, and a gigabyte in each process that rescores lattices. The
maps take neither: each column of ``Histories`` is a file, ``keys.bin`` to ``history.bin``, and ``model.json`` has the
symbols and the number of n-grams of each length.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import atomic_folder, write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import Count, DocumentKind, Symbol
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.base.mapped import mapped
from lhuc_asr.lang.histories import EMPTY, Histories, HistoryModel
from lhuc_asr.lang.text import SENTENCE_BEGIN, SENTENCE_END

_COLUMNS = {
    "keys": np.int64,
    "log_prob": np.float64,
    "log_backoff": np.float64,
    "shorter": np.int64,
    "history": np.int64,
}


class _Header(StrictModel):
    """Content of ``model.json``: the symbols, and the number of n-grams of each length."""

    symbols: tuple[Symbol, ...]
    counts: tuple[Count, ...]


_REMEDY = "delete the folder and run again"
_HEADERS = DocumentKind(_Header, "the histories of a language model", LanguageModelError, _REMEDY)


def write_histories(folder: Path, model: HistoryModel) -> None:
    """Write a model, whole or not at all; an existing folder is replaced."""
    with atomic_folder(folder) as temporary:
        for name, dtype in _COLUMNS.items():
            column: np.ndarray = getattr(model.histories, name)
            column.astype(dtype, copy=False).tofile(temporary / f"{name}.bin")
        counts = np.diff(model.histories.first).tolist()
        write_json(temporary / "model.json", {"symbols": model.symbols, "counts": counts})


def read_histories(folder: Path) -> HistoryModel:
    """Map a model, after one look at all of its numbers: compiled loops trust them.

    Raises:
        LanguageModelError: The folder is not one of ``write_histories``, its files do not match each other, or a number
            leads outside the model.
    """
    header = _HEADERS.read(folder / "model.json")
    first = np.concatenate([[0], np.cumsum(header.counts)]).astype(np.int64)
    columns = {
        name: mapped(folder / f"{name}.bin", dtype, int(first[-1]), LanguageModelError, _REMEDY)
        for name, dtype in _COLUMNS.items()
    }
    length = np.repeat(np.arange(1, len(header.counts) + 1, dtype=np.int8), header.counts)
    histories = Histories(first=first, length=length, words=len(header.symbols), **columns)
    if header.symbols[:2] != (SENTENCE_BEGIN, SENTENCE_END) or len(set(header.symbols)) < len(header.symbols):
        raise LanguageModelError(
            f"{folder / 'model.json'}: the symbols do not begin with {SENTENCE_BEGIN} and {SENTENCE_END}, or one "
            f"occurs twice; {_REMEDY}"
        )
    for name, right in _checks(histories).items():
        if not right:
            raise LanguageModelError(f"{folder / name}.bin: damaged; {_REMEDY}")
    return HistoryModel(header.symbols, histories)


def _checks(model: Histories) -> dict[str, bool]:
    """Whether each column leads nowhere outside the model, and never in a circle."""
    right = {name: bool(np.isfinite(getattr(model, name)).all()) for name in ("log_prob", "log_backoff")}
    unigrams = np.arange(model.words)
    right["keys"] = len(model.first) > 1 and np.array_equal(model.keys[: model.first[1]], unigrams)
    right["shorter"] = right["history"] = True
    for length, (begin, end) in enumerate(pairwise(model.first.tolist())):
        keys, shorter, history = (column[begin:end] for column in (model.keys, model.shorter, model.history))
        earlier = 1 if length == 0 else int(model.first[length] - model.first[length - 1])
        right["keys"] &= bool(np.all(keys[1:] > keys[:-1])) and _within(keys, 0, earlier * model.words)
        right["shorter"] &= _within(shorter, EMPTY, begin)
        right["history"] &= bool(np.all((history == shorter) | (history == np.arange(begin, end))))
    return right


def _within(column: np.ndarray, low: int, high: int) -> bool:
    """Whether all numbers are at least ``low`` and less than ``high``."""
    return not len(column) or low <= int(column.min()) <= int(column.max()) < high
