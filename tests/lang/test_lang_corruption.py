"""Words replaced by others, in the fraction that is asked for."""

import numpy as np
import pytest

from lhuc_asr.lang.corruption import corrupt


def test_corrupted_transcripts_differ_in_the_share_that_is_asked_for() -> None:
    words = [f"W{number}" for number in range(50)]
    generator = np.random.default_rng(3)
    spoken = {f"u{n}": tuple(generator.choice(words, size=40).tolist()) for n in range(50)}
    spoken["unknown"] = ("<unk>",) * 20
    changed = {}
    for share in (0.1, 0.4, 1.0):
        corrupted = corrupt(spoken, words, share, seed=1)
        assert {name: len(corrupted[name]) for name in spoken} == {name: len(own) for name, own in spoken.items()}
        changed[share] = {
            (name, place): word
            for name, own in corrupted.items()
            for place, word in enumerate(own)
            if word != spoken[name][place]
        }
        assert set(changed[share].values()) <= set(words)
        deviation = (share * (1 - share) / 2020) ** 0.5
        assert len(changed[share]) / 2020 == pytest.approx(share, abs=4 * deviation)
    assert changed[0.1].items() <= changed[0.4].items() <= changed[1.0].items()
    assert corrupt(spoken, words, 0.4, seed=2) != corrupt(spoken, words, 0.4, seed=1)
