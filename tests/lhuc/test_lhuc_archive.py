"""Archives: many speakers that stay on disk, with the same bits as in files of their own; damage is refused."""

import gc
import json
import os
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_format
from lhuc_asr.lhuc import Site, SpeakerArchive, SpeakerBank, SpeakerState, attach, write_archive

SITES = "hidden.*.activation"


@pytest.fixture
def bank(mlp, scatter):
    bank = attach(mlp, SITES, ["bob", "alice", "Zoë"])
    scatter(bank)
    return bank


@pytest.fixture
def path(bank, tmp_path):
    path = tmp_path / "speakers.archive"
    assert write_archive(path, bank.states()) == 4
    return path


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_hundred_thousand_speakers_open_in_milliseconds_and_stay_on_disk(tmp_path):
    """Compared with reading the same file as a whole, in time and in memory."""
    path, count, width = tmp_path / "many", 100_000, 256
    row = torch.arange(width, dtype=torch.float32)
    write_archive(
        path, (SpeakerState(f"s{n:06d}", "exp", "m", (Site("x", width),), {"x": row + n}) for n in range(count))
    )
    assert path.stat().st_size > 100e6
    SpeakerArchive(path).state("s000001")  # what is loaded once in a process does not count

    gc.collect()  # what earlier tests left behind is not freed while this one measures
    before, opened = resident_bytes(), []
    for _ in range(5):  # the best of five: the machine may be busy
        started = time.perf_counter()
        archive = SpeakerArchive(path)
        r = archive.state("s077777").r["x"]
        opened.append(time.perf_counter() - started)
    held = resident_bytes() - before
    assert len(archive) == count
    assert torch.equal(r, row + 77_777)

    started = time.perf_counter()
    whole = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    reading, all_of_it = time.perf_counter() - started, resident_bytes() - before
    assert all_of_it > path.stat().st_size / 2  # resident_bytes measures something
    assert held < all_of_it / 10
    assert min(opened) < 0.05
    assert min(opened) < reading / 5
    assert len(whole) == path.stat().st_size


def test_speakers_come_back_bit_for_bit(bank, path):
    archive = SpeakerArchive(path)
    assert list(archive) == ["", "Zoë", "alice", "bob"]
    assert "alice" in archive
    assert "al" not in archive
    assert None not in archive
    for state in bank.states():
        read = archive.state(state.speaker)
        assert (read.model, read.amplitude, read.sites) == (state.model, state.amplitude, state.sites)
        for site, r in state.r.items():
            assert torch.equal(read.r[site], r)
    assert [state.speaker for state in archive.states(["bob", "alice"])] == ["bob", "alice"]
    archive.state("bob").r["hidden.0.activation"].fill_(7.0)  # a copy: the file and the next reader are safe
    assert not (archive.state("bob").r["hidden.0.activation"] == 7.0).any()


