"""Questions: classes that are known are found by clustering; names and files give what they say."""

import numpy as np
import pytest
from triphone_world import CLASSES, NASALS, PHONES, STOPS, VOWELS, speech, statistics

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.hmm.questions import clustered_questions, make_questions, name_questions, read_questions
from lhuc_asr.hmm.tree_statistics import TreeStatistics
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet


def test_clustering_finds_the_classes_that_the_phones_are_of():
    questions = clustered_questions(statistics(1), PHONES)
    assert {VOWELS, NASALS, STOPS} <= set(questions)
    assert {frozenset({name}) for name in PHONES.names} <= set(questions)
    # A binary hierarchy over n phones has 2 n - 1 clusters, and two of them are one inside the other or disjoint.
    assert len(questions) == 2 * len(PHONES.names) - 1
    assert all(one <= other or other <= one or not one & other for one in questions for other in questions)


def test_the_phones_of_one_base_are_one_cluster():
    phones = PhoneSet.of([f"{name}_{position}" for name in PHONES.speech for position in "BIES"])
    classes = {name: CLASSES[name.split("_")[0]] for name in phones.names}
    features, aligned = speech(np.random.default_rng(2), phones, classes=classes)
    questions = clustered_questions(TreeStatistics.of(features, [aligned]), phones)
    assert len(questions) == 2 * len(PHONES.names) - 1
    bases = [{name.split("_")[0] for name in question} for question in questions]
    assert VOWELS in bases
    assert all(
        question == {name for name in phones.names if name.split("_")[0] in base}
        for question, base in zip(questions, bases, strict=True)
    )


def test_a_phone_without_frames_is_asked_for_alone():
    phones = PhoneSet(PHONES.silence, (*PHONES.speech, "Z"))
    assert [question for question in make_questions(statistics(3), phones) if "Z" in question] == [{"Z"}]


def test_word_positions_and_stress_are_questions_where_names_have_them():
    lexicon = Lexicon({"x": (("AH0", "K", "AH1"), ("T1",))}, PhoneSet.of(["AH0", "AH1", "K", "T1"]))
    assert set(name_questions(lexicon.phones)) == {frozenset({"AH0"}), frozenset({"AH1"})}
    phones = lexicon.with_word_positions().phones
    expected = {frozenset(f"{base}_{position}" for base in ("AH0", "AH1", "K", "T1")) for position in "BIES"}
    expected |= {frozenset(f"AH{stress}_{position}" for position in "BIES") for stress in "01"}
    assert set(name_questions(phones)) == expected


def test_suffixes_are_word_positions_only_if_all_phones_have_one():
    assert name_questions(PhoneSet.of(["A_B", "A_E", "K"])) == ()
    assert PhoneSet.of(["A_B", "K"]).parts["A_B"].base == "A_B"


def test_a_file_of_linguistic_questions_is_added(tmp_path):
    (tmp_path / "q.txt").write_text("M N  T\n\nA E M N P T SIL\nM\n")
    questions = make_questions(statistics(1), PHONES, tmp_path / "q.txt")
    assert frozenset("MNT") in questions
    assert len(set(questions)) == len(questions)
    assert all(0 < len(question) < len(PHONES.names) for question in questions)


def test_a_base_in_a_file_stands_for_all_of_its_phones(tmp_path):
    (tmp_path / "q.txt").write_text("A K_E\n")
    phones = PhoneSet.of([f"{name}_{position}" for name in "AK" for position in "BIES"])
    assert read_questions(tmp_path / "q.txt", phones) == (frozenset({"A_B", "A_I", "A_E", "A_S", "K_E"}),)


def test_an_unknown_phone_in_a_file_is_named_with_its_line(tmp_path):
    (tmp_path / "q.txt").write_text("M N\nM NG X\n")
    with pytest.raises(LexiconError, match=r"q\.txt:2: phones outside the phone set: NG X; .*known phones: SIL A E M"):
        read_questions(tmp_path / "q.txt", PHONES)
    with pytest.raises(LexiconError, match=r"none\.txt: no such file"):
        read_questions(tmp_path / "none.txt", PHONES)
