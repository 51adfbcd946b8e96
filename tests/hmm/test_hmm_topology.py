"""Topologies: pdf numbers, probabilities of staying, kinds, round trips, damaged files."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.states import INITIAL_SELF_LOOP, SELF_LOOP_RANGE
from lhuc_asr.hmm.topology import KINDS, MonophoneTopology, load
from lhuc_asr.lang.phones import PhoneSet

PHONES = PhoneSet(("SIL", "SPN"), ("A", "B"))


def test_every_state_of_every_phone_has_a_pdf_of_its_own():
    topology = MonophoneTopology.initial(PHONES)
    pdfs = {phone: [state.pdf for state in topology.states((phone,))] for phone in PHONES.names}
    assert pdfs == {"SIL": [0, 1, 2, 3, 4], "SPN": [5, 6, 7, 8, 9], "A": [10, 11, 12], "B": [13, 14, 15]}
    assert topology.pdf_count == 16
    assert topology.silence_pdfs.tolist() == list(range(10))


def test_staying_is_counted_and_smoothed():
    topology = MonophoneTopology.initial(PHONES)
    visits, stays = np.zeros(16), np.zeros(16)
    visits[10], stays[10] = 1999.0, 1600.0
    visits[11], stays[11] = 10_000.0, 10_000.0
    visits[12], stays[12] = 10_000.0, 0.0
    self_loop = topology.with_self_loops(stays, visits).self_loop
    assert self_loop[10] == pytest.approx(1600.75 / 2000)
    assert (self_loop[12], self_loop[11]) == SELF_LOOP_RANGE
    assert self_loop[13] == INITIAL_SELF_LOOP  # never seen


def test_more_stays_than_visits_are_refused():
    with pytest.raises(AlignmentError, match="stayed in more often"):
        MonophoneTopology.initial(PHONES).with_self_loops(np.full(16, 2.0), np.ones(16))


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path):
    generator = np.random.default_rng(0)
    topology = MonophoneTopology(PHONES, generator.uniform(0.1, 0.9, 16))
    topology.save(tmp_path / "topology.json")
    loaded = load(tmp_path / "topology.json")
    assert loaded.phones == PHONES
    assert np.array_equal(loaded.self_loop, topology.self_loop)


def test_a_file_names_its_kind_and_one_from_before_there_were_kinds_is_of_monophones(tmp_path):
    path = tmp_path / "topology.json"
    topology = MonophoneTopology(PHONES, np.linspace(0.1, 0.9, 16))
    topology.save(path)
    tree = json.loads(path.read_text())
    assert tree.pop("kind") == "monophones"
    path.write_text(json.dumps(tree))
    loaded = load(path)
    assert isinstance(loaded, MonophoneTopology)
    assert loaded.phones == PHONES
    assert np.array_equal(loaded.self_loop, topology.self_loop)


def test_a_kind_is_loaded_by_its_line_in_the_table(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class WholeWords:
        phones: PhoneSet
        kind = "whole words"

        @classmethod
        def load(cls, path):
            return cls(PhoneSet(("SIL",), tuple(json.loads(path.read_text())["words"])))

    path = tmp_path / "topology.json"
    path.write_text('{"kind": "whole words", "words": ["one", "two"]}')
    with pytest.raises(AlignmentError, match=r"topology\.json: the kind .* 'whole words', expected one of: monophones"):
        load(path)
    monkeypatch.setitem(KINDS, WholeWords.kind, WholeWords)
    assert load(path) == WholeWords(PhoneSet(("SIL",), ("one", "two")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"self_loop": [0.5] * 15}, "expected 16 probabilities of staying, .* found 15"),
        ({"self_loop": [0.5] * 15 + [1.0]}, r"self_loop\.15: Input should be less than 1, found 1\.0"),
        ({"self_loop": [0.5] * 15 + ["x"]}, "not a topology"),
        ({"speech": 3}, "not a topology"),
        ({"speech": ["A B"]}, "speech.0: not a name: it has white space"),
        ({"speech": ["A\n"]}, "speech.0: not a name: it is empty, or has control characters"),
        ({"silence": ["SPN"]}, "SIL is not among its silence phones"),
        ({"self_loop": [float("nan")] * 16}, "NaN is not a number of JSON"),
        ({"kind": ["monophones"]}, "not a topology"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, change, message):
    path = tmp_path / "topology.json"
    MonophoneTopology.initial(PHONES).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AlignmentError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_json_or_lacks_a_key_is_told(tmp_path):
    path = tmp_path / "topology.json"
    for content in ("{", "{}", "[]"):
        path.write_text(content)
        with pytest.raises(AlignmentError, match=r"topology\.json: not a topology"):
            load(path)
