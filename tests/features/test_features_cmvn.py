"""Mean and variance normalisation, and splicing, against direct computation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.context import Context, Splicing, splice, splice_index


@given(seed=st.integers(0, 10_000), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_a_speakers_utterances_together_get_mean_zero_and_variance_one(seed, lengths):
    generator = np.random.default_rng(seed)
    offset, scale = generator.uniform(-20, 20, 3), generator.uniform(0.5, 10, 3)
    utterances = [(offset + scale * generator.standard_normal((n, 3))).astype(np.float32) for n in lengths]
    accumulator = CmvnAccumulator(3)
    for utterance in utterances:
        accumulator.add(utterance)
    cmvn, together = accumulator.estimate(), np.concatenate(utterances).astype(np.float64)
    np.testing.assert_allclose(cmvn.mean, together.mean(0), rtol=1e-9, atol=1e-9)
    if len(together) == 1:
        return  # its variance is the floor
    np.testing.assert_allclose(cmvn.deviation, together.std(0), rtol=1e-4, atol=1e-4)
    normalised = np.concatenate([cmvn.apply(utterance) for utterance in utterances])
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(0), 0.0, atol=1e-4)


def test_the_variance_of_a_long_recording_keeps_its_digits():
    """A large mean, a small deviation, many frames: sums in float32 would lose the variance altogether."""
    generator = np.random.default_rng(1)
    accumulator, blocks = CmvnAccumulator(1), []
    for _ in range(100):
        blocks.append((1000 + 0.1 * generator.standard_normal((5000, 1))).astype(np.float32))
        accumulator.add(blocks[-1])
    expected = np.concatenate(blocks).astype(np.float64).std()
    assert accumulator.estimate().deviation[0] == pytest.approx(expected, rel=1e-4)


def test_a_dead_dimension_stays_finite_and_zero():
    accumulator, features = CmvnAccumulator(2), np.full((50, 2), -15.942385, np.float32)
    features[:, 1] = np.arange(50)
    accumulator.add(features)
    normalised = accumulator.estimate().apply(features)
    assert np.abs(normalised[:, 0]).max() < 0.05
    assert normalised[:, 1].std() == pytest.approx(1.0, rel=1e-5)


def test_no_frames_are_an_error():
    with pytest.raises(FeatureError, match="no frames"):
        CmvnAccumulator(3).estimate()


@given(frames=st.integers(1, 12), context=st.integers(0, 6), width=st.integers(1, 3))
def test_splicing_is_a_window_over_repeated_edges(frames, context, width):
    features = torch.arange(frames * width, dtype=torch.float32).reshape(frames, width)
    padded = torch.cat([features[:1].expand(context, -1), features, features[-1:].expand(context, -1)])
    expected = torch.stack([padded[t : t + 2 * context + 1].flatten() for t in range(frames)])
    assert torch.equal(splice(features, context), expected)


@given(frames=st.integers(1, 12), left=st.integers(0, 6), right=st.integers(0, 6), vector=st.integers(0, 2))
def test_a_window_may_have_more_frames_on_one_side(frames, left, right, vector):
    """Each row is x_{t-left}, ..., x_{t+right}, and the vector once; columns name their frame."""
    columns = torch.arange(frames, dtype=torch.float32).unsqueeze(1).expand(-1, 2)
    splicing = Splicing(Context(left, right), 2, vector)
    rows = splicing.utterance(torch.cat([columns, torch.full((frames, vector), -1.0)], dim=1))
    for t in range(frames):
        window = [min(max(s, 0), frames - 1) for s in range(t - left, t + right + 1)]
        assert rows[t].tolist() == [frame for frame in window for _ in range(2)] + [-1.0] * vector
    assert rows.shape[1] == splicing.width == 2 * (left + 1 + right) + vector


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), context=st.integers(0, 8))
def test_context_never_crosses_an_utterances_border(lengths, context):
    """Splicing rows of many utterances, in any order, gives what splicing each by itself gives."""
    features = torch.arange(sum(lengths), dtype=torch.float32).unsqueeze(1)
    ends = torch.tensor(lengths).cumsum(0)
    last = torch.repeat_interleave(ends - 1, torch.tensor(lengths))
    first = torch.repeat_interleave(ends - torch.tensor(lengths), torch.tensor(lengths))
    frames = torch.arange(sum(lengths)).flip(0)
    rows = splice_index(frames, first[frames], last[frames], Context.both(context))
    alone = torch.cat([splice(utterance, context) for utterance in features.split(lengths)])
    assert torch.equal(features[rows].flatten(1), alone.flip(0))
