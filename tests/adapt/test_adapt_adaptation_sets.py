"""Adaptation sets: the recordings that are adapted on, and those that are decoded with the result."""

from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets, crossed_sets
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.features.store import FeatureStore, write_store

FRAMES = {"a": (100, 50, 30, 70), "b": (40,)}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    rows = (
        (f"{speaker}-{number}", speaker, np.zeros((frames, 2), np.float32))
        for speaker, lengths in FRAMES.items()
        for number, frames in enumerate(lengths)
    )
    return write_store(tmp_path / "store", rows, 2)


ENVIRONMENTS = ("clean", "rain", "street")


@pytest.fixture
def noisy(tmp_path: Path) -> FeatureStore:
    """Every speaker's recordings in three environments; lengths differ by speaker, recording and environment."""
    rows = (
        (f"{speaker}-{number}.{environment}", speaker, np.zeros((frames + place, 2), np.float32))
        for speaker, lengths in {**FRAMES, "c": (45, 55, 65)}.items()
        for number, frames in enumerate(lengths)
        for place, environment in enumerate(ENVIRONMENTS)
    )
    return write_store(tmp_path / "noisy", rows, 2)


def environments_of(store: FeatureStore) -> dict[str, str]:
    return {name: name.partition(".")[2] for name in store.by_id}


def estimated_on(each) -> set[str]:
    return {utterance.id for utterance, _ in each.estimated_on}


def used(each) -> list[str]:
    return sorted(utterance.id for utterance in each.used_for)


def test_all_of_a_speakers_recordings_for_all_of_them(store):
    sets = adaptation_sets(store, environments_of(store), DataConfig(), seed=1)
    assert [each.name for each in sets] == ["a", "b"]
    for each in sets:
        assert used(each) == sorted(u.id for u, _ in each.estimated_on)
        assert sorted(frames for _, frames in each.estimated_on) == sorted(FRAMES[each.name])


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.3, 100.0])
def test_no_more_seconds_than_allowed_and_as_many_as_there_are(store, seconds):
    for each in adaptation_sets(store, environments_of(store), DataConfig(seconds=seconds), seed=3):
        there = sum(FRAMES[each.name])
        assert sum(frames for _, frames in each.estimated_on) == min(there, round(100 * seconds))
        assert len(each.used_for) == len(FRAMES[each.name])


@pytest.mark.parametrize("utterances", [1, 3, 9])
def test_no_more_utterances_than_allowed(store, utterances):
    for each in adaptation_sets(store, environments_of(store), DataConfig(utterances=utterances), seed=3):
        assert len(each.estimated_on) == min(utterances, len(FRAMES[each.name]))


def test_one_shot_decodes_nothing_that_it_was_estimated_on(store):
    sets = adaptation_sets(store, environments_of(store), DataConfig(mode="one_shot"), seed=1)
    assert [each.name for each in sets] == ["a.1", "a.2", "b.1"]
    for each in sets:
        assert not set(used(each)) & {utterance.id for utterance, _ in each.estimated_on}
    assert sorted(name for each in sets for name in used(each)) == sorted(store.by_id)


def test_the_choice_depends_on_the_seed_and_on_nobody_else(store, tmp_path):
    def chosen(of: FeatureStore, seed: int) -> list[str]:
        (each,) = (
            each
            for each in adaptation_sets(of, environments_of(of), DataConfig(utterances=2), seed)
            if each.name == "a"
        )
        return [utterance.id for utterance, _ in each.estimated_on]

    rows = ((f"a-{n}", "a", np.zeros((frames, 2), np.float32)) for n, frames in enumerate(FRAMES["a"]))
    alone = write_store(tmp_path / "alone", rows, 2)
    assert chosen(alone, 5) == chosen(store, 5)
    assert len({tuple(chosen(store, seed)) for seed in range(20)}) > 1


def test_more_parts_leave_each_more_to_learn_from(store):
    sets = adaptation_sets(store, environments_of(store), DataConfig(mode="one_shot", parts=3), seed=1)
    sets = [each for each in sets if each.name.startswith("a.")]
    everything = sorted(utterance.id for utterance in store.speakers["a"])
    for each in sets:
        learned = [utterance.id for utterance, _ in each.estimated_on]
        assert sorted(learned + used(each)) == everything
    sizes = [len(used(each)) for each in sets]
    assert sum(sizes) == len(everything)
    assert max(sizes) - min(sizes) <= 1


