"""Rows of hypotheses.jsonl."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lhuc_asr.base.errors import SearchError
from lhuc_asr.decode.hypothesis import Hypothesis, from_row, to_row

HYPOTHESIS = Hypothesis("a-1", ("go", "über", "on"), (3, 9, 40), 812.5, True, np.array([1, 1, 2], np.int32))


def test_a_row_survives_json_and_gets_its_alignment_back():
    row = json.loads(json.dumps(to_row(HYPOTHESIS, "a")))
    assert row["speaker"] == "a"
    again = from_row(row, HYPOTHESIS.pdfs)
    assert again.text == "go über on"
    assert (again.utterance, again.words, again.word_frames) == ("a-1", HYPOTHESIS.words, (3, 9, 40))
    assert (again.cost, again.reached_final) == (812.5, True)
    assert again.pdfs.tolist() == [1, 1, 2]
    assert from_row(row).pdfs.shape == (0,)


def test_no_words_survive_too():
    empty = Hypothesis("a-2", (), (), 0.0, False)
    assert from_row(to_row(empty, "a")).words == ()


def test_damaged_rows_are_named():
    row = to_row(HYPOTHESIS, "a")
    with pytest.raises(SearchError, match="hypothesis of a-1: cost, words missing; delete"):
        from_row({key: row[key] for key in row if key not in ("cost", "words")})
    with pytest.raises(SearchError, match="hypothesis of a-1: 2 words, but 3 frames of words"):
        from_row({**row, "words": "go on"})


def test_confidences_survive_and_rows_from_before_them_are_read():
    sure = replace(HYPOTHESIS, confidences=(0.25, 1.0, 0.123456))
    row = json.loads(json.dumps(to_row(sure, "a")))
    assert from_row(row).confidences == (0.25, 1.0, 0.1235)
    del row["confidences"]
    assert from_row(row).confidences == ()
    with pytest.raises(SearchError, match="hypothesis of a-1: 3 words, but 2 confidences"):
        from_row({**row, "confidences": [0.5, 0.5]})
