"""A world of phones whose sound depends on classes of their neighbours, and the statistics of its speech."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.states import state_count
from lhuc_asr.hmm.tree_statistics import TreeStatistics
from lhuc_asr.lang.phones import SILENCE, PhoneSet

PHONES = PhoneSet.of(["A", "E", "M", "N", "P", "T"])
VOWELS, NASALS, STOPS = frozenset("AE"), frozenset("MN"), frozenset("PT")
CLASSES = {phone: number for number, names in enumerate((VOWELS, NASALS, STOPS)) for phone in names}
CLASSES[SILENCE] = 3
DIMENSION = 6


def speech(
    generator: np.random.Generator, phones: PhoneSet = PHONES, length: int = 3000, classes: Mapping[str, int] = CLASSES
) -> tuple[torch.Tensor, AlignedPhones]:
    """Features (T, D) and phones of one long utterance, two to five frames a state.

    The mean of a state is that of its phone, which is near those of its class, moved by the class of the left phone in
    the first state, and by that of the right phone in the last one.
    """
    names = ("", *phones.names)
    ids = np.concatenate([[0], generator.integers(1, len(names), length), [0]]).astype(np.int32)
    fixed = np.random.default_rng(0)
    of_class, moved = 6 * fixed.normal(size=(4, DIMENSION)), 3 * fixed.normal(size=(2, 4, DIMENSION))
    of_phone = {name: of_class[classes[name]] + 0.5 * fixed.normal(size=DIMENSION) for name in phones.names}
    rows, means = [], []
    for left, phone, right in zip(ids, ids[1:], ids[2:], strict=False):
        count = state_count(names[phone], phones)
        for position in range(count):
            mean = of_phone[names[phone]] + 2.0 * position
            if position == 0:
                mean = mean + moved[0, classes[names[left] or SILENCE]]
            if position == count - 1:
                mean = mean + moved[1, classes[names[right] or SILENCE]]
            frames = int(generator.integers(2, 6))
            rows += [(left, phone, right, position)] * frames
            means += [mean] * frames
    features = np.array(means) + generator.normal(size=(len(means), DIMENSION))
    return torch.from_numpy(features.astype(np.float32)), AlignedPhones(*np.array(rows, np.int32).T)


def statistics(seed: int, phones: PhoneSet = PHONES, length: int = 3000) -> TreeStatistics:
    """Statistics of some speech."""
    features, aligned = speech(np.random.default_rng(seed), phones, length)
    return TreeStatistics.of(features, [aligned])


def largest_likelihood(frames: np.ndarray) -> float:
    """Log-likelihood of frames (T, D) under the Gaussian with their mean and variance, frame by frame."""
    mean, variance = frames.mean(0), frames.var(0)
    return float(-0.5 * (np.log(2 * np.pi * variance) + (frames - mean) ** 2 / variance).sum())
