import itertools
import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.score.wer import (
    SpeakerScore,
    UtteranceScore,
    WerReport,
    pool,
    read_wer,
    require_same_speakers,
    score,
    summed,
    write_wer,
)

REFERENCES = {"a1": "one two three", "a2": "four", "b1": "five six"}
HYPOTHESES = {"a1": "one too three", "a2": "four five", "b1": "six"}
SPEAKERS = {"a1": "alice", "a2": "alice", "b1": "bob"}

texts = st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)


def edit_distance(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (reference[i - 1] != hypothesis[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(hypothesis))


def test_each_kind_of_error_is_counted_where_it_happened() -> None:
    report = score(REFERENCES, HYPOTHESES, SPEAKERS)
    assert report.utterances == (
        UtteranceScore("a1", "alice", 3, substitutions=1, deletions=0, insertions=0),
        UtteranceScore("a2", "alice", 1, substitutions=0, deletions=0, insertions=1),
        UtteranceScore("b1", "bob", 2, substitutions=0, deletions=1, insertions=0),
    )
    assert report.speakers == {"alice": SpeakerScore(2, 4), "bob": SpeakerScore(1, 2)}
    assert (report.substitutions, report.deletions, report.insertions) == (1, 1, 1)
    assert (report.errors, report.words, report.wer) == (3, 6, 0.5)


def test_total_is_over_words_and_not_a_mean_over_speakers() -> None:
    report = WerReport({"long": SpeakerScore(0, 99), "short": SpeakerScore(1, 1)})
    assert report.wer == 0.01


def test_words_recognised_in_silence_are_insertions() -> None:
    report = score({"u": "", "v": "yes"}, {"u": "oh no", "v": "yes"}, {"u": "s", "v": "s"})
    assert report.utterances[0] == UtteranceScore("u", "s", 0, 0, 0, 2)
    assert report.wer == 2.0


def test_nothing_recognised_is_all_deletions() -> None:
    assert score({"u": "oh no"}, {"u": " "}, {"u": "s"}).deletions == 2


def test_any_white_space_separates_words() -> None:
    assert score({"u": "one\ttwo\nthree"}, {"u": " one  two three\n"}, {"u": "s"}).errors == 0


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_errors_are_the_edit_distance(pairs: list[tuple[str, str]]) -> None:
    # One more utterance gives the speaker a word.
    pairs = [*pairs, ("a", "a")]
    references = {str(number): reference for number, (reference, _) in enumerate(pairs)}
    hypotheses = {str(number): hypothesis for number, (_, hypothesis) in enumerate(pairs)}
    report = score(references, hypotheses, dict.fromkeys(references, "s"))
    for utterance, (reference, hypothesis) in zip(report.utterances, pairs, strict=True):
        said, heard = tuple(reference.split()), tuple(hypothesis.split())
        assert utterance.errors == edit_distance(said, heard)
        assert utterance.words == len(said)
        assert len(heard) == len(said) - utterance.deletions + utterance.insertions
    assert report.errors == sum(utterance.errors for utterance in report.utterances)


def test_order_of_hypotheses_does_not_matter() -> None:
    assert score(REFERENCES, dict(reversed(HYPOTHESES.items())), SPEAKERS) == score(REFERENCES, HYPOTHESES, SPEAKERS)


def test_missing_hypotheses_are_named() -> None:
    with pytest.raises(ScoreError, match=r"^a2, b1: no hypothesis \(2 of 3 utterances\); decode them"):
        score(REFERENCES, {"a1": ""}, SPEAKERS)


def test_many_missing_hypotheses_are_counted() -> None:
    references = {f"u{number}": "a" for number in range(9)}
    with pytest.raises(ScoreError, match=r"^u0, u1, u2, u3, u4 and 4 more: no hypothesis"):
        score(references, {}, dict.fromkeys(references, "s"))


def test_extra_hypotheses_are_named() -> None:
    with pytest.raises(ScoreError, match=r"^c1: a hypothesis but no reference \(1 of 4 utterances\)"):
        score(REFERENCES, {**HYPOTHESES, "c1": "x"}, SPEAKERS)


def test_utterances_without_a_speaker_are_named() -> None:
    with pytest.raises(ScoreError, match=r"^b1: no speaker"):
        score(REFERENCES, HYPOTHESES, {"a1": "alice", "a2": "alice"})


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ScoreError, match="expected at least one reference"):
        score({}, {}, {})


def test_a_speaker_without_words_has_no_rate() -> None:
    with pytest.raises(ScoreError, match=r"^bob: no reference words, so that the word error rate is not defined"):
        score({"a": "x", "b": ""}, {"a": "x", "b": ""}, {"a": "alice", "b": "bob"})


def test_an_utterance_cannot_be_scored_twice() -> None:
    once = UtteranceScore("u", "s", 2, 0, 0, 0)
    with pytest.raises(ScoreError, match=r"^u: scored twice"):
        WerReport.of([once, once])


def test_utterances_must_add_up_to_their_speakers() -> None:
    with pytest.raises(ScoreError, match=r"'s': the utterances give 1 errors in 2 words, .* total 0 errors"):
        WerReport({"s": SpeakerScore(0, 2)}, (UtteranceScore("u", "s", 2, 1, 0, 0),))


def test_the_file_gives_everything_back(tmp_path) -> None:
    report = score(REFERENCES, HYPOTHESES, SPEAKERS)
    write_wer(tmp_path / "wer.json", report)
    assert read_wer(tmp_path / "wer.json") == report


def test_the_file_has_the_keys_that_other_programs_read(tmp_path) -> None:
    write_wer(tmp_path / "wer.json", score(REFERENCES, HYPOTHESES, SPEAKERS))
    tree = json.loads((tmp_path / "wer.json").read_text())
    assert (tree["wer"], tree["errors"], tree["words"]) == (0.5, 3, 6)
    assert tree["speakers"]["bob"] == {"wer": 0.5, "errors": 1, "words": 2}


def test_a_file_of_speakers_only_is_read(tmp_path) -> None:
    speakers = {
        "alice": {"wer": 0.1, "errors": 1, "words": 10},
        "bob": {"wer": 0.0, "errors": 0, "words": 10},
    }
    path = tmp_path / "wer.json"
    path.write_text(json.dumps({"wer": 0.05, "errors": 1, "words": 20, "speakers": speakers}))
    report = read_wer(path)
    assert report.wer == 0.05
    assert report.speakers["alice"] == SpeakerScore(1, 10)
    with pytest.raises(ScoreError, match="gives speakers only"):
        _ = report.substitutions
    write_wer(tmp_path / "again.json", report)
    assert read_wer(tmp_path / "again.json") == report


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ScoreError, match=r"none\.json: no such file"):
        read_wer(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"errors": 1, "words": 2, "speakers": {"a": {"errors": 1}}}',
        '{"errors": 1, "words": 2, "speakers": {"a": {"errors": "1", "words": "2"}}}',
        '{"errors": 1, "words": 2, "speakers": ["a"]}',
        '{"errors": 0, "words": 1, "speakers": {"a": {"errors": 0, "words": 1}}, "utterances": [{}]}',
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "wer.json"
    path.write_text(text)
    with pytest.raises(ScoreError, match=r"wer\.json: not a WER report .*expected errors and words"):
        read_wer(path)


