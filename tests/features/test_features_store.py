"""Feature stores: round trips, normalisation a speaker, and every way in which their files can be wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.features.store import FeatureStore, StoredUtterance, blocks_of, write_store

LENGTHS = {"bob-1": 4, "alice-1": 7, "bob-2": 5, "alice-2": 1}


def _items(seed: int = 0) -> list[tuple[str, str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [
        (name, name.split("-")[0], (3 * generator.standard_normal((frames, 2)) + 5).astype(np.float32))
        for name, frames in LENGTHS.items()
    ]


def test_what_was_written_is_read_back_bit_for_bit(tmp_path):
    items = _items()
    write_store(tmp_path / "train", iter(items), 2, normalise=False)
    store = FeatureStore(tmp_path / "train")
    assert store.frames == sum(LENGTHS.values())
    assert [u.id for u in store.utterances] == list(LENGTHS)
    for name, _, features in items:
        assert np.array_equal(store[name], features)
    assert {speaker: [u.id for u in own] for speaker, own in store.speakers.items()} == {
        "alice": ["alice-1", "alice-2"],
        "bob": ["bob-1", "bob-2"],
    }


def test_normalisation_is_a_speakers_own(tmp_path):
    items = _items()
    store = write_store(tmp_path / "train", items, 2)
    for speaker in ("alice", "bob"):
        own = np.concatenate([features for _, who, features in items if who == speaker]).astype(np.float64)
        found = np.concatenate([store[u.id] for u in store.speakers[speaker]])
        np.testing.assert_allclose(found, (own - own.mean(0)) / own.std(0), atol=1e-5)


def test_normalisation_in_each_environment_is_that_of_other_speakers(tmp_path):
    """As if a speaker were another one in each environment."""
    items = _items()
    places = {name: "rain" if name.endswith("2") else "clean" for name in LENGTHS}
    apart = write_store(tmp_path / "apart", items, 2, environments=places)
    renamed = [(name, f"{who}.{places[name]}", features) for name, who, features in items]
    assert np.array_equal(apart.array, write_store(tmp_path / "renamed", renamed, 2).array)
    assert {utterance.speaker for utterance in apart.utterances} == {"alice", "bob"}
    together = write_store(tmp_path / "together", items, 2, environments=dict.fromkeys(LENGTHS, "clean"))
    assert np.array_equal(together.array, write_store(tmp_path / "plain", items, 2).array)


def test_one_speakers_features_do_not_depend_on_the_others(tmp_path):
    items = _items()
    together = write_store(tmp_path / "both", items, 2)
    alone = write_store(tmp_path / "alice", [item for item in items if item[1] == "alice"], 2)
    assert np.array_equal(together["alice-1"], alone["alice-1"])


def test_the_array_cannot_be_written_to(tmp_path):
    store = write_store(tmp_path / "train", _items(), 2)
    with pytest.raises(ValueError, match="read-only"):
        store.array[0, 0] = 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path, bad):
    items = _items()
    items[2][2][3, 1] = bad
    with pytest.raises(FeatureError, match="bob-2: features are not finite"):
        write_store(tmp_path / "train", items, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(4, 3), (4,), (0, 2), (2, 2, 1)])
def test_another_shape_is_refused(tmp_path, shape):
    with pytest.raises(FeatureError, match=r"carol-1: features of shape .*, expected \(T, 2\)"):
        write_store(tmp_path / "train", [*_items(), ("carol-1", "carol", np.zeros(shape, np.float32))], 2)


def test_an_utterance_given_twice_is_refused(tmp_path):
    """Looked up by its id, only the second would ever be found."""
    with pytest.raises(FeatureError, match="alice-1: two utterances have this id"):
        write_store(tmp_path / "train", [*_items(), _items()[1]], 2)


def test_nothing_to_store_is_refused(tmp_path):
    with pytest.raises(FeatureError, match="no utterances to store"):
        write_store(tmp_path / "train", [], 2)


def test_a_failed_write_leaves_the_older_store(tmp_path):
    write_store(tmp_path / "train", _items(), 2, normalise=False)
    broken = _items(seed=1)
    broken[3][2][:] = np.nan
    with pytest.raises(FeatureError):
        write_store(tmp_path / "train", broken, 2)
    assert np.array_equal(FeatureStore(tmp_path / "train")["bob-1"], _items()[0][2])


@pytest.mark.parametrize("change", [-8, -1, 1, 8])
def test_a_file_of_another_size_is_refused(tmp_path, change):
    write_store(tmp_path / "train", _items(), 2)
    path = tmp_path / "train" / "features.bin"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(FeatureError, match=rf"features.bin: {len(data) + change} bytes, expected 17 frames x 2 x 4"):
        FeatureStore(tmp_path / "train")


@pytest.mark.parametrize("missing", ["features.bin", "index.jsonl", "store.json"])
def test_a_missing_file_is_told(tmp_path, missing):
    write_store(tmp_path / "train", _items(), 2)
    (tmp_path / "train" / missing).unlink()
    with pytest.raises(FeatureError, match=r"no such file; delete the folder|not a feature store .*No such file"):
        FeatureStore(tmp_path / "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("store.json", "{}"),
        ("store.json", "[2]"),
        ("store.json", '{"dimension": "wide"}'),
        ("store.json", '{"dimension": -2}'),
        ("store.json", '{"dimension": 1e999}'),
        ("store.json", '{"dimension": 2, "dimension": 3}'),
        ("index.jsonl", '{"id": "a"}\n'),
        ("index.jsonl", '{"id": "a", "speaker": "s", "first": 0, "frames": -17}\n'),
        ("index.jsonl", '{"id": "a", "speaker": "s", "first": 0, "frames": "17"}\n'),
    ],
)
def test_damaged_descriptions_are_told(tmp_path, name, content):
    write_store(tmp_path / "train", _items(), 2)
    (tmp_path / "train" / name).write_text(content)
    with pytest.raises(FeatureError, match="not a feature store"):
        FeatureStore(tmp_path / "train")


@given(lengths=st.lists(st.integers(1, 50), max_size=12), frames=st.integers(1, 80))
def test_blocks_hold_every_utterance_once_in_order_and_are_no_larger_than_needed(lengths, frames):
    utterances = [StoredUtterance(str(n), "s", 0, length) for n, length in enumerate(lengths)]
    blocks = list(blocks_of(utterances, frames))
    assert [u for block in blocks for u in block] == utterances
    for block in blocks[:-1]:
        assert sum(u.frames for u in block) >= frames
    assert all(sum(u.frames for u in block[:-1]) < frames for block in blocks)


@pytest.mark.parametrize("first", [1, 16, 2**31 - 1])
def test_utterances_that_do_not_follow_each_other_are_told(tmp_path, first):
    """Their rows would be another's, or nobody's."""
    write_store(tmp_path / "train", _items(), 2)
    path = tmp_path / "train" / "index.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0].replace('"first": 0', f'"first": {first}'), *rows[1:]]) + "\n")
    with pytest.raises(FeatureError, match=rf"index\.jsonl: .* begins at row {first}, expected 0; delete the folder"):
        FeatureStore(tmp_path / "train")
