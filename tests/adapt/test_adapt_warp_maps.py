"""Maps of warps do to the features of new recordings what the warps do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vocal_tracts import spoken

from lhuc_asr.adapt.warp_maps import warp_maps
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.vtln import warped_features

FBANK, MFCC = FeatureConfig(), FeatureConfig(kind="mfcc", bins=23, delta_order=2)


def normalised(seeds: list[int], features: FeatureConfig, warp: float) -> torch.Tensor:
    """A speaker's features at a warp, shape (T, D), float64."""
    values = [warped_features(spoken(1.1, seed).samples, features, [warp])[:, 0] for seed in seeds]
    accumulator = CmvnAccumulator(features.dimension)
    for each in values:
        accumulator.add(each)
    return torch.from_numpy(np.concatenate([accumulator.estimate().apply(each) for each in values])).double()


@pytest.mark.parametrize(("features", "unexplained"), [(FBANK, 0.1), (MFCC, 0.35)], ids=["fbank", "mfcc"])
def test_a_map_does_what_the_warp_does(features, unexplained):
    """On other recordings of the speaker, it leaves a part of the difference that the warp makes, in square."""
    (transform,) = warp_maps([[spoken(1.1, seed).samples for seed in (70, 71, 72)]], [0.9], features)
    before, wanted = (normalised([73, 74], features, warp) for warp in (1.0, 0.9))
    moved = before @ transform[:, :-1].T + transform[:, -1]
    assert (moved - wanted).square().mean() < unexplained * (before - wanted).square().mean()


def test_all_speakers_have_their_part_and_a_warp_of_one_is_the_identity():
    people = [[spoken(1.0, 80).samples], [], [spoken(0.9, 81).samples]]
    one, other = warp_maps(people, [1.0, 1.1], FBANK)
    assert torch.equal(one, torch.eye(40, 41, dtype=torch.float64))
    for few in (people[:1], people[2:]):
        assert not torch.allclose(warp_maps(few, [1.1], FBANK)[0], other, atol=1e-3)
    assert torch.equal(warp_maps([], [1.1], FBANK)[0], one)


def test_recordings_without_a_frame_are_refused():
    with pytest.raises(FeatureError, match="399 samples"):
        warp_maps([[np.zeros(399, np.float32)]], [0.9], FBANK)
