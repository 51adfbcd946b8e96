"""Transducers as arrays: round trips through kaldifst, and self-loops by enumeration of accepted strings."""

import kaldifst
import numpy as np
import pytest

from lhuc_asr.base.errors import GraphError
from lhuc_asr.decode.const_fst import ArcTable
from lhuc_asr.decode.graph import add_self_loops

TEXT = "0 1 3 4 0.5\n0 2 1 0 1.25\n1 1 0 2 0.75\n1 2 2 2 0\n2 0.125\n"


def test_kaldifst_and_arrays_agree():
    table = ArcTable.from_fst(kaldifst.compile(TEXT))
    assert table.start == 0
    assert table.final.tolist() == [np.inf, np.inf, 0.125]
    rows = [(int(s), *arc) for s, arc in zip(table.source, table.arcs.tolist(), strict=True)]
    assert rows == [(0, 3, 4, 0.5, 1), (0, 1, 0, 1.25, 2), (1, 0, 2, 0.75, 1), (1, 2, 2, 0.0, 2)]
    again = table.to_fst()
    assert str(again) == str(kaldifst.compile(TEXT))
    assert [again.num_input_epsilons(state) for state in range(3)] == [0, 1, 0]


def test_arcs_in_any_order_come_out_by_source():
    table = ArcTable.of([(2, 1, 1, 0.5, 0), (0, 2, 2, 0.0, 2), (0, 1, 3, 0.25, 1)], final={1: 0.5})
    assert table.source.tolist() == [0, 0, 2]
    assert table.arcs["output"].tolist() == [2, 3, 1]
    assert table.final.tolist() == [np.inf, 0.5, np.inf]


def test_a_file_cut_short_or_of_another_type_is_named(tmp_path):
    path = tmp_path / "HCLG.fst"
    ArcTable.from_fst(kaldifst.compile(TEXT)).write(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GraphError, match=r"HCLG\.fst: \d+ bytes, but 3 states and 4 arcs take \d+"):
        ArcTable.read(path)
    kaldifst.compile(TEXT).write(str(path))
    with pytest.raises(GraphError, match=r"HCLG\.fst: not an OpenFst const FST with standard arcs"):
        ArcTable.read(path)


def accepted(table: ArcTable, emissions: int) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """Least cost of each (input string, output string) with up to so many inputs; no cycles of epsilons."""
    result: dict = {}
    stack = [(table.start, (), (), 0.0)]
    while stack:
        state, inputs, outputs, cost = stack.pop()
        if np.isfinite(table.final[state]):
            key = (inputs, outputs)
            result[key] = min(result.get(key, np.inf), cost + float(table.final[state]))
        for arc in table.arcs[table.source == state]:
            label, output = int(arc["input"]), int(arc["output"])
            if not label or len(inputs) < emissions:
                stack.append(
                    (
                        int(arc["target"]),
                        (*inputs, label) if label else inputs,
                        (*outputs, output) if output else outputs,
                        cost + float(arc["cost"]),
                    )
                )
    return result


def stretched(table: ArcTable, stay: np.ndarray, emissions: int) -> dict:
    """What the graph with loops must accept: each input of the graph without repeated at will."""
    result: dict = {}
    for (inputs, outputs), cost in accepted(table, emissions).items():
        ways = [((), cost)]
        for label in inputs:
            ways = [
                (prefix + (label,) * times, so_far + (times - 1) * float(stay[label - 1]))
                for prefix, so_far in ways
                for times in range(1, emissions - len(prefix) + 1)
            ]
        for string, total in ways:
            result[string, outputs] = min(result.get((string, outputs), np.inf), total)
    return result


@pytest.mark.parametrize("seed", range(8))
def test_self_loops_let_every_label_last(seed):
    rng = np.random.default_rng(seed)
    arcs = [(0, 1, 2, 0.5, 1), (1, 2, 1, 0.25, 3)]
    for _ in range(8):
        source, target = (int(state) for state in rng.integers(4, size=2))
        label = int(rng.integers(3)) if source < target else int(rng.integers(1, 3))  # no cycle of epsilons
        arcs.append((source, label, int(rng.integers(3)), float(rng.integers(1, 9)) / 4, target))
    table = ArcTable.of(arcs, final={3: 0.5, 1: 0.25})
    stay = np.array([0.25, 0.75], np.float32)
    with_loops = accepted(add_self_loops(table, stay), 4)
    expected = stretched(table, stay, 4)
    assert with_loops.keys() == expected.keys()
    for key, cost in expected.items():
        assert with_loops[key] == pytest.approx(cost)