def test_parts_belong_to_one_shot():
    with pytest.raises(ValueError, match="mode online has none"):
        DataConfig(mode="online", parts=3)


def test_online_decodes_each_recording_with_what_was_before_it(store):
    sets = [
        each
        for each in adaptation_sets(store, environments_of(store), DataConfig(mode="online"), seed=1)
        if each.name.startswith("a.")
    ]
    order = [utterance.id for utterance in store.speakers["a"]]
    assert [used(each) for each in sets] == [[id] for id in order]
    for number, each in enumerate(sets):
        assert sorted(utterance.id for utterance, _ in each.estimated_on) == sorted(order[:number])


def test_incremental_learns_from_each_recording_once_and_goes_on_from_the_set_before(store):
    sets = [
        each
        for each in adaptation_sets(store, environments_of(store), DataConfig(mode="incremental"), seed=1)
        if each.name.startswith("a.")
    ]
    order = [utterance.id for utterance in store.speakers["a"]]
    assert [used(each) for each in sets] == [[id] for id in order]
    assert [[utterance.id for utterance, _ in each.estimated_on] for each in sets] == [[], *([id] for id in order[:-1])]
    assert [each.after for each in sets] == [None, *(each.name for each in sets[:-1])]


def test_online_forgets_the_oldest_where_only_so_much_is_allowed(store):
    sets = [
        each
        for each in adaptation_sets(store, environments_of(store), DataConfig(mode="online", utterances=1), 1)
        if each.name[0] == "a"
    ]
    order = [utterance.id for utterance in store.speakers["a"]]
    latest = [[], *([id] for id in order[:-1])]
    assert [[utterance.id for utterance, _ in each.estimated_on] for each in sets] == latest


def test_incremental_has_no_limit():
    with pytest.raises(ValueError, match="learns from each utterance once"):
        DataConfig(mode="incremental", seconds=5.0)


# Environments


def test_a_speaker_learned_where_it_is_clean_is_used_everywhere(noisy):
    sets = adaptation_sets(noisy, environments_of(noisy), DataConfig(environments=("clean",)), seed=1)
    assert [each.name for each in sets] == ["a", "b", "c"]
    for each in sets:
        assert estimated_on(each) == {name for name in noisy.by_id if name[0] == each.name and name.endswith(".clean")}
        assert used(each) == sorted(name for name in noisy.by_id if name[0] == each.name)


def test_speaker_and_environment_jointly(noisy):
    sets = adaptation_sets(noisy, environments_of(noisy), DataConfig(unit="joint"), seed=1)
    assert sorted(each.name for each in sets) == sorted(f"{s}.{e}" for s in "abc" for e in ENVIRONMENTS)
    for each in sets:
        speaker, environment = each.name.split(".")
        own = {name for name in noisy.by_id if name[0] == speaker and name.endswith(f".{environment}")}
        assert estimated_on(each) == own == set(used(each))


def test_an_environment_is_learned_from_everybody_else_there(noisy):
    data = DataConfig(unit="environment")
    sets = adaptation_sets(noisy, environments_of(noisy), data, seed=1)
    assert sorted(name for each in sets for name in used(each)) == sorted(noisy.by_id)
    for each in sets:
        speaker, environment = each.name.split(".")
        there = {name for name in noisy.by_id if name.endswith(f".{environment}")}
        assert set(used(each)) == {name for name in there if name[0] == speaker}
        assert estimated_on(each) == {name for name in there if name[0] != speaker}
        assert {utterance.speaker for utterance, _ in each.estimated_on} == set("abc") - {speaker}


@pytest.mark.parametrize("utterances", [2, 4])
def test_a_limit_takes_as_much_of_each_of_the_others(noisy, utterances):
    data = DataConfig(unit="environment", utterances=utterances)
    (each,) = (s for s in adaptation_sets(noisy, environments_of(noisy), data, seed=1) if s.name == "b.rain")
    speakers = [utterance.speaker for utterance, _ in each.estimated_on]
    assert speakers.count("a") == speakers.count("c") == utterances // 2


