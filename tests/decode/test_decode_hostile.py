"""Graphs whose files contradict themselves, with hashes that fit: refused where they are opened, before any search."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from three_words import TOPOLOGY, spoken

from lhuc_asr.base.errors import GraphError, SearchError
from lhuc_asr.decode.const_fst import ARC, ArcTable
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.search import SearchConfig, Searcher

# Sizes of OpenFst's const format, written down here on their own: the names, the header, a state, an arc.
NAMES, HEADER, STATE = 25, 40, 20
START, STATES, ARCS, FLAGS = NAMES + 16, NAMES + 24, NAMES + 32, NAMES + 4


@pytest.fixture
def copy(graph: DecodingGraph, tmp_path: Path) -> Path:
    """A copy of the graph's folder, to be changed."""
    return Path(shutil.copytree(graph.folder, tmp_path / "graph"))


def fit(folder: Path) -> None:
    """Make the hashes fit what the files are now."""
    tree = json.loads((folder / "graph.json").read_text())
    tree["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in tree["sha256"]}
    (folder / "graph.json").write_text(json.dumps(tree))


def put(folder: Path, offset: int, kind: str, value: float) -> None:
    """Overwrite a number in the transducer's file, and make the hashes fit."""
    data = bytearray((folder / "HCLG.fst").read_bytes())
    number = np.array([value]).astype(kind).tobytes()
    data[offset : offset + len(number)] = number
    (folder / "HCLG.fst").write_bytes(data)
    fit(folder)


@pytest.mark.parametrize(
    ("offset", "kind", "value", "message"),
    [
        (START, "<i8", 22, "start 22, 22 states"),
        (START, "<i8", -1, "start -1"),
        (STATES, "<i8", 2**40, "states"),
        (STATES, "<i8", -5, "-5 states"),
        (ARCS, "<i8", 2**31, "bytes, but 22 states and 2147483648 arcs take"),
        (ARCS, "<i8", -1, "-1 arcs"),
        (FLAGS, "<i4", 1, "no tables of symbols"),
        (FLAGS, "<i4", 4, "bytes, but"),
        (NAMES + HEADER, "<f4", np.nan, "a cost is not a number"),
        (NAMES + HEADER, "<f4", -np.inf, "a cost is not a number"),
        (NAMES + HEADER + 4, "<u4", 3, "not one after the other"),
        (NAMES + HEADER + 8, "<u4", 2**32 - 1, "not one after the other"),
    ],
)
def test_a_header_or_state_that_contradicts_the_file_is_refused(
    copy: Path, offset: int, kind: str, value: float, message: str
) -> None:
    put(copy, offset, kind, value)
    with pytest.raises(GraphError, match=r"HCLG\.fst: .*; .*rebuild") as caught:
        DecodingGraph.load(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target", 22, "target 22, expected 0 to 21"),
        ("target", -1, "target -1"),
        ("target", 2**31 - 1, "target 2147483647"),
        ("input", -7, "input -7"),
        ("input", 15, "input 15, expected 0 to 14"),
        ("output", 7, "output 7, expected 0 to 6"),
        ("output", -1, "output -1"),
        ("cost", np.nan, "a cost is not a number"),
        ("cost", np.inf, "a cost is not a number"),
        ("cost", -1e30, "a cost is not a number"),
    ],
)
def test_an_arc_that_leads_out_of_the_graph_is_refused(
    copy: Path, graph: DecodingGraph, field: str, value: float, message: str
) -> None:
    arcs = NAMES + HEADER + STATE * graph.states
    put(copy, arcs + 5 * ARC.itemsize + ARC.fields[field][1], ARC[field].str, value)
    with pytest.raises(GraphError, match=r"HCLG\.fst: .*rebuild") as caught:
        DecodingGraph.load(copy)
    assert message in str(caught.value)


def test_a_circle_of_epsilons_is_refused_for_both_searches(copy: Path, graph: DecodingGraph) -> None:
    """With a negative cost, kaldi-decoder would go round for ever, and hold Python's lock."""
    table = ArcTable.read(copy / "HCLG.fst")
    table.arcs[0] = (0, 0, -1.0, table.source[0])
    table.write(copy / "HCLG.fst")
    fit(copy)
    with pytest.raises(GraphError, match="circle of epsilons"):
        DecodingGraph.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_pdf": [0, 99]}, "a label has the pdf 99, expected 0 to 13"),
        ({"label_pdf": [-1]}, "label_pdf.0: Input should be greater than or equal to 0"),
        ({"label_pdf": [0, 1]}, "an arc has the input 14, expected 0 to 2"),
        ({"label_pdf": "0"}, "label_pdf: "),
        ({"pdf_count": 2**40}, "pdf_count: "),
        ({"pdf_count": True}, "pdf_count: "),
        ({"states": 21}, "22 states and 47 arcs, graph.json says 21"),
        ({"sha256": {"../../../../dev/zero": "0" * 64}}, "sha256"),
        ({"sha256": {"HCLG.fst": 3, "words.txt": 4}}, "sha256.HCLG.fst: "),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(copy: Path, change: dict[str, object], message: str) -> None:
    tree = json.loads((copy / "graph.json").read_text())
    (copy / "graph.json").write_text(json.dumps(tree | change))
    with pytest.raises(GraphError) as caught:
        DecodingGraph.load(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["HCLG.fst", "words.txt", "graph.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_can_be_read_for_ever_is_refused(copy: Path, name: str, make: Callable[[Path], None]) -> None:
    (copy / name).unlink()
    make(copy / name)
    with pytest.raises(GraphError, match=f"{name}: cannot be read .not a file on disk"):
        DecodingGraph.load(copy)


@pytest.mark.parametrize(("size", "scale"), [(1e30, 1e10), (1e36, 0.1), (1e5, 1e3)])
def test_scores_that_are_too_large_when_they_are_scaled_are_refused(
    graph: DecodingGraph, size: float, scale: float
) -> None:
    """Sums of them would be infinite, or so inexact that a lattice has frames without any arc."""
    scores = spoken(("ab",), np.random.default_rng(1)) * np.float32(size)
    config = SearchConfig(acoustic_scale=scale)
    for search in (Searcher(graph, config).search, LatticeSearcher(graph, config, LatticeConfig()).search):
        with pytest.raises(SearchError, match=r"u: scores of frame 0 are not finite, or beyond 1e\+06, at acoustic"):
            search("u", scores)


@pytest.mark.parametrize("seed", range(60))
def test_what_passes_can_be_searched(copy: Path, graph: DecodingGraph, seed: int) -> None:
    """Random numbers in random places of the file: refused, or searched to the end by both searches."""
    draw = random.Random(seed)
    data = bytearray((copy / "HCLG.fst").read_bytes())
    for _ in range(draw.choice((1, 2, 8))):
        place = NAMES + HEADER + 4 * draw.randrange((len(data) - NAMES - HEADER) // 4)
        number = draw.choice((0, 1, -1, 14, 15, 21, 22, draw.randrange(22), 2**31 - 1, -(2**31), 0x49000000))
        data[place : place + 4] = number.to_bytes(4, "little", signed=True)
    (copy / "HCLG.fst").write_bytes(data)
    fit(copy)
    try:
        opened = DecodingGraph.load(copy)
    except GraphError:
        return
    scores = spoken(("cab", "ba"), np.random.default_rng(seed))
    assert scores.shape[1] == TOPOLOGY.pdf_count
    for search in (Searcher(opened, SearchConfig()), LatticeSearcher(opened, SearchConfig(), LatticeConfig())):
        with suppress(SearchError):
            search.search("u", scores)