def test_a_file_cut_short_is_refused(tmp_path) -> None:
    path = tmp_path / "wer.json"
    write_wer(path, score(REFERENCES, HYPOTHESES, SPEAKERS))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ScoreError, match=r"wer\.json: not a WER report \(not valid JSON"):
        read_wer(path)


def test_a_total_that_does_not_add_up_is_refused(tmp_path) -> None:
    path = tmp_path / "wer.json"
    path.write_text(json.dumps({"errors": 2, "words": 9, "speakers": {"a": {"errors": 1, "words": 9}}}))
    with pytest.raises(ScoreError, match=r"wer\.json: the total is 2 errors in 9 words, the speakers give 1"):
        read_wer(path)


def test_pooled_folds_are_the_report_of_all_their_utterances() -> None:
    report = score(REFERENCES, HYPOTHESES, SPEAKERS)
    folds = [WerReport.of(utterances) for _, utterances in itertools.groupby(report.utterances, lambda u: u.speaker)]
    assert len(folds) == 2
    assert pool(folds) == report


def test_a_speaker_belongs_to_one_fold() -> None:
    fold = WerReport({"alice": SpeakerScore(0, 1)})
    with pytest.raises(ScoreError, match=r"^alice: in more than one report"):
        pool([fold, fold])


def test_folds_with_and_without_utterances_do_not_mix() -> None:
    with pytest.raises(ScoreError, match="'bob': the utterances give nothing"):
        pool(
            [
                WerReport.of([UtteranceScore("a", "alice", 1, 0, 0, 0)]),
                WerReport({"bob": SpeakerScore(0, 1)}),
            ]
        )


