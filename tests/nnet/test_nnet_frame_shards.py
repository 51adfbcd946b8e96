"""Frames in shards: each once and as they were, the same after a kill, and shards that were changed are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from corner_frames import PDFS

from lhuc_asr.base.atomic import sha256_of
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.object_store import StoreError, open_store
from lhuc_asr.base.shar import ShardWriter, array_bytes
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.frame_shards import FEATURES, FrameShard, ShardedFrames
from lhuc_asr.nnet.frame_shards import PDFS as PDFS_FIELD
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

CPU = torch.device("cpu")
LENGTHS = [40, 70, 30, 90, 60, 50, 80, 20]
TOGETHER = [[3, 0], [5], [1, 6, 2], [7, 4]]


@pytest.fixture
def source() -> FrameSource:
    """Eight utterances of frames that name their row; some have no target."""
    total, generator = sum(LENGTHS), np.random.default_rng(0)
    firsts = np.cumsum([0, *LENGTHS[:-1]]).tolist()
    utterances = [
        StoredUtterance(f"u/{n}.x", f"s{n % 3}", first, length)
        for n, (first, length) in enumerate(zip(firsts, LENGTHS, strict=True))
    ]
    features = np.stack([np.arange(total), generator.standard_normal(total)], axis=1).astype(np.float32)
    targets = np.where(generator.random(total) < 0.1, -1, np.arange(total) % PDFS).astype(np.int32)
    return FrameSource(features, targets, utterances, Context.both(1))


@pytest.fixture
def sharded(source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardedFrames:
    """The same in four shards, two or so to a block."""
    monkeypatch.setattr("lhuc_asr.nnet.frame_shards.BLOCK_FRAMES", 120)
    (tmp_path / "store").mkdir()
    shards = []
    for number, members in enumerate(TOGETHER):
        theirs = [source.utterances[member] for member in members]
        with ShardWriter(tmp_path / "store", number, (FEATURES, PDFS_FIELD)) as shard:
            for each in theirs:
                arrays = {FEATURES: source.features[each.rows], PDFS_FIELD: source.targets[each.rows]}
                shard.write({"id": each.id}, {name: (".npy", array_bytes(a), {}) for name, a in arrays.items()})
        files = {field: shard.files[field] for field in (FEATURES, PDFS_FIELD)}
        hashes = {field: sha256_of(path) for field, path in files.items()}
        shards.append(FrameShard(tuple(u.id for u in theirs), {f: p.name for f, p in files.items()}, hashes))
    # What is not in the shards must not be read from the memory map in an epoch.
    features, targets = np.full_like(source.features, np.nan), np.full_like(source.targets, PDFS)
    return ShardedFrames(
        features,
        targets,
        source.utterances,
        source.context,
        store=open_store(str(tmp_path / "store")),
        index=tmp_path / "index.jsonl",
        shards=shards,
    )


def test_an_epoch_has_every_frame_once_with_its_neighbours_and_target(source, sharded):
    rows = []
    for batch in sharded.shuffled(16, torch.Generator().manual_seed(2)):
        spliced, targets, numbers = batch.of()
        assert torch.equal(spliced[:, 2], numbers.float()), "the middle frame names its row"
        assert targets.tolist() == source.targets[numbers.numpy()].tolist()
        rows += numbers.tolist()
    assert sorted(rows) == np.flatnonzero(source.targets >= 0).tolist()
    expected = {row: vector for vector, row in _spliced(source)}
    for batch in sharded.shuffled(16, torch.Generator().manual_seed(3)):
        for vector, row in zip(batch.of()[0], batch.of()[2].tolist(), strict=True):
            assert torch.equal(vector, expected[row])


def _spliced(source: FrameSource) -> list[tuple[torch.Tensor, int]]:
    batches = [batch.of() for batch in source.shuffled(16, torch.Generator().manual_seed(0))]
    return [(vector, row) for spliced, _, rows in batches for vector, row in zip(spliced, rows.tolist(), strict=True)]


def test_shards_come_in_an_order_of_the_seed_some_to_a_block(sharded):
    orders = [sharded.blocks(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders}) == 3
    for blocks in orders:
        assert 2 <= len(blocks) < 4
        assert all(sum(u.frames for u in block) >= 120 for block in blocks[:-1])
        assert sorted(u.id for block in blocks for u in block) == sorted(u.id for u in sharded.utterances)


def test_from_every_place_the_rest_of_the_epoch_is_the_same(sharded):
    def rows(batches):
        return [batch.of()[2].tolist() for batch in batches]

    expected = rows(sharded.shuffled(32, torch.Generator().manual_seed(5)))
    batches = sharded.shuffled(32, torch.Generator().manual_seed(5))
    for place in range(len(expected)):
        again = sharded.shuffled(32, torch.Generator().manual_seed(5))
        again.restore(batches.state())
        assert rows(again) == expected[place:]
        next(batches)


def test_a_network_is_trained_from_shards_and_not_from_the_memory_map(source, sharded, tmp_path):
    """The frames of the memory map are not numbers, and neither would be the loss."""
    model = Dnn(DnnConfig(hidden_layers=1, hidden_units=8, context=1), 2, PDFS)
    model.initialise(torch.Generator().manual_seed(1))
    config = TrainerConfig(batch_size=32, schedule=NewbobConfig(learning_rate=1e-6, max_epochs=2))
    losses: list[dict] = []
    train(model, sharded, source, config, tmp_path / "state", 3, CPU, losses.append)
    assert all(np.isfinite(figures["train_loss"]) for figures in losses)


def _rewritten(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Replace a field's file by one of other arrays."""
    with ShardWriter(path.parent, 9, ("other",)) as shard:
        for name, array in fields.items():
            shard.write({"id": name}, {"other": (".npy", array_bytes(array), {})})
    shard.files["other"].replace(path)


