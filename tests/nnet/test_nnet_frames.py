"""Mini-batches: every frame with a target once, with its own context and target; priors by counting."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet import frames as frames_module
from lhuc_asr.nnet.frames import FrameSource, priors

# Frames after each in its window; as many before it as a test says.
AFTER = 1


def _source(lengths: list[int], context: int, seed: int = 0) -> FrameSource:
    """Rows name themselves: row n is (n, -n); its target is n modulo 7, or none."""
    count = sum(lengths)
    features = np.stack([np.arange(count), -np.arange(count)], axis=1).astype(np.float32)
    targets = (np.arange(count) % 7).astype(np.int32)
    targets[np.random.default_rng(seed).random(count) < 0.2] = -1
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    utterances = [
        StoredUtterance(str(n), "s", first, length)
        for n, (first, length) in enumerate(zip(firsts, lengths, strict=True))
    ]
    return FrameSource(features, targets, utterances, Context(context, AFTER))


def _expected(source: FrameSource) -> dict[int, tuple[list[float], int]]:
    """Each row with a target: its spliced features, each utterance spliced by itself, and its target."""
    rows = {}
    for utterance in source.utterances:
        spliced = source.splicing.utterance(torch.from_numpy(source.features[utterance.rows]))
        for offset, row in enumerate(range(utterance.first, utterance.first + utterance.frames)):
            if source.targets[row] >= 0:
                rows[row] = (spliced[offset].tolist(), int(source.targets[row]))
    return rows


def _shuffled(source: FrameSource, batch_size: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    return (batch.of() for batch in source.shuffled(batch_size, torch.Generator().manual_seed(seed)))


def _centres(batches, context: int) -> list[tuple[int, tuple[list[float], int]]]:
    frames = []
    for features, targets, *rows in batches:
        assert features.dtype == torch.float32
        assert targets.dtype == torch.int64
        # Features name their own row, so the rows that shuffled frames come with can be held against them.
        assert all(frames.tolist() == features[:, 2 * context].tolist() for frames in rows)
        for vector, target in zip(features.tolist(), targets.tolist(), strict=True):
            frames.append((int(vector[2 * context]), (vector, target)))
    return frames


@pytest.mark.parametrize("block_frames", [1, 20, 1000])
@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    context=st.integers(0, 3),
    batch=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_every_frame_with_a_target_comes_once(block_frames, lengths, context, batch, seed):
    source, expected = _source(lengths, context, seed), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_module, "BLOCK_FRAMES", block_frames)
        expected = _expected(source)
        in_order = _centres(source.in_order(batch), context)
        shuffled = _centres(_shuffled(source, batch, seed), context)
    assert [row for row, _ in in_order] == sorted(expected)
    assert dict(in_order) == expected
    assert len(shuffled) == len(expected)
    assert dict(shuffled) == expected


def test_batches_are_full_but_the_last():
    source = _source([50, 50], 1)
    sizes = [len(batch) for batch in source.shuffled(16, torch.Generator().manual_seed(0))]
    assert all(size == 16 for size in sizes[:-1])
    assert 1 <= sizes[-1] <= 16


def test_the_order_is_the_generators():
    source = _source([40, 30, 20], 1)
    orders = [[row for row, _ in _centres(_shuffled(source, 8, seed), 1)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_only_the_chosen_utterances_are_read():
    source = _source([10, 10, 10], 0)
    middle = FrameSource(source.features, source.targets, source.utterances[1:2], Context(2, AFTER))
    rows = {row for row, _ in _centres(middle.in_order(4), 2)}
    assert rows
    assert rows <= set(range(10, 20))
    first_vector = next(middle.in_order(1))[0]
    assert first_vector.min() >= -19
    assert not (first_vector == 9).any()


def test_priors_are_relative_frequencies():
    targets = np.array([0, 0, 0, 2, -1, -1], np.int32)
    fractions = priors(targets, 4, 1.0).exp().tolist()
    assert fractions == pytest.approx([4 / 8, 1 / 8, 2 / 8, 1 / 8])
    assert math.fsum(fractions) == pytest.approx(1.0)


def test_parts_of_a_mini_batch_are_its_frames():
    source = _source([30, 25], 2)
    for batch in source.shuffled(16, torch.Generator().manual_seed(3)):
        whole = batch.of()
        for number in range(3):
            for part, all_of_it in zip(batch.of(batch.frames[number::3]), whole, strict=True):
                torch.testing.assert_close(part, all_of_it[number::3], rtol=0.0, atol=0.0)


def test_each_of_several_evaluates_batches_of_its_own():
    source = _source([30, 25, 7], 1)
    everything = [targets for _, targets in source.in_order(4)]
    own = [[targets for _, targets in source.in_order(4, (number, 3))] for number in range(3)]
    for number in range(3):
        assert [t.tolist() for t in own[number]] == [t.tolist() for t in everything[number::3]]
