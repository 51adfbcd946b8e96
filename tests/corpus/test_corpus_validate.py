"""What validation stops at, what it leaves out, and what passes."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.reading import Reading, Skip
from lhuc_asr.corpus.validate import unsafe_name, validate


def test_a_sound_corpus_passes_sorted_by_speaker(spoken) -> None:
    utterances = [spoken("3", "a"), spoken("1", "b"), spoken("2", "a")]
    result = validate(Reading(utterances))
    assert [u.id for u in result.utterances] == ["2", "3", "1"]
    assert result.skipped == []


def test_bad_recordings_are_left_out_listed_and_logged(spoken, caplog: pytest.LogCaptureFixture) -> None:
    good = [spoken(f"good{index:02}") for index in range(20)]
    damaged, silent, brief = spoken("damaged"), spoken("wordless", text=""), spoken("brief", seconds=0.0245)
    damaged.audio.write_bytes(damaged.audio.read_bytes()[:-2])
    reading = Reading([brief, *good, silent, damaged], [Skip("absent", "no recording")])
    with caplog.at_level(logging.WARNING):
        result = validate(reading, max_skipped=0.2)
    assert result.utterances == good
    assert [skip.id for skip in result.skipped] == ["absent", "brief", "damaged", "wordless"]
    absent, too_brief, cut, wordless = (skip.reason for skip in result.skipped)
    assert absent == "no recording"
    assert "shorter than one window of 25 ms" in too_brief
    assert "truncated: 2 bytes" in cut
    assert wordless == "no transcript"
    assert "skipped 4 of 24 utterances" in caplog.text
    assert all(skip.id in caplog.text and skip.reason in caplog.text for skip in result.skipped)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_digital_silence_is_left_out_and_counted(spoken, level: float) -> None:
    utterances = [spoken(f"u{index}") for index in range(3)]
    soundfile.write(utterances[0].audio, np.full(16000, level), 16000)
    assert [skip.id for skip in validate(Reading(utterances), max_skipped=0.5).skipped] == ["u0"]
    with pytest.raises(CorpusError, match=r"1 of 3 utterances cannot be used.*u0: .*digital silence: all samples"):
        validate(Reading(utterances))


def test_channels_in_opposite_phase_are_used_and_told(spoken, caplog: pytest.LogCaptureFixture) -> None:
    utterance, other = spoken("u"), spoken("v")
    samples, rate = soundfile.read(utterance.audio)
    soundfile.write(utterance.audio, np.stack([samples, -samples], 1), rate)
    assert validate(Reading([utterance, other])).utterances == [utterance, other]
    assert "1 recordings, such as" in caplog.text
    assert "u.wav, lose their sound when their channels are mixed" in caplog.text


def test_the_channel_that_an_utterance_names_is_looked_at(spoken, caplog: pytest.LogCaptureFixture) -> None:
    """One that is not there, one that is silent, and one that is sound beside its opposite."""
    utterances = [spoken(f"a-{number}") for number in range(3)]
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 8000)
    for each, columns in zip(utterances, ([noise], [noise, 0 * noise], [noise, -noise]), strict=True):
        soundfile.write(each.audio, np.stack(columns, axis=1), 16000)
    named = [replace(each, channel=2) for each in utterances]
    assert [each.id for each in validate(Reading(named), max_skipped=0.9).utterances] == ["a-2"]
    assert "channel 2 was asked for, expected 1 to 1" in caplog.text
    assert "digital silence" in caplog.text
    assert "their channels are mixed" not in caplog.text


def test_a_file_whose_name_is_not_utf8_is_left_out_by_name(spoken) -> None:
    named, other = spoken("u"), spoken("v")
    path = Path(os.fsdecode(os.fsencode(named.audio.parent) + b"/\xff.wav"))
    named.audio.rename(path)
    result = validate(Reading([replace(named, audio=path), other]), max_skipped=0.5)
    assert result.utterances == [other]
    assert r"\udcff.wav': the name is not UTF-8" in result.skipped[0].reason


def test_one_window_is_enough(spoken) -> None:
    assert len(validate(Reading([spoken("u", seconds=0.025)])).utterances) == 1


def test_a_transcript_is_needed_only_where_asked_for(spoken) -> None:
    assert len(validate(Reading([spoken("u", text="")]), require_text=False).utterances) == 1


def test_the_number_of_threads_changes_nothing(spoken) -> None:
    utterances = [spoken(f"u{index}") for index in range(12)]
    for utterance in utterances[::3]:
        utterance.audio.write_text("damaged")
    results = [validate(Reading(utterances), max_skipped=0.5, threads=threads) for threads in (1, 5)]
    assert results[0] == results[1]
    assert len(results[0].skipped) == 4


def test_too_many_bad_recordings_stop_the_run(spoken) -> None:
    skips = [Skip(f"x{index}", "no recording") for index in range(7)]
    with pytest.raises(CorpusError) as caught:
        validate(Reading([spoken(f"u{index}") for index in range(3)], skips))
    message = str(caught.value)
    assert "7 of 10 utterances cannot be used, more than the 5.0% allowed (max_skipped)" in message
    assert all(f"x{index}: no recording" in message for index in range(5))
    assert "x5" not in message
    assert "and 2 more" in message


def test_exactly_the_allowed_share_passes(spoken) -> None:
    reading = Reading([spoken(f"u{index}") for index in range(3)], [Skip("x", "no recording")])
    assert len(validate(reading, max_skipped=0.25).skipped) == 1


def test_a_corpus_of_nothing_but_skips_is_an_error_at_any_share(spoken) -> None:
    with pytest.raises(CorpusError, match="1 of 1 utterances cannot be used"):
        validate(Reading([], [Skip("x", "no recording")]), max_skipped=1.0)


def test_no_utterance_is_an_error() -> None:
    with pytest.raises(CorpusError, match="the corpus has no utterance"):
        validate(Reading([]))


def test_one_id_for_two_utterances_is_an_error(spoken) -> None:
    first = spoken("u")
    second = replace(spoken("v"), id="u", speaker="b")
    with pytest.raises(CorpusError, match=r"1 utterance ids appear more than once; 'u' names .*u\.wav and .*v\.wav"):
        validate(Reading([first, second]))


@pytest.mark.parametrize("field", ["id", "speaker", "environment"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/b", "it contains '/'"),
        ("a\\b", "it contains"),
        ("a..b", "it contains '..'"),
        ("a|b", "it contains '|'"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\x00b", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        (".hidden", "it begins with '.'"),
        ("--help", "it begins with '-'"),
        ("é" * 101, "longer than 200 bytes"),
    ],
)
def test_names_that_no_file_can_carry(spoken, field: str, name: str, reason: str) -> None:
    with pytest.raises(CorpusError) as caught:
        validate(Reading([replace(spoken("u"), **{field: name})]))
    assert repr(name) in str(caught.value)
    assert reason in str(caught.value)
    assert "rename it" in str(caught.value)


@pytest.mark.parametrize("field", ["id", "speaker"])
def test_names_may_not_be_empty(spoken, field: str) -> None:
    with pytest.raises(CorpusError, match="it is empty"):
        validate(Reading([replace(spoken("u"), **{field: ""})]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80))
def test_a_safe_name_is_one_file_in_the_folder_and_one_cell(tmp_path: Path, name: str) -> None:
    if unsafe_name(name) is not None:
        return
    path = tmp_path / f"{name}.json"
    path.touch()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    path.unlink()
    assert f"{name} | cell".split() == [name, "|", "cell"]
