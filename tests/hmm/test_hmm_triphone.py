"""Triphone topologies: their states, their files, damaged ones and those of other phones."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triphone_world import PHONES, statistics

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.states import INITIAL_SELF_LOOP, SELF_LOOP_RANGE
from lhuc_asr.hmm.topology import load
from lhuc_asr.hmm.tree_building import TreeConfig, build_tree
from lhuc_asr.hmm.triphone import TriphoneTopology
from lhuc_asr.lang.phones import SILENCE, PhoneSet

WINDOWS = list(itertools.product(("", *PHONES.names), PHONES.names, ("", *PHONES.names)))


@pytest.fixture(scope="module")
def topology() -> TriphoneTopology:
    tree = build_tree(statistics(1), PHONES, TreeConfig(leaves=60)).tree
    initial = TriphoneTopology.initial(PHONES, tree)
    visits = np.full(initial.pdf_count, 1000.0)
    return initial.with_self_loops(visits * np.linspace(0.3, 0.9, initial.pdf_count), visits)


def test_a_phone_has_three_states_and_silence_five(topology):
    assert (topology.context_width, topology.central_position) == (3, 1)
    for window in WINDOWS:
        states = topology.states(window)
        assert [state.pdf for state in states] == list(topology.tree.pdfs(*window))
        assert len(states) == (5 if window[1] == SILENCE else 3)
        assert all(state.self_loop == topology.self_loop[state.pdf] for state in states)
    used = {state.pdf for window in WINDOWS for state in topology.states(window)}
    assert used == set(range(topology.pdf_count))
    assert topology.silence_pdfs.tolist() == [0, 1, 2, 3, 4]


def test_beyond_the_edge_is_as_silence(topology):
    for phone in PHONES.names:
        assert topology.states(("", phone, "")) == topology.states((SILENCE, phone, SILENCE))


def test_staying_is_counted_and_smoothed(topology):
    initial = TriphoneTopology.initial(PHONES, topology.tree)
    assert set(initial.self_loop) == {INITIAL_SELF_LOOP}
    visits, stays = np.full(initial.pdf_count, 10_000.0), np.full(initial.pdf_count, 10_000.0)
    assert set(initial.with_self_loops(stays, visits).self_loop) == {SELF_LOOP_RANGE[1]}
    with pytest.raises(AlignmentError, match="stayed in more often"):
        initial.with_self_loops(stays + 1, visits)


@pytest.mark.parametrize("window", [("A", "E"), ("A", "", "E"), ("A", "Z", "E"), ("Z", "A", "E"), ("A", "E", "Z")])
def test_a_window_of_other_phones_is_named(topology, window):
    with pytest.raises(AlignmentError, match=r"expected a phone between two others.*train triphones on this lexicon"):
        topology.states(window)


def test_a_tree_of_another_phone_set_is_an_error(topology):
    with pytest.raises(AlignmentError, match="its roots are of the phones SIL A E M N P T, not of its phone set"):
        TriphoneTopology.initial(PhoneSet.of(["A", "E"]), topology.tree)


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path, topology):
    topology.save(tmp_path / "topology.json")
    loaded = load(tmp_path / "topology.json")
    assert isinstance(loaded, TriphoneTopology)
    assert (loaded.phones, loaded.tree) == (topology.phones, topology.tree)
    assert np.array_equal(loaded.self_loop, topology.self_loop)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "topology.json").read_bytes()


def split_of(content: dict[str, Any], ask: str) -> dict[str, Any]:
    return next(node for node in content["nodes"] if node.get("ask") == ask)


def leaf_of(content: dict[str, Any], pdf: int) -> dict[str, Any]:
    return next(node for node in content["nodes"] if node.get("pdf") == pdf)


# What is changed in the file, and what the error says.
DAMAGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c["nodes"][5].update(yes=5), "node 5 leads to node 5, expected 6 to"),
    (lambda c: c["nodes"][5].update(yes=0), "node 5 leads to node 0"),
    (lambda c: c["nodes"][5].update(no=10_000), "node 5 leads to node 10000"),
    (lambda c: c["nodes"][5].update(no=c["nodes"][5]["yes"]), "2 ways lead to node|0 ways lead to node"),
    (lambda c: c["nodes"].append({"pdf": 0}), "0 ways lead to node"),
    (lambda c: c["nodes"].clear(), "not a topology"),
    (lambda c: split_of(c, "left").update(question=10_000), "a node has the question 10000"),
    (lambda c: split_of(c, "position").update(last=4), "not a topology"),
    (lambda c: split_of(c, "left").update(ask="above"), "not a topology"),
    (lambda c: split_of(c, "left").update(pdf=1), "not a topology"),
    (lambda c: leaf_of(c, 7).update(pdf=-1), "not a topology"),
    (lambda c: leaf_of(c, 7).update(pdf=10_000), "its leaves have .* pdfs up to 10000"),
    (lambda c: leaf_of(c, 7).update(pdf=0), "silence and speech share the pdf 0|its leaves have"),
    (lambda c: c["questions"][0].append("Z"), "asks about phones outside its phone set: Z"),
    (lambda c: c["questions"][0].append(3), "not a topology"),
    (lambda c: c["roots"].pop("A"), "its roots are of the phones SIL E M N P T, not of its phone set"),
    (lambda c: c["roots"].update(A=[5, 5]), "A has 2 roots, expected 3"),
    (lambda c: c["roots"].update(A=[10_000] * 3), "A begins at node 10000"),
    (lambda c: c["roots"].update(A=[]), "not a topology"),
    (lambda c: c["roots"].update(SIL=[5, 1, 2, 3, 4]), "states of SIL, a silence phone, depend on its neighbours"),
    (lambda c: c["self_loop"].pop(), "expected .* probabilities of staying, one for each pdf of its tree"),
    (lambda c: c["self_loop"].__setitem__(0, 1.0), "not a topology"),
    (lambda c: c["silence"].__setitem__(0, "SPN"), "SIL is not among its silence phones"),
    (lambda c: c["speech"].append("A"), "named twice: A"),
    (lambda c: c.update(more=1), "not a topology"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=map(str, range(len(DAMAGES))))
def test_a_damaged_file_is_told(tmp_path: Path, topology, damage, message):
    path = tmp_path / "topology.json"
    topology.save(path)
    content = json.loads(path.read_text())
    changed = copy.deepcopy(content)
    damage(changed)
    assert changed != content
    path.write_text(json.dumps(changed))
    with pytest.raises(AlignmentError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "delete its folder and run again" in str(caught.value)
