"""The stateful loader: an epoch that goes on from any place has the same mini-batches."""

import pytest
import torch
from corner_frames import corner_frames

from lhuc_asr.nnet import frames
from lhuc_asr.nnet.loader import ShuffledFrames


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(frames, "BLOCK_FRAMES", 100)


def _epoch(seed: int, batch_size: int = 32) -> ShuffledFrames:
    source = corner_frames(0)
    source.targets[:40] = -1
    return source.shuffled(batch_size, torch.Generator().manual_seed(seed))


def _rows(batches: ShuffledFrames) -> list[list[int]]:
    return [batch.of()[2].tolist() for batch in batches]


def test_from_every_place_the_rest_of_the_epoch_is_the_same():
    expected = _rows(_epoch(5))
    assert sorted(row for batch in expected for row in batch) == list(range(40, 600))
    first = _epoch(5)
    for place in range(len(expected) + 1):
        state = first.state()
        # Only the seed of the order of blocks is known to the new one; its generator has moved on since.
        other = _epoch(5)
        for _ in range(place % 3):
            next(other)
        other.restore(state)
        assert _rows(other) == expected[place:], place
        again = _epoch(5)
        again.restore(state)
        assert all(torch.equal(state[name], again.state()[name]) for name in state)
        if place < len(expected):
            next(first)


def test_a_place_of_other_mini_batches_is_refused():
    state = _epoch(5).state()
    with pytest.raises(RuntimeError, match=r"of \[3, 32\] blocks and frames in a mini-batch, expected \[3, 16\]"):
        _epoch(5, batch_size=16).restore(state)
    with pytest.raises(RuntimeError, match="mini-batch 99 of"):
        _epoch(5).restore({**state, "place": torch.tensor([1, 99, 3, 32])})
    with pytest.raises(RuntimeError, match="block 4 of"):
        _epoch(5).restore({**state, "place": torch.tensor([4, 0, 3, 32])})


def test_a_block_without_a_target_has_no_mini_batch():
    source = corner_frames(0)
    source.targets[:200] = -1
    assert sum(len(batch) for batch in source.shuffled(32, torch.Generator().manual_seed(1))) == 400