@given(
    names=st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=5), unique=True)
)
def test_any_names_are_found_and_no_others(names, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "names"
    states = [
        SpeakerState(n, "exp", "m", (Site("x", 1),), {"x": torch.tensor([float(i)])}) for i, n in enumerate(names)
    ]
    if not names:
        with pytest.raises(SpeakerError, match="no speaker to write"):
            write_archive(path, states)
        return
    write_archive(path, states)
    archive = SpeakerArchive(path)
    assert sorted(archive) == sorted(names)
    for number, name in enumerate(names):
        assert archive.state(name).r["x"].item() == number
        assert (name + "a" in archive) == (name + "a" in names)


def test_a_bank_fetches_the_speakers_that_it_needs(bank, path, mlp, randn):
    x = randn(2, 5)
    with bank.rows(["bob", ""]):
        expected = mlp(x)
    bank.detach()
    small = attach(mlp, SITES)
    with pytest.raises(SpeakerError, match="no archive is open"):
        small.fetch(["bob"])
    small.open_archive(path)
    assert small.speakers == ()
    with pytest.raises(SpeakerError, match=r"speakers.archive: speaker 'bo' is not among its 4"):
        small.fetch(["bob", "bo"])
    assert small.speakers == ()
    small.fetch(["bob", "bob"])
    with small.rows(["bob", ""]):
        assert torch.equal(mlp(x), expected)
    with torch.no_grad():
        small.tables[0][1] += 1.0
    learned = small.tables[0][1].clone()
    small.fetch(["bob", "alice"])
    assert small.speakers == ("bob", "alice")
    assert torch.equal(small.tables[0][1], learned)


def test_two_archives_and_a_bank_make_one(bank, path, mlp, tmp_path, scatter):
    other = SpeakerBank(mlp, bank.sites, ["fay"])
    scatter(other)
    archive = SpeakerArchive(path)
    write_archive(path, [*archive.states(), *other.states(["fay"])])  # in the place of the first
    merged = SpeakerArchive(path)
    assert list(merged) == ["", "Zoë", "alice", "bob", "fay"]
    assert torch.equal(merged.state("fay").r["hidden.1.activation"], other.tables[1][1].detach())
    with pytest.raises(SpeakerError, match="speaker 'bob' occurs twice"):
        write_archive(path, [*archive.states(), *archive.states(["bob"])])
    assert list(SpeakerArchive(path)) == list(merged)


def test_what_does_not_belong_together_is_refused(bank, path, mlp, tmp_path):
    with torch.no_grad():
        mlp.output.bias[0] += 1
    with pytest.raises(
        ModelMismatchError, match=r"speakers.archive: each speaker was adapted on the model [0-9a-f]{12}, this"
    ):
        bank.open_archive(path)
    with pytest.raises(ModelMismatchError, match="was adapted on the model"):
        write_archive(tmp_path / "mixed", [*SpeakerArchive(path).states(), *bank.states(["bob"])])
    assert not (tmp_path / "mixed").exists()
    state = bank.state("bob")
    single = SpeakerState("x", "exp", state.model, state.sites, {name: r.float() for name, r in state.r.items()})
    with pytest.raises(SpeakerError, match=r"speaker 'x': r is torch.float32, the archive's first torch.float64"):
        write_archive(tmp_path / "mixed", [state, single])


def test_damage_is_refused(path, tmp_path, bank):
    content = path.read_bytes()
    copy = tmp_path / "copy"
    for damaged in (content[:-1], content[:100], b"", b"hello", content + b"x"):
        copy.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"copy: not a safetensors file, or damaged .* copy it again"):
            SpeakerArchive(copy)
    with pytest.raises(CheckpointError, match="no such archive"):
        SpeakerArchive(tmp_path / "none")
    bank.state("bob").save(copy)
    with pytest.raises(CheckpointError, match="expected an archive of format 'lhuc-archive-1', found 'lhuc-speaker-1'"):
        SpeakerArchive(copy)


def test_damaged_tables_are_refused(tmp_path):
    path = tmp_path / "x"
    good = {
        "r": torch.tensor([[1.0, 2.0], [3.0, float("nan")]]),
        "name_ends": torch.tensor([1, 2], dtype=torch.int32),
        "rows": torch.tensor([0, 1], dtype=torch.int32),
        "names": torch.tensor(list(b"ab"), dtype=torch.uint8),
    }
    description = {"format": "lhuc-archive-1", "amplitude": "exp", "model": "m", "sites": [["s", 2, -1, 0]]}

    def opened(description=description, **tensors):
        save_file({**good, **tensors}, path, {"description": json.dumps(description)})
        return SpeakerArchive(path)

    assert opened().state("a").r["s"].tolist() == [1.0, 2.0]
    with pytest.raises(CheckpointError, match=r"x: speaker 'b': r is not finite.* copy it again, or adapt"):
        opened().state("b")
    with pytest.raises(CheckpointError, match="damaged at speaker 'a'"):
        opened(rows=torch.tensor([2, 0], dtype=torch.int32)).state("a")
    for tensors in (
        {"r": torch.ones(2, 3)},
        {"r": torch.ones(2, 2, dtype=torch.int64)},
        {"rows": torch.ones(3, dtype=torch.int32)},
        {"name_ends": torch.tensor([1, 3], dtype=torch.int32)},
        {"name_ends": torch.tensor([1.0, 2.0])},
        {"name_ends": torch.zeros(0, dtype=torch.int32)},
        {"name_ends": torch.tensor(2, dtype=torch.int32)},
        {"names": torch.tensor([97, 300], dtype=torch.int32)},
    ):
        with pytest.raises(CheckpointError, match="its tables do not fit each other"):
            opened(**tensors)
    with pytest.raises(CheckpointError, match="damaged, name 0 is not among the names"):
        list(opened(name_ends=torch.tensor([7, 2], dtype=torch.int32)))
    with pytest.raises(CheckpointError, match=r"damaged, a speaker is called b'\\xff'"):
        list(opened(names=torch.tensor([97, 255], dtype=torch.uint8)))
    for sites in (3, [], [["s", "w", 1, 0]], [["s", -2, 1, 0]], [["s", 10**30, 1, 0]], [["s", float("nan"), 1, 0]]):
        with pytest.raises(CheckpointError, match="damaged"):
            opened(description={**description, "sites": sites})