def _of_another_kind(frames: ShardedFrames, path: Path) -> None:
    _rewritten(path, {"u/3.x": np.zeros((90, 2)), "u/0.x": np.zeros((40, 2))})


def _shorter(frames: ShardedFrames, path: Path) -> None:
    _rewritten(path, {"u/3.x": np.zeros((89, 2), np.float32), "u/0.x": np.zeros((40, 2), np.float32)})


def _fewer(frames: ShardedFrames, path: Path) -> None:
    _rewritten(path, {"u/3.x": np.zeros((90, 2), np.float32)})


@pytest.mark.parametrize(
    ("change", "hashed", "message"),
    [
        (lambda frames, path: path.write_bytes(path.read_bytes()[:-600]), False, "is not what was written"),
        (_shorter, False, "is not what was written"),
        (_of_another_kind, True, r"features\.000000\.tar: u/3\.x: not an array of float32"),
        (_shorter, True, r"u/3\.x: features and pdfs are not of 90 frames"),
        (_fewer, True, "has other utterances than it was written with"),
    ],
)
def test_a_shard_that_was_changed_is_refused(sharded, change: Callable[..., object], hashed, message):
    """``hashed``: whoever changed it changed the index too."""
    shard, path = sharded.shards[0], Path(sharded.store.url) / "features.000000.tar"
    change(sharded, path)
    if hashed:
        shard.sha256[FEATURES] = sha256_of(path)
    with pytest.raises(
        FeatureError, match=rf"{message}.*; delete this file and run again, which writes the shards anew"
    ):
        list(sharded.shuffled(16, torch.Generator().manual_seed(2)))


def test_a_shard_that_is_gone_is_named(sharded):
    (Path(sharded.store.url) / "pdfs.000002.tar").unlink()
    with pytest.raises(StoreError, match=r"pdfs\.000002\.tar cannot be read .*; .*if the shards are gone, delete"):
        list(sharded.shuffled(16, torch.Generator().manual_seed(2)))


def test_shards_of_other_utterances_are_refused(sharded):
    sharded.shards.pop()
    with pytest.raises(FeatureError, match="6 utterances are not the 8 that are trained on; delete this file"):
        sharded.shuffled(16, torch.Generator().manual_seed(2))
