"""Perturbed recordings, batches of them, and the edits between sequences of words."""

from functools import cache

import pytest
import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc import Batch, GreedyCtc, Noise, SpecAugment
from lhuc_asr.lhuc.batch import recording_seed
from lhuc_asr.lhuc.hypotheses import edits


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("time_axis", [0, 1])
def test_masks_are_stretches_of_time_and_bands_filled_with_the_mean(randn, time_axis):
    recording = randn(30, 10)
    mask = SpecAugment(time_masks=1, longest=0.2, band_masks=1, widest=0.3, time_axis=time_axis)
    shapes = set()
    for seed in range(30):
        given = recording if time_axis == 0 else recording.T
        masked = mask(given, seeded(seed))
        masked = masked if time_axis == 0 else masked.T
        changed = masked != recording
        assert torch.equal(masked[changed], recording.mean(0).expand(30, 10)[changed])
        times, bands = changed.all(1).nonzero().flatten(), changed.all(0).nonzero().flatten()
        assert changed.sum() == 10 * len(times) + 30 * len(bands) - len(times) * len(bands)
        for axis, most in ((times, 6), (bands, 3)):
            assert len(axis) <= most
            assert not len(axis) or axis[-1] - axis[0] == len(axis) - 1
        shapes.add((len(times), len(bands)))
    assert len(shapes) > 5


def test_noise_has_its_strength(randn):
    recording = 3 * randn(20_000)
    noise = Noise(decibels=6.0)(recording, seeded(1)) - recording
    assert 20 * torch.log10(recording.std() / noise.std()) == pytest.approx(6.0, abs=0.1)


def test_a_waveform_is_not_masked_but_refused():
    with pytest.raises(ConfigError, match=r"SpecAugment masks features of shape \(T, D\), .* Noise\(\) for waveforms"):
        SpecAugment()(torch.zeros(100), seeded(0))
    with pytest.raises(ConfigError, match="shares between 0 and 1"):
        SpecAugment(longest=1.5)


def test_what_is_drawn_does_not_depend_on_the_batch(randn):
    x = randn(3, 12, 4)
    seeds = [recording_seed(0, name, 0, "copy 0") for name in ("alice", "bob", "carol")]
    assert len(set(seeds)) == 3
    ends = torch.tensor([12, 9, 12])
    together = Batch({"mask": ends, "features": x}, ["alice", "bob", "carol"], input_lengths=ends)
    perturbed = together.perturbed(Noise(), seeds).inputs["features"]
    alone = Batch(x[1:2, :9], ["bob"]).perturbed(Noise(), seeds[1:2]).recordings
    assert torch.equal(perturbed[1, :9], alone[0])
    assert torch.equal(perturbed[1, 9:], x[1, 9:])
    assert not torch.equal(perturbed[0], x[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batch(torch.zeros(2, 3, 4), "al"), "expected a speaker for each recording, found 'al'"),
        (lambda: Batch(torch.zeros(3, 2, 4), ["al"] * 2), r"shape \(3, 2, 4\), expected \(2, T, ...\) for 2 speakers"),
        (lambda: Batch(torch.zeros(2, 3, 4), ["al"] * 2, torch.tensor([3])), "1 lengths for 2 speakers"),
        (lambda: Batch(torch.zeros(2, 3).long(), ["al"] * 2), "no argument of the model is a tensor of floating-point"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_edits_are_the_fewest():
    @cache
    def fewest(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        changed = fewest(one[1:], other[1:]) + (one[0] != other[0])
        return min(changed, fewest(one[1:], other) + 1, fewest(one, other[1:]) + 1)

    generator = seeded(4)
    for _ in range(200):
        one, other = (
            "".join(
                "abc"[i]
                for i in torch.randint(3, (int(torch.randint(7, (1,), generator=generator)),), generator=generator)
            )
            for _ in range(2)
        )
        assert edits(one, other) == fewest(one, other)


def test_greedy_words_end_with_the_recording():
    scores = torch.eye(3)[torch.tensor([[1, 1, 0, 1, 2], [0, 0, 2, 2, 1]])]
    assert GreedyCtc()(scores, torch.tensor([5, 4])) == [[1, 1, 2], [2]]
    assert GreedyCtc(blank=None)(scores, torch.tensor([5, 2])) == [[1, 0, 1, 2], [0]]