def test_seconds_of_the_others_are_seconds_in_all(noisy):
    data = DataConfig(unit="environment", seconds=0.7)
    for each in adaptation_sets(noisy, environments_of(noisy), data, seed=1):
        assert sum(frames for _, frames in each.estimated_on) == 70


def test_one_shot_never_decodes_the_words_that_it_was_estimated_on_in_whatever_environment(noisy):
    for data in (DataConfig(mode="one_shot"), DataConfig(mode="one_shot", unit="joint")):
        sets = adaptation_sets(noisy, environments_of(noisy), data, seed=1)
        assert sorted(name for each in sets for name in used(each)) == sorted(noisy.by_id)
        for each in sets:
            said = {name.partition(".")[0] for name in used(each)}
            assert not said & {name.partition(".")[0] for name in estimated_on(each)}
    assert {each.name for each in sets if each.name[0] == "b"} == {f"b.{e}.1" for e in ENVIRONMENTS}


def test_online_learns_nothing_from_copies_of_what_it_decodes(noisy):
    sets = adaptation_sets(noisy, environments_of(noisy), DataConfig(mode="online"), seed=1)
    assert sorted(name for each in sets for name in used(each)) == sorted(noisy.by_id)
    for each in sets:
        (decoded,) = each.used_for
        earlier = {u.id for u in noisy.speakers[decoded.speaker] if u.first < decoded.first}
        assert estimated_on(each) == {name for name in earlier if name[:3] != decoded.id[:3]}


def test_incremental_learns_copies_together_after_all_of_them_are_decoded(noisy):
    sets = adaptation_sets(noisy, environments_of(noisy), DataConfig(mode="incremental"), seed=1)
    assert sorted(name for each in sets for name in used(each)) == sorted(noisy.by_id)
    for each in sets:
        assert len({name[:3] for name in used(each)}) == 1
        before = [other for other in sets if other.name == each.after]
        assert estimated_on(each) == {name for other in before for name in used(other)}
    assert sum(each.after is None for each in sets) == len(noisy.speakers)


def test_sets_of_speaker_and_environment_are_crossed(noisy):
    environments = environments_of(noisy)
    speakers = adaptation_sets(noisy, environments, DataConfig(environments=("clean",)), seed=1)
    there = adaptation_sets(noisy, environments, DataConfig(unit="environment"), seed=1)
    crossed = crossed_sets(speakers, there)
    assert {each.name: names for each, names in crossed.items()} == {
        f"{s}+{s}.{e}": (s, f"{s}.{e}") for s in "abc" for e in ENVIRONMENTS
    }
    for each, (speaker, row) in crossed.items():
        assert used(each) == sorted(n for n in noisy.by_id if n[0] == speaker and n.endswith(row[1:]))
        assert not each.estimated_on


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"environments": ["clean", "snow"]}, r"no utterance in the environments snow; known: clean, rain, street"),
        ({"unit": "joint", "environments": ["clean"]}, "unit joint estimates in each environment separately"),
        ({"unit": "environment", "mode": "online"}, "mode online: unit environment estimates on other speakers"),
        ({"environments": []}, "environments"),
    ],
)
def test_data_that_cannot_be_had(noisy, data, message):
    with pytest.raises((ConfigError, CorpusError), match=message):
        adaptation_sets(noisy, environments_of(noisy), parse_config(DataConfig, data, "test"), seed=1)


def test_recordings_without_environment_and_a_speaker_alone(store, tmp_path):
    with pytest.raises(CorpusError, match=r"some utterances have no environment \(known: none\); name the environment"):
        adaptation_sets(store, environments_of(store), DataConfig(unit="joint"), seed=1)
    alone = write_store(tmp_path / "alone", [("a-1", "a", np.zeros((5, 2), np.float32))], 2)
    with pytest.raises(CorpusError, match="the split has only one speaker, and an environment"):
        adaptation_sets(alone, {"a-1": "rain"}, DataConfig(unit="environment"), seed=1)
