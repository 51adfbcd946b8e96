"""The cross-entropy that settings are compared by, benchmarks/other_half.py."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch


def test_cross_entropy_is_of_posteriors_and_a_mean_over_each_speakers_frames(
    script: Callable[[str], ModuleType],
) -> None:
    # Posteriors 0.9 and 0.1 in every frame; the priors 0.75 and 0.25 turn them into the likelihoods that a loop gives.
    posteriors, priors = np.array([[0.9, 0.1]]), np.array([0.75, 0.25])
    scores = np.log(posteriors / priors).astype(np.float32)
    frames = {"b-1": 3, "a-1": 1, "c-1": 5, "a-2": 2, "d-1": 1}
    loop = SimpleNamespace(
        model=SimpleNamespace(log_prior=torch.from_numpy(np.log(priors).astype(np.float32))),
        features=SimpleNamespace(by_id={name: SimpleNamespace(speaker=name[0]) for name in frames}),
        first_pass=lambda: ((name, scores.repeat(count, axis=0)) for name, count in frames.items()),
    )
    pdfs = {
        "b-1": np.array([0, 1, -1]),
        "a-1": np.array([0]),
        "a-2": np.array([0, 1]),
        "c-1": np.zeros(5, int),
        "d-1": np.array([-1]),
    }
    sets = [SimpleNamespace(speaker=name) for name in "abad"]
    entropies = script("other_half").cross_entropies(loop, None, sets, pdfs)
    right, wrong = -np.log(0.9), -np.log(0.1)
    # Frames without a reference pdf do not count, nor do speakers without a set, or with no frame that counts.
    assert entropies == pytest.approx([(2 * right + wrong) / 3, (right + wrong) / 2], abs=1e-6)


def test_speakers_are_spread_over_all(script: Callable[[str], ModuleType]) -> None:
    spread = script("other_half").spread
    assert spread("abcdefg", 3) == ["a", "c", "e"]
    assert spread("abc", 5) == ["a", "b", "c"]
    assert spread("abc", None) == "abc"
