"""Histories on disk: what is written is mapped again, and what is damaged is refused before a loop follows it."""

import json
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.history_store import read_histories, write_histories
from lhuc_asr.lang.kneser_ney import estimate

COLUMNS = {"keys": np.int64, "log_prob": float, "log_backoff": float, "shorter": np.int64, "history": np.int64}


@pytest.fixture
def model() -> HistoryModel:
    rng = np.random.default_rng(0)
    return HistoryModel.of(estimate([[str(word) for word in rng.choice(list("ABCD"), size=6)] for _ in range(9)], 3))


@pytest.fixture
def folder(model: HistoryModel, tmp_path: Path) -> Path:
    write_histories(tmp_path / "histories", model)
    return tmp_path / "histories"


def test_what_was_written_is_mapped(model, folder):
    again = read_histories(folder)
    assert (again.symbols, again.ids) == (model.symbols, model.ids)
    for name, written, mapped in zip(model.histories._fields, model.histories, again.histories, strict=True):
        np.testing.assert_array_equal(mapped, written, err_msg=name)
        if name in COLUMNS:
            assert isinstance(mapped, np.memmap)
            assert not mapped.flags.writeable


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("keys", 1, 0),  # a unigram twice
        ("keys", -1, 10**9),  # a history that is not there
        ("keys", 8, -1),
        ("keys", 9, 0),  # not ascending
        ("log_prob", 3, np.nan),
        ("log_backoff", -1, np.inf),
        ("shorter", 2, 2),  # a circle
        ("shorter", 7, 10**9),
        ("shorter", 7, -2),
        ("history", 5, 4),  # neither its own row nor the shorter one
        ("history", -1, 10**9),
    ],
)
def test_a_number_that_leads_outside_is_refused(folder, column, row, value):
    path = folder / f"{column}.bin"
    numbers = np.fromfile(path, COLUMNS[column])
    numbers[row] = value
    numbers.tofile(path)
    with pytest.raises(LanguageModelError, match=rf"{column}\.bin: damaged; delete the folder"):
        read_histories(folder)


def test_files_that_do_not_fit_each_other_are_refused(folder):
    path = folder / "shorter.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LanguageModelError, match=r"shorter\.bin: \d+ bytes, expected \d+ numbers of 8"):
        read_histories(folder)
    path.unlink()
    with pytest.raises(LanguageModelError, match=r"shorter\.bin: cannot be read \(No such file"):
        read_histories(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ["</s>", "<s>", "A", "B", "C", "D"]}, "do not begin with"),
        ({"symbols": ["<s>", "</s>", "A", "B", "C", "C"]}, "occurs twice"),
        ({"symbols": ["<s>", "</s>", "A", "B", "C"]}, r"keys\.bin: damaged"),
        ({"counts": []}, "expected 0 numbers"),
        ({"counts": [-1]}, "counts"),
        ({"more": 1}, "more"),
    ],
)
def test_a_header_of_another_model_is_refused(folder, change, message):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LanguageModelError, match=message):
        read_histories(folder)