def test_speakers_without_sites_are_not_archived(tmp_path):
    with pytest.raises(SpeakerError, match="speaker 'dave' has amplitudes at no site"):
        write_archive(tmp_path / "many", [SpeakerState("dave", "exp", "m", (), {})])
    assert os.listdir(tmp_path) == []


def with_extras(state: SpeakerState, number: float) -> SpeakerState:
    extras = {"mean": torch.tensor([number, -0.1], dtype=torch.float64), "turn": torch.full((2, 3), number)}
    return state if not state.speaker else replace(state, extras=extras)


@pytest.mark.parametrize("order", [["", "bob", "alice"], ["bob", "", "alice"], ["bob", "alice", ""], ["alice", "bob"]])
def test_extras_travel_with_their_speakers(bank, tmp_path, order):
    states = [with_extras(bank.state(name), number + 0.1) for number, name in enumerate(order)]
    write_archive(tmp_path / "archive", states)
    archive = SpeakerArchive(tmp_path / "archive")
    assert archive.extras == ("mean", "turn")
    for state in states:
        read = archive.state(state.speaker)
        assert read.extras.keys() == state.extras.keys()
        assert all(torch.equal(read.extras[name], value) for name, value in state.extras.items())
        assert all(torch.equal(read.r[site], r) for site, r in state.r.items())
    again = tmp_path / "again"
    write_archive(again, archive.states())
    assert SpeakerArchive(again).state("alice").extras.keys() == {"mean", "turn"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "archive"]


def test_extras_that_differ_are_refused(bank, tmp_path):
    bob, alice = (with_extras(bank.state(name), 1.0) for name in ("bob", "alice"))
    for other, found in (
        (replace(alice, extras={}), r"'alice' has the extras none, 'bob' mean \[2\] torch.float64, turn \[2, 3\]"),
        (replace(alice, extras=alice.extras | {"turn": torch.zeros(3)}), r"turn \[3\] torch.float32"),
        (replace(alice, extras=alice.extras | {"mean": torch.zeros(2)}), r"mean \[2\] torch.float32, turn"),
    ):
        with pytest.raises(SpeakerError, match=found):
            write_archive(tmp_path / "archive", [bob, other])
    halves = [replace(each, extras={"turn": torch.zeros(3).half()}) for each in (bob, alice)]
    with pytest.raises(SpeakerError, match="in float32 or float64"):
        write_archive(tmp_path / "archive", halves)
    assert not list(tmp_path.iterdir())


def test_extras_of_fewer_speakers_are_damage(bank, tmp_path):
    path = tmp_path / "archive"
    write_archive(path, [with_extras(bank.state(name), 1.0) for name in ("bob", "alice")])
    tensors, description = load_format(path, "an archive", "lhuc-archive-1")
    tensors = {name: each.clone() for name, each in tensors.items()} | {"extra.turn": torch.zeros(1, 2, 3)}
    save_file(tensors, path, {"description": json.dumps(description)})
    with pytest.raises(CheckpointError, match="its tables do not fit each other"):
        SpeakerArchive(path)
