"""Controls over speakers whose parameter is one number, so that every mean is plain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets, crossed_sets
from lhuc_asr.adapt.controls import another, others_mean
from lhuc_asr.adapt.method import SpeakerScores
from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.features.store import write_store

SPOKEN = {"ann": 3, "bob": 2, "cat": 4}
ENVIRONMENTS = ("clean", "rain")


@dataclass(frozen=True)
class Numbers:
    """Speakers with a number each, which is the score of all their frames."""

    values: Mapping[str, float]

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(self.values)

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        names = [speakers] * len(utterances) if isinstance(speakers, str) else speakers
        return np.array([self.values[name] for name in names], np.float32).reshape(-1, 1)

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Numbers:
        return Numbers(dict.fromkeys(speakers, float(np.mean([self.values[name] for name in over]))))


def sets_of(folder: Path, data: DataConfig, spoken: Mapping[str, int] = SPOKEN) -> list[AdaptationSet]:
    rows = [
        (f"{speaker}-{number}.{environment}", speaker, np.zeros((5, 2), np.float32))
        for speaker, count in spoken.items()
        for number in range(count)
        for environment in ENVIRONMENTS
    ]
    store = write_store(folder / "store", iter(rows), 2)
    return adaptation_sets(store, {id: id.rpartition(".")[2] for id, _, _ in rows}, data, seed=1)


def score(control: SpeakerScores, name: str) -> float:
    return float(control.log_likelihoods(name, [np.zeros((1, 2), np.float32)])[0, 0])


def numbers(sets: Sequence[AdaptationSet]) -> Numbers:
    return Numbers({each.name: float(2**place) for place, each in enumerate(sets)})


@pytest.mark.parametrize(
    "data",
    [DataConfig(), DataConfig(mode="one_shot"), DataConfig(mode="one_shot", unit="joint"), DataConfig(unit="joint")],
    ids=["two_pass", "one_shot", "joint one_shot", "joint"],
)
def test_a_mean_is_that_of_the_other_speakers_in_the_same_place(tmp_path: Path, data: DataConfig) -> None:
    """Sets of the same environment and number are averaged, so that neither counts as the speaker's own."""
    sets = sets_of(tmp_path, data)
    speakers = numbers(sets)
    control = others_mean(speakers, sets, by_environment=False)
    for each in sets:
        place = each.name.removeprefix(each.speaker)
        others = [speakers.values[name + place] for name in SPOKEN if name != each.speaker]
        assert score(control, each.name) == pytest.approx(np.mean(others))


def test_online_each_other_speaker_lends_what_as_many_recordings_gave(tmp_path: Path) -> None:
    """A speaker with fewer lends the last; both environments' recordings are in one stream here."""
    sets = sets_of(tmp_path, DataConfig(mode="online"))
    speakers = numbers(sets)
    control = others_mean(speakers, sets, by_environment=False)
    for number in range(1, 1 + 2 * SPOKEN["cat"]):
        others = [f"{name}.{min(number, 2 * SPOKEN[name])}" for name in ("ann", "bob")]
        assert score(control, f"cat.{number}") == np.mean([speakers.values[name] for name in others])


def test_a_combined_set_borrows_from_the_same_environment(tmp_path: Path) -> None:
    own, environments = (sets_of(tmp_path / str(unit), DataConfig(unit=unit)) for unit in (None, "environment"))
    sets = list(crossed_sets(own, environments))
    speakers = numbers(sets)
    for seed in range(5):
        control = another(speakers, sets, False, seed)
        for each in sets:
            lenders = [name for name, value in speakers.values.items() if value == score(control, each.name)]
            assert [name.rpartition(".")[2] for name in lenders] == [each.environment]
            assert not lenders[0].startswith(each.speaker)


def test_the_others_of_an_environment_are_the_speakers_other_environments(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, DataConfig(unit="environment"))
    speakers = numbers(sets)
    for control in (others_mean(speakers, sets, True), another(speakers, sets, True, seed=1)):
        for speaker in SPOKEN:
            assert score(control, f"{speaker}.rain") == speakers.values[f"{speaker}.clean"]
            assert score(control, f"{speaker}.clean") == speakers.values[f"{speaker}.rain"]


@pytest.mark.parametrize("data", [DataConfig(), DataConfig(mode="one_shot"), DataConfig(unit="joint")])
def test_another_is_one_other_speaker_in_the_same_place(tmp_path: Path, data: DataConfig) -> None:
    sets = sets_of(tmp_path, data)
    speakers = numbers(sets)
    name_of = {value: name for name, value in speakers.values.items()}
    drawn = {}
    for seed in range(20):
        control = another(speakers, sets, False, seed)
        lenders = {each.name: name_of[score(control, each.name)] for each in sets}
        for each in sets:
            lender = lenders[each.name]
            assert lender[:3] != each.speaker
            assert lender[3:] == each.name[3:]
            # All sets of a speaker borrow from the same one.
            assert {lenders[o.name][:3] for o in sets if o.speaker == each.speaker} == {lender[:3]}
        drawn[seed] = lenders
    assert drawn[0] == {each.name: name_of[score(another(speakers, sets, False, 0), each.name)] for each in sets}
    assert len({str(lenders) for lenders in drawn.values()}) > 1


def test_where_the_other_has_no_such_place_the_nearest_is_borrowed(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, DataConfig(mode="online"), {"ann": 4, "bob": 1})
    control = another(speakers := numbers(sets), sets, False, seed=1)
    assert [score(control, f"ann.{n}") for n in (1, 2, 7)] == [speakers.values[f"bob.{n}"] for n in (1, 2, 2)]


def test_no_utterances_have_no_scores(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, DataConfig())
    assert others_mean(numbers(sets), sets, False).log_likelihoods([], []).shape == (0, 1)


def test_nobody_to_borrow_from_is_an_error(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, DataConfig(), {"ann": 2})
    for make in (lambda: others_mean(numbers(sets), sets, False), lambda: another(numbers(sets), sets, False, 1)):
        with pytest.raises(SpeakerError, match="'ann': no other set has parameters to lend"):
            make()


def test_a_set_that_borrows_nothing_is_refused(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, DataConfig())
    with pytest.raises(SpeakerError, match="'eve' borrows no parameters; known: ann, bob, cat"):
        score(others_mean(numbers(sets), sets, False), "eve")
