"""Stores of denominator lattices: what is written comes back; damaged and hostile ones are refused in one line."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_lattices import PDFS, chain, lattice_of, random_world, store_of

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.nnet.denominator import DTYPES, DenominatorLattice, check_lattice
from lhuc_asr.nnet.lattice_store import LatticeStore, write_lattices


def _lattice() -> DenominatorLattice:
    arcs = [(0, 1, 0.5, [0, 1]), (0, 2, 1.0, [2]), (1, 3, 0.0, []), (2, 3, -0.5, [4])]
    return lattice_of([0, 2, 1, 2], arcs, {3: 0.25})


def _changed(**values: tuple[int, float]) -> DenominatorLattice:
    """The lattice with one number of some arrays changed: place and value."""
    arrays = {name: getattr(_lattice(), name).copy() for name in values}
    for name, (place, value) in values.items():
        arrays[name][place] = value
    return replace(_lattice(), **arrays)


def _store(folder: Path) -> LatticeStore:
    return store_of(folder, [("one", chain([0, 1])), ("two", _lattice()), ("three", chain([4]))])


@settings(max_examples=25)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True))
def test_what_is_written_comes_back(tmp_path_factory, seeds):
    lattices = {f"utterance {seed}": random_world(seed).lattice for seed in seeds}
    store = store_of(tmp_path_factory.mktemp("store") / "lattices", iter(lattices.items()))
    assert list(store) == list(lattices)
    assert len(store) == len(lattices)
    assert "another" not in store
    assert store.pdf_count == PDFS
    for utterance, lattice in lattices.items():
        assert utterance in store
        for name, dtype in DTYPES.items():
            array = getattr(store[utterance], name)
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, getattr(lattice, name))


def test_the_arrays_are_views_of_the_files(tmp_path):
    store = _store(tmp_path / "store")
    for name in set(DTYPES) - {"offsets"}:
        array = getattr(store["two"], name)
        assert not array.flags.owndata
        assert not array.flags.writeable


PROBLEMS = [
    ({"frame": (1, 3)}, "node 1: its frame"),
    ({"frame": (2, -1)}, "node 2: its frame"),
    ({"frame": (0, 1)}, "node 0: the start is not at frame 0"),
    ({"final": (3, np.nan)}, "node 3: its final cost"),
    ({"final": (3, -np.inf)}, "node 3: its final cost"),
    ({"final": (3, 1e11)}, "node 3: its final cost"),
    ({"final": (2, 0.0)}, "node 2: paths end there before the last frame"),
    ({"source": (3, 4)}, "arc 3: its source or its target is not a node"),
    ({"source": (0, -1)}, "arc 0: its source or its target is not a node"),
    ({"target": (0, 2**31 - 1)}, "arc 0: its source or its target is not a node"),
    ({"source": (2, 0)}, "arc 2: it does not have one pdf for each of its frames"),
    ({"source": (1, 2)}, "arc 1: its target is not above its source"),
    ({"source": (3, 0)}, "arc 3: its source is below that of the arc before it"),
    ({"target": (2, 1)}, "arc 2: its target is not above its source"),
    ({"target": (2, 2)}, "arc 2: its target is at an earlier frame than its source"),
    ({"offsets": (1, 1)}, "arc 0: it does not have one pdf for each of its frames"),
    ({"offsets": (1, 2**63 - 1)}, "arc 0: it does not have one pdf for each of its frames"),
    ({"offsets": (2, -(2**63))}, "arc 1: it does not have one pdf for each of its frames"),
    ({"offsets": (4, 5)}, "4 nodes, and pdfs that are not all of arcs"),
    ({"offsets": (0, 1)}, "4 nodes, and pdfs that are not all of arcs"),
    ({"graph_cost": (1, np.inf)}, "arc 1: its graph cost"),
    ({"graph_cost": (1, np.nan)}, "arc 1: its graph cost"),
    ({"graph_cost": (1, -1e11)}, "arc 1: its graph cost"),
    ({"pdf": (3, PDFS)}, "arc 3: it has a pdf that the network does not have"),
    ({"pdf": (0, -1)}, "arc 0: it has a pdf that the network does not have"),
    ({"final": (3, np.inf)}, "node 0: no path leads from there to an end"),
]


@pytest.mark.parametrize(("changes", "problem"), PROBLEMS, ids=[problem for _, problem in PROBLEMS])
def test_a_lattice_that_cannot_be_gone_through_is_refused(tmp_path, changes, problem):
    check_lattice("good", _lattice(), PDFS)
    with pytest.raises(
        LatticeError, match=rf"^bad: not a lattice of this network \({problem}.*make the lattices again"
    ):
        write_lattices(tmp_path / "store", [("good", _lattice()), ("bad", _changed(**changes))], PDFS)
    assert not (tmp_path / "store").exists()


def test_a_lattice_without_frames_is_refused():
    with pytest.raises(LatticeError, match="or the last node is there too"):
        check_lattice("empty", lattice_of([0, 0], [(0, 1, 0.0, [])], {1: 0.0}), PDFS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pdf": np.zeros(4, np.int64)}, r"pdf is int64 of shape \(4,\), expected one axis of int32"),
        ({"final": np.zeros((4, 1))}, r"final is float64 of shape \(4, 1\)"),
        ({"final": np.zeros(3)}, "final has 3 values, expected 4"),
        ({"target": np.zeros(3, np.int32)}, "target has 3 values, expected 4"),
        ({"offsets": np.zeros(4, np.int64)}, "offsets has 4 values, expected 5"),
        ({"frame": np.zeros(0, np.int32), "final": np.zeros(0)}, "0 nodes"),
    ],
)
def test_arrays_of_other_types_and_lengths_are_refused(changes, problem):
    with pytest.raises(LatticeError, match=problem):
        check_lattice("bad", replace(_lattice(), **changes), PDFS)


# The changes of numbers in the files: what offsets are made of, they are not stored.
STORED = [(changes, problem) for changes, problem in PROBLEMS if "offsets" not in changes]


@pytest.mark.parametrize(("changes", "problem"), STORED, ids=[problem for _, problem in STORED])
def test_a_store_with_such_a_lattice_is_refused_when_it_is_opened(tmp_path, changes, problem):
    _store(tmp_path / "store")
    first = {"frame": 3, "final": 3, "source": 2, "target": 2, "graph_cost": 2, "pdf": 2}  # those of "one"
    for name, (place, value) in changes.items():
        path = tmp_path / "store" / f"{name}.bin"
        array = np.fromfile(path, DTYPES[name])
        array[first[name] + place] = value
        array.tofile(path)
    with pytest.raises(LatticeError, match=r"store: two: .*make the lattices again$") as caught:
        LatticeStore(tmp_path / "store")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory) -> Path:
    return _store(tmp_path_factory.mktemp("whole") / "store").folder


@given(damage=st.data())
def test_a_store_with_any_damaged_numbers_is_refused_or_can_be_gone_through(whole_store, tmp_path_factory, damage):
    """Compiled loops check no bounds: whatever a store lets pass must be safe to go through."""
    folder = shutil.copytree(whole_store, tmp_path_factory.mktemp("damaged") / "store")
    for _ in range(damage.draw(st.integers(1, 3))):
        path = folder / f"{damage.draw(st.sampled_from(sorted(set(DTYPES) - {'offsets'})))}.bin"
        array = np.fromfile(path, DTYPES[path.stem])
        place = damage.draw(st.integers(0, len(array) - 1))
        if array.dtype == np.int32:
            array[place] = damage.draw(st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 5))
        else:
            array[place] = damage.draw(st.floats())
        array.tofile(path)
    try:
        store = LatticeStore(folder)
    except LatticeError:
        return
    for utterance in store:
        check_lattice(utterance, store[utterance], PDFS)


@pytest.mark.parametrize("name", ["frame.bin", "pdf.bin", "index.jsonl", "lattices.json"])
def test_a_store_without_a_file_is_refused(tmp_path, name):
    _store(tmp_path / "store")
    (tmp_path / "store" / name).unlink()
    with pytest.raises(LatticeError, match=r"store.*delete the folder and make the lattices again"):
        LatticeStore(tmp_path / "store")


def test_a_file_that_was_cut_is_refused(tmp_path):
    _store(tmp_path / "store")
    path = tmp_path / "store" / "target.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(LatticeError, match=r"target.bin: 24 bytes, expected 7 numbers of 4; delete the folder"):
        LatticeStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 0}, "nodes: "),
        ({"nodes": 2**31}, "nodes: "),
        ({"arcs": "two"}, "arcs: "),
        ({"id": ""}, "id: "),
        ({"id": "two"}, "two occurs twice"),
        ({"beam": 3}, "beam: "),
        ({"nodes": 2}, r"frame\.bin: 36 bytes, expected 8 numbers of 4"),
        ({"pdfs": 2**31 - 1}, r"pdf\.bin: 28 bytes, expected"),
    ],
)
def test_an_index_that_is_not_the_stores_is_refused(tmp_path, change, message):
    _store(tmp_path / "store")
    path = tmp_path / "store" / "index.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]) + "\n")
    with pytest.raises(LatticeError, match=message):
        LatticeStore(tmp_path / "store")


def test_an_index_that_moves_a_node_from_one_lattice_to_the_next_is_refused(tmp_path):
    _store(tmp_path / "store")
    path = tmp_path / "store" / "index.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["nodes"] -= 1
    rows[1]["nodes"] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LatticeError, match=r"store: one: target nodes 1 to 2 of 2; delete the folder"):
        LatticeStore(tmp_path / "store")


def test_a_store_of_a_network_with_fewer_pdfs_is_refused(tmp_path):
    _store(tmp_path / "store")
    (tmp_path / "store" / "lattices.json").write_text('{"pdf_count": 4}')
    with pytest.raises(LatticeError, match=r"two: .*arc 3: it has a pdf that the network does not have"):
        LatticeStore(tmp_path / "store")


def test_a_repeated_id_and_no_lattices_are_refused(tmp_path):
    with pytest.raises(LatticeError, match=r"^u: two lattices have this id; give each its own"):
        write_lattices(tmp_path / "store", [("u", chain([0])), ("u", chain([0]))], PDFS)
    with pytest.raises(LatticeError, match="no lattices to store"):
        write_lattices(tmp_path / "store", [], PDFS)
    assert not (tmp_path / "store").exists()


def test_a_store_takes_the_place_of_an_old_one_only_when_it_is_whole(tmp_path):
    _store(tmp_path / "store")

    def broken():
        yield "u", chain([0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lattices(tmp_path / "store", broken(), PDFS)
    assert list(LatticeStore(tmp_path / "store")) == ["one", "two", "three"]
    assert list(store_of(tmp_path / "store", [("u", chain([0]))])) == ["u"]


def test_writing_and_opening_take_the_memory_of_a_few_lattices(tmp_path):
    """Not of all: there may be more than fit."""
    number, frames = 40, 20_000
    lattice = chain([0] * frames)
    size = sum(getattr(lattice, name).nbytes for name in DTYPES)
    tracemalloc.start()
    try:
        lattices = ((str(n), replace(lattice, pdf=lattice.pdf + n % PDFS)) for n in range(number))
        store = store_of(tmp_path / "store", lattices)
        read = sum(store[utterance].frames for utterance in store)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == number * frames
    assert peak < 12 * size
