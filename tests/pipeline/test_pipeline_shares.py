"""Which recordings are adapted on, and which are decoded with what was learned there."""

from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.features.store import FeatureStore, write_store
from lhuc_asr.pipeline.recipe import DataConfig
from lhuc_asr.pipeline.shares import shares

FRAMES = {"a": (100, 50, 30, 70), "b": (40,)}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    rows = (
        (f"{speaker}-{number}", speaker, np.zeros((frames, 2), np.float32))
        for speaker, lengths in FRAMES.items()
        for number, frames in enumerate(lengths)
    )
    return write_store(tmp_path / "store", rows, 2)


def used(share) -> list[str]:
    return sorted(utterance.id for utterance in share.used_for)


def test_all_of_a_speakers_recordings_for_all_of_them(store):
    found = shares(store, DataConfig(), seed=1)
    assert [share.name for share in found] == ["a", "b"]
    for share in found:
        assert used(share) == sorted(u.id for u, _ in share.estimated_on)
        assert sorted(frames for _, frames in share.estimated_on) == sorted(FRAMES[share.name])


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.3, 100.0])
def test_no_more_seconds_than_allowed_and_as_many_as_there_are(store, seconds):
    for share in shares(store, DataConfig(seconds=seconds), seed=3):
        there = sum(FRAMES[share.name])
        assert sum(frames for _, frames in share.estimated_on) == min(there, round(100 * seconds))
        assert len(share.used_for) == len(FRAMES[share.name])


@pytest.mark.parametrize("utterances", [1, 3, 9])
def test_no_more_utterances_than_allowed(store, utterances):
    for share in shares(store, DataConfig(utterances=utterances), seed=3):
        assert len(share.estimated_on) == min(utterances, len(FRAMES[share.name]))


def test_one_shot_decodes_nothing_that_it_was_estimated_on(store):
    found = shares(store, DataConfig(mode="one_shot"), seed=1)
    assert [share.name for share in found] == ["a.1", "a.2", "b.1"]
    for share in found:
        assert not set(used(share)) & {utterance.id for utterance, _ in share.estimated_on}
    assert sorted(name for share in found for name in used(share)) == sorted(store.by_id)


def test_the_choice_depends_on_the_seed_and_on_nobody_else(store, tmp_path):
    def chosen(of: FeatureStore, seed: int) -> list[str]:
        (share,) = (share for share in shares(of, DataConfig(utterances=2), seed) if share.name == "a")
        return [utterance.id for utterance, _ in share.estimated_on]

    rows = ((f"a-{n}", "a", np.zeros((frames, 2), np.float32)) for n, frames in enumerate(FRAMES["a"]))
    alone = write_store(tmp_path / "alone", rows, 2)
    assert chosen(alone, 5) == chosen(store, 5)
    assert len({tuple(chosen(store, seed)) for seed in range(20)}) > 1


def test_online_decodes_each_recording_with_what_was_before_it(store):
    found = [share for share in shares(store, DataConfig(mode="online"), seed=1) if share.name.startswith("a.")]
    order = [utterance.id for utterance in store.speakers["a"]]
    assert [used(share) for share in found] == [[id] for id in order]
    for number, share in enumerate(found):
        assert sorted(utterance.id for utterance, _ in share.estimated_on) == sorted(order[:number])


def test_online_forgets_the_oldest_where_only_so_much_is_allowed(store):
    found = [share for share in shares(store, DataConfig(mode="online", utterances=1), 1) if share.name[0] == "a"]
    order = [utterance.id for utterance in store.speakers["a"]]
    latest = [[], *([id] for id in order[:-1])]
    assert [[utterance.id for utterance, _ in share.estimated_on] for share in found] == latest
