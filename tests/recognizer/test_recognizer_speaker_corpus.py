"""Corpora of many speakers: who speaks, what they say, and what is told of what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError, LhucError
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus, corpus_of, speaker_corpus, transcripts_of
from lhuc_asr.recognizer.speech import cut_all
from lhuc_asr.recognizer.transcript import Span


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.random.default_rng(0).uniform(-0.1, 0.1, 32000), 16000)
    return folder


def read(folder: Path, problems: list[LhucError] | None = None) -> SpeakerCorpus:
    with speaker_corpus(folder, on_bad=None if problems is None else problems.append) as corpus:
        return corpus


def names(corpus: SpeakerCorpus) -> dict[str, list[str]]:
    return {speaker: [each.name for each in theirs] for speaker, theirs in corpus.speakers.items()}


def test_a_folder_for_each_speaker(tmp_path: Path) -> None:
    """As LibriSpeech has them: a chapter is no speaker."""
    corpus = read(made(tmp_path, "bob/7/x.wav", "alice/1/a.wav", "alice/2/b.wav"))
    assert names(corpus) == {"alice": ["a", "b"], "bob": ["x"]}
    assert corpus.speaker_of == {"a": "alice", "b": "alice", "x": "bob"}
    problems: list[LhucError] = []
    made(tmp_path, "stray.wav")
    assert names(read(tmp_path, problems)) == names(corpus)
    assert "stray.wav: is in no speaker's folder; move it into one" in str(problems[0])


def test_recordings_in_the_folder_itself_have_no_speaker(tmp_path: Path) -> None:
    assert names(read(made(tmp_path, "a.wav", "b.wav"))) == {"": ["a", "b"]}


def test_utt2spk_goes_before_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "d/a.wav", "d/b.wav", "e/c.wav")
    (tmp_path / "utt2spk").write_text("a alice\nc alice\nb bob\nz bob\n")
    assert names(read(tmp_path)) == {"alice": ["a", "c"], "bob": ["b"]}
    assert "1 names are of no recording here, such as z" in caplog.text
    (tmp_path / "utt2spk").write_text("a alice\nb bob\n")
    with pytest.raises(CorpusError, match=r"c\.wav: .*utt2spk has no speaker for 'c'; add a line"):
        read(tmp_path)
    for text, message in (
        ("a\n", "1: expected a recording's name and its speaker"),
        ("a x\na y\n", "2: 'a' already has"),
    ):
        (tmp_path / "utt2spk").write_text(text)
        with pytest.raises(CorpusError, match=message):
            read(tmp_path)


RTTM = """SPKR-INFO meeting 1 <NA> <NA> <NA> unknown bob <NA> <NA>
SPEAKER meeting 1 0.10 0.50 <NA> <NA> bob <NA> <NA>
SPEAKER meeting 1 0.50 1.00 <NA> <NA> alice <NA> <NA>
SPEAKER meeting 1 1.50 0.55 <NA> <NA> bob <NA> <NA>
SPEAKER elsewhere 1 1.50 0.55 <NA> <NA> carol <NA> <NA>
"""


def test_a_turn_of_an_rttm_is_a_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "meeting.wav", "silent.wav")
    (tmp_path / "all.rttm").write_text(RTTM)
    corpus = read(tmp_path)
    assert names(corpus) == {"alice": ["meeting-0002"], "bob": ["meeting-0001", "meeting-0003"]}
    # A turn that ends up to 0.1 s after the recording ends with it.
    assert [each.part for each in corpus.speakers["bob"]] == [Span(0.10, 0.60), Span(1.50, 2.0)]
    assert "1 names are of no recording here, such as elsewhere" in caplog.text
    assert "1 names have no turn, and are left out, such as silent" in caplog.text


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("SPEAKER meeting 1 0.1", CorpusError, r"all\.rttm:1: expected 'SPEAKER RECORDING"),
        ("SPEAKER meeting 1 x 1 <NA> <NA> bob", CorpusError, r"all\.rttm:1: expected 'SPEAKER RECORDING"),
        ("SPEAKER meeting 1 -1 1 <NA> <NA> bob", CorpusError, "expected a start of 0 or more"),
        ("SPEAKER meeting 1 0 inf <NA> <NA> bob", CorpusError, "expected a start of 0 or more"),
        (
            "SPEAKER meeting 1 1 9 <NA> <NA> bob",
            AudioError,
            "meeting.wav, 1.00 to 10.00 s: the recording ends at 2.00 s",
        ),
        ("SPEAKER meeting 1 1 0.001 <NA> <NA> bob", AudioError, "shorter than one window"),
        ("SPEAKER other 1 1 1 <NA> <NA> bob", CorpusError, "no turn of a recording in this folder"),
    ],
)
def test_a_malformed_rttm_is_refused(line: str, error: type[LhucError], message: str, tmp_path: Path) -> None:
    made(tmp_path, "meeting.wav")
    (tmp_path / "all.rttm").write_text(line + "\n")
    with pytest.raises(error, match=message):
        read(tmp_path)


def test_transcripts_are_found_where_corpora_have_them(tmp_path: Path) -> None:
    made(tmp_path, "alice/a.wav", "alice/b.wav", "bob/c.wav")
    (tmp_path / "alice/a.lab").write_text("go on\n")
    (tmp_path / "alice/a.txt").write_text("not this\n")
    (tmp_path / "bob/c.txt").write_text("yes\nno\n")
    corpus = read(tmp_path)
    assert corpus.transcripts == {"a": ("GO", "ON"), "c": ("YES", "NO")}
    assert transcripts_of(corpus.transcripts, corpus.speakers["bob"]) == {"c": ("YES", "NO")}
    (tmp_path / "bob/bob.trans.txt").write_text("c THE OTHER\n")
    assert read(tmp_path).transcripts == {"a": ("GO", "ON"), "c": ("THE", "OTHER")}
    (tmp_path / "text").write_text("b whole\n")
    assert read(tmp_path).transcripts == {"a": ("GO", "ON"), "b": ("WHOLE",), "c": ("YES", "NO")}


def test_an_utterance_keeps_the_channel_that_its_corpus_names(tmp_path: Path) -> None:
    tones = [np.sin(0.1 * n * np.arange(32000)) * np.hanning(32000) * 0.3 for n in (1, 2)]
    soundfile.write(tmp_path / "both.wav", np.stack(tones, axis=1), 16000)
    said = [Utterance(f"u{n}", f"s{n}", "", tmp_path / "both.wav", 0.0, 2.0, "", channel=n) for n in (1, 2)]
    corpus = corpus_of(said)
    description: Any = SimpleNamespace(features=SimpleNamespace(sample_rate=16000))
    for number, theirs in enumerate(corpus.speakers.values(), start=1):
        (recording,) = theirs
        assert (recording.channel, recording.part) == (number, None)
        (cut,) = cut_all(theirs, description, "s", whole=True)
        assert cut.channel == number
        assert [piece.channel for piece in cut.pieces] == [number]
        # What the command asks for goes before it.
        (other,) = cut_all(theirs, description, "s", whole=True, channel=3 - number)
        assert other.channel == 3 - number
    lacking = corpus_of([replace(said[0], channel=3)])
    with pytest.raises(AudioError, match="channel 3 was asked for, expected 1 to 2"):
        list(cut_all(lacking.recordings, description, "s", whole=True))


def test_utterances_that_are_read_already_are_parts_of_their_recordings(tmp_path: Path) -> None:
    made(tmp_path, "x.wav")
    rows = [("u2", "bob", 0.5, 1.0, ""), ("u1", "alice", 0.0, 2.0, "GO ON")]
    corpus = corpus_of(
        Utterance(id, who, "", tmp_path / "x.wav", start, long, text) for id, who, start, long, text in rows
    )
    assert {s: [(each.name, each.part) for each in theirs] for s, theirs in corpus.speakers.items()} == {
        "alice": [("u1", None)],
        "bob": [("u2", Span(0.5, 1.5))],
    }
    assert corpus.transcripts == {"u1": ("GO", "ON")}
    gone = Utterance("u3", "bob", "", tmp_path / "gone.wav", 0.0, 1.0, "")
    problems: list[LhucError] = []
    assert corpus_of([gone], problems.append).speakers == {}
    assert "gone.wav: no such recording" in str(problems[0])