def test_reports_of_other_speakers_or_words_do_not_stand_side_by_side() -> None:
    first, second = WerReport({"a": SpeakerScore(0, 3)}), WerReport({"a": SpeakerScore(0, 4)})
    require_same_speakers({"si": first, "lhuc": first})
    with pytest.raises(ScoreError, match="'a': 4 reference words in lhuc, 3 in si"):
        require_same_speakers({"si": first, "lhuc": second})
    with pytest.raises(ScoreError, match="'a': 0 reference words in lhuc, 3 in si"):
        require_same_speakers({"si": first, "lhuc": WerReport({"b": SpeakerScore(0, 3)})})
    with pytest.raises(ScoreError, match="no report given"):
        require_same_speakers({})


# Environments.


def test_errors_are_told_apart_by_environment_and_survive_the_file(tmp_path) -> None:
    said = {"u.clean": "one two", "u.car": "one two", "v": "three"}
    heard = {"u.clean": "one two", "u.car": "won two three", "v": "three"}
    speakers = dict.fromkeys(said, "alice")
    report = score(said, heard, speakers, {"u.clean": "clean", "u.car": "car"})
    scores = {name: (row.errors, row.words) for name, row in report.environments().items()}
    assert scores == {"": (0, 1), "car": (2, 2), "clean": (0, 2)}
    write_wer(tmp_path / "wer.json", report)
    assert read_wer(tmp_path / "wer.json") == report
    tree = json.loads((tmp_path / "wer.json").read_text())
    assert tree["environments"]["car"] == {"wer": 1.0, "errors": 2, "words": 2}


def test_without_environments_the_file_says_nothing_of_them(tmp_path) -> None:
    write_wer(tmp_path / "wer.json", score({"u": "one"}, {"u": "two"}, {"u": "alice"}))
    assert "environment" not in (tmp_path / "wer.json").read_text()
    assert read_wer(tmp_path / "wer.json").environments().keys() == {""}


def test_an_environment_where_nothing_was_said_has_no_rate() -> None:
    report = score({"u": "one", "v": ""}, {"u": "one", "v": "two"}, {"u": "a", "v": "a"}, {"u": "car", "v": "wind"})
    assert report.environments().keys() == {"car"}
    assert report.errors == 1


def test_reports_of_several_seeds_are_summed_by_utterance() -> None:
    one, two = (
        WerReport.of([UtteranceScore("u", "a", 5, *first), UtteranceScore("v", "b", 4, *second)])
        for first, second in (((1, 0, 2), (0, 1, 0)), ((0, 0, 1), (2, 0, 0)))
    )
    both = summed([one, two])
    assert both.utterances == (UtteranceScore("u", "a", 10, 1, 0, 3), UtteranceScore("v", "b", 8, 2, 1, 0))
    assert both.wer == pytest.approx((one.wer + two.wer) / 2)
    with pytest.raises(ScoreError, match="over different utterances"):
        summed([one, WerReport.of([UtteranceScore("w", "a", 5, 0, 0, 0), UtteranceScore("v", "b", 4, 0, 0, 0)])])
    with pytest.raises(ScoreError, match="speaker 'b': 0 reference words in report 2, 4 in report 1"):
        summed([one, WerReport.of([UtteranceScore("u", "a", 5, 0, 0, 0)])])
