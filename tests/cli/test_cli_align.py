"""``lhuc-asr align`` as typed: a recording and its words, and a corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from praatio import textgrid

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.corpus.kaldi_dir import write_kaldi_dir


@pytest.fixture(scope="module")
def said(finished: Path) -> list[Utterance]:
    """Two utterances of each training speaker, whose words the lexicon has."""
    utterances = read_manifest(finished / "corpus" / "train.jsonl")
    return [u for n, u in enumerate(utterances) if n < 2 or utterances[n - 2].speaker != u.speaker]


def test_a_recording_and_its_words(
    finished: Path, said: list[Utterance], tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    one = said[0]
    (tmp_path / "words.txt").write_text(one.text.lower().replace(" ", "\n"))
    shown = {}
    for form in ("json", "ctm", "phone-ctm", "textgrid"):
        assert command("align", finished, one.audio, tmp_path / "words.txt", "--format", form) in (0, None)
        shown[form] = capsys.readouterr().out
    (row,) = json.loads(shown["json"])
    assert row["text"] == one.text
    assert [line.split()[4] for line in shown["ctm"].splitlines()] == list(one.words)
    assert [line.split()[4] for line in shown["phone-ctm"].splitlines()] == [each["phone"] for each in row["phones"]]
    (tmp_path / "x.TextGrid").write_text(shown["textgrid"])
    grid = textgrid.openTextgrid(str(tmp_path / "x.TextGrid"), includeEmptyIntervals=False)
    assert grid.tierNames == ("words", "phones")
    for name, key, label in (("words", "words", "word"), ("phones", "phones", "phone")):
        expected = [(each["start"], each["end"], each[label]) for each in row[key]]
        assert [tuple(entry) for entry in grid.getTier(name).entries] == expected


def test_a_corpus_as_the_montreal_forced_aligner_takes_it(
    finished: Path, said: list[Utterance], tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "aligned"
    for utterance in said:
        copy = corpus / utterance.speaker / utterance.audio.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(utterance.audio, copy)
        copy.with_suffix(".lab").write_text(utterance.text)
    for _ in range(2):  # the second time over what is there
        assert command("align", finished, corpus, "-o", f"{out}/") in (0, None)
    grids = {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.TextGrid")}
    assert grids == {f"{u.speaker}/{u.audio.stem}" for u in said}
    assert command("align", finished, corpus, "--format", "ctm", "-o", tmp_path / "all.ctm") in (0, None)
    rows = [line.split() for line in (tmp_path / "all.ctm").read_text().splitlines()]
    for utterance in said:
        assert [row[4] for row in rows if row[0] == utterance.audio.stem] == list(utterance.words)
    one = said[0]
    (out / one.speaker / f"{one.audio.stem}.TextGrid").write_text("by hand")
    assert "is not a transcript" in str(command("align", finished, corpus, "-o", out))
    (corpus / one.speaker / f"{one.audio.stem}.lab").unlink()
    message = str(command("align", finished, corpus, "-o", f"{tmp_path}/others/"))
    assert f"left out 1 of {len(said)} recordings" in message
    assert f"no transcript for '{one.audio.stem}'" in message


def test_a_kaldi_folder_is_a_corpus_too(
    finished: Path, said: list[Utterance], tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kaldi_dir(tmp_path / "data", said)
    assert command("align", finished, tmp_path / "data", "--format", "json") in (0, None)
    texts = sorted(row["text"] for row in json.loads(capsys.readouterr().out))
    assert texts == sorted(utterance.text for utterance in said)


def test_what_does_not_fit_is_told(finished: Path, said: list[Utterance], tmp_path: Path, command) -> None:
    shutil.copy(said[0].audio, tmp_path / "a.flac")
    assert "no transcripts; give a TEXT, or write" in str(command("align", finished, tmp_path))
    assert "is not a folder; a corpus is" in str(command("align", finished, tmp_path / "a.flac"))
    assert command("align", finished, tmp_path, "--speaker", "x") == 2
    (tmp_path / "a.txt").write_text(said[0].text)
    assert str(command("align", finished, tmp_path / "a.flac", tmp_path / "a.txt", "-o", tmp_path / "a.txt")).endswith(
        "choose another output"
    )
    assert "TextGrid holds one recording, found 2" in str(
        shutil.copy(said[0].audio, tmp_path / "b.flac") and command("align", finished, tmp_path)
    )
