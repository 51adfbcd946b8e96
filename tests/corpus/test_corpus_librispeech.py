"""A LibriSpeech of four readers, 3 utterances of half a second each."""

import os
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.corpus.librispeech import LibriSpeechSource, Reader, read_librispeech, read_speakers_table
from lhuc_asr.corpus.source import LanguageFiles

READERS = ("19", "26", "103", "1034")


@pytest.fixture
def root(tmp_path: Path, record) -> Path:
    for reader in READERS:
        chapter = tmp_path / "LibriSpeech" / "dev-clean" / reader / "7"
        ids = [f"{reader}-7-{number:04}" for number in range(3)]
        for id, ending in zip(ids, ("flac", "wav", "ogg"), strict=True):
            record(chapter / f"{id}.{ending}")
        lines = [f"{id} WORD  {number}" for number, id in enumerate(ids)]
        (chapter / f"{reader}-7.trans.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
        "19   | F | dev-clean        | 25.19 | Kara Shallenberg\n"
        "60   | M | train-clean-100  | 20.18 | A | B\n"
    )
    return tmp_path


def chapter_of(root: Path, reader: str) -> Path:
    return root / "LibriSpeech" / "dev-clean" / reader / "7"


def test_a_subset_is_read_whole(root: Path) -> None:
    reading = read_librispeech(root, ["dev-clean"])
    assert reading.skipped == []
    assert Counter(u.speaker for u in reading.utterances) == dict.fromkeys(READERS, 3)
    assert [u.speaker for u in reading.utterances] == [reader for reader in sorted(READERS) for _ in range(3)]
    first = reading.utterances[0]
    assert (first.id, first.text, first.start, first.seconds) == ("103-7-0000", "WORD 0", 0.0, 0.5)
    assert first.audio == chapter_of(root, "103") / "103-7-0000.flac"


def test_the_root_may_be_either_folder(root: Path) -> None:
    assert read_librispeech(root, ["dev-clean"]) == read_librispeech(root / "LibriSpeech", ["dev-clean"])


def test_the_paths_are_those_of_the_subsets_in_either_folder(root: Path) -> None:
    for folder in (root, root / "LibriSpeech"):
        source = LibriSpeechSource(dir=folder, train=("dev-clean",), test=("test-clean",))
        assert source.paths() == [root / "LibriSpeech" / name for name in ("dev-clean", "test-clean")]
        before = fingerprint(source.paths())
        with (chapter_of(root, "19") / "19-7.trans.txt").open("a") as transcript:
            transcript.write("19-7-0003 ANOTHER WORD\n")
        assert fingerprint(source.paths()) != before


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        ({"test": ["../../dev-clean"]}, "the subset '../../dev-clean' is not the name of a folder: it contains '/'"),
        ({"test": ["a", "a"]}, "a subset is named twice"),
        ({"train": ["a"], "test": ["a"]}, "a subset is named twice"),
        ({"test": ["heldout"]}, "'heldout' is the name of a split of the training speakers"),
        ({"test": []}, "test: Tuple should have at least 1 item"),
    ],
)
def test_subsets_that_would_be_mixed_up_are_refused(subsets: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(LibriSpeechSource, {"dir": "L", **subsets}, "recipe")


def test_a_subset_named_twice_is_read_once(root: Path) -> None:
    assert len(read_librispeech(root, ["dev-clean", "dev-clean"]).utterances) == 12


def test_hours_are_reached_evenly_and_repeatably(root: Path) -> None:
    hours = 6 * 0.5 / 3600
    parts = [read_librispeech(root, ["dev-clean"], hours=hours, seed=seed).utterances for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    for part in parts:
        assert len(part) == 6
        assert sorted(Counter(u.speaker for u in part).values()) == [1, 1, 2, 2]


def test_more_hours_hold_fewer_hours(root: Path) -> None:
    parts = [
        {u.id for u in read_librispeech(root, ["dev-clean"], hours=count * 0.5 / 3600, seed=3).utterances}
        for count in range(1, 13)
    ]
    assert [len(part) for part in parts] == list(range(1, 13))
    assert all(shorter < longer for shorter, longer in pairwise(parts))


def test_hours_that_are_not_there(root: Path) -> None:
    with pytest.raises(CorpusError, match=r"asked for 2 hours, but the chosen readers have only 0\.00"):
        read_librispeech(root, ["dev-clean"], hours=2)
    with pytest.raises(CorpusError, match="expected a number above 0"):
        read_librispeech(root, ["dev-clean"], hours=0)


def test_readers_are_chosen_by_name_or_number(root: Path) -> None:
    named = read_librispeech(root, ["dev-clean"], speakers=["26", "19"])
    assert {u.speaker for u in named.utterances} == {"19", "26"}
    draws = [
        {u.speaker for u in read_librispeech(root, ["dev-clean"], speakers=2, seed=seed).utterances}
        for seed in range(10)
    ]
    assert {len(draw) for draw in draws} == {2}
    assert set().union(*draws) == set(READERS)
    with pytest.raises(CorpusError, match="no reader 20; readers there: 103, 1034, 19, 26"):
        read_librispeech(root, ["dev-clean"], speakers=["19", "20"])
    with pytest.raises(CorpusError, match="asked for 5 readers, but there are only 4"):
        read_librispeech(root, ["dev-clean"], speakers=5)


def test_what_lacks_its_other_half_is_skipped(root: Path, record) -> None:
    chapter = chapter_of(root, "19")
    (chapter / "19-7-0001.wav").unlink()
    record(chapter / "19-7-0009.flac")
    (chapter / "19-7-0002.ogg").write_bytes(b"")
    reading = read_librispeech(root, ["dev-clean"])
    assert len(reading.utterances) == 10
    assert [skip.id for skip in reading.skipped] == ["19-7-0001", "19-7-0002", "19-7-0009"]
    no_audio, empty, no_text = (skip.reason for skip in reading.skipped)
    assert "no recording 19-7-0001.flac" in no_audio
    assert "empty" in empty
    assert "no transcript in" in no_text


def test_a_chapter_without_transcripts_is_skipped(root: Path) -> None:
    (chapter_of(root, "19") / "19-7.trans.txt").unlink()
    reading = read_librispeech(root, ["dev-clean"])
    assert len(reading.skipped) == 3
    assert all("no transcript" in skip.reason for skip in reading.skipped)


@pytest.mark.parametrize(
    ("line", "message"),
    [("19-7-0000 AGAIN", ":4: 19-7-0000 appears twice"), ("20-7-0000 WORD", "expected an utterance id 19-7-NNNN")],
)
def test_a_wrong_line_of_a_transcript_is_named(root: Path, line: str, message: str) -> None:
    path = chapter_of(root, "19") / "19-7.trans.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=message) as caught:
        read_librispeech(root, ["dev-clean"])
    assert f"{path}:4" in str(caught.value)


def test_a_transcript_in_another_encoding(root: Path) -> None:
    (chapter_of(root, "19") / "19-7.trans.txt").write_bytes("19-7-0000 CAFÉ\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"19-7\.trans\.txt:1: expected UTF-8 text, found byte 0xc9"):
        read_librispeech(root, ["dev-clean"])


def test_one_utterance_in_two_formats(root: Path, record) -> None:
    record(chapter_of(root, "19") / "19-7-0000.wav")
    with pytest.raises(CorpusError, match=r"19-7-0000\.wav: duplicates 19-7-0000\.flac; keep one of them"):
        read_librispeech(root, ["dev-clean"])


def test_a_reader_whose_folder_may_not_be_read_is_not_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(folder: Path | str, allowed: Callable[..., Any] = os.scandir) -> Any:
        return refused(folder) if str(folder).endswith("/19") else allowed(folder)

    def listdir(folder: Path | str, allowed: Callable[..., Any] = os.listdir) -> Any:
        return refused(folder) if str(folder).endswith("/19") else allowed(folder)

    def refused(folder: Path | str) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(CorpusError, match=r"dev-clean/19: cannot be read \(Permission denied\); change its perm"):
        read_librispeech(root, ["dev-clean"])


def test_wrong_places_say_what_was_expected_and_found(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no LibriSpeech subset 'dev-other'; subsets there: dev-clean"):
        read_librispeech(root, ["dev-other"])
    with pytest.raises(CorpusError, match=r"no such folder; expected LibriSpeech as <root>/<subset>/<reader>"):
        read_librispeech(tmp_path / "nowhere", ["dev-clean"])
    with pytest.raises(CorpusError, match=r"expected <root>/<subset>.*, found 103, 1034, 19, 26"):
        read_librispeech(root / "LibriSpeech" / "dev-clean", ["dev-clean"])


def test_the_table_of_readers(root: Path) -> None:
    assert read_speakers_table(root) == {
        "19": Reader("F", "dev-clean", 25.19, "Kara Shallenberg"),
        "60": Reader("M", "train-clean-100", 20.18, "A | B"),
    }
    path = root / "LibriSpeech" / "SPEAKERS.TXT"
    path.write_text("19 | F | dev-clean | many | Kara\n")
    with pytest.raises(CorpusError, match=r"SPEAKERS.TXT:1: expected 'ID \| SEX"):
        read_speakers_table(root)
    path.unlink()
    with pytest.raises(CorpusError, match=r"SPEAKERS\.TXT: no such file"):
        read_speakers_table(root)


def test_transcripts_are_normalised_and_their_tags_mapped(root: Path) -> None:
    path = chapter_of(root, "19") / "19-7.trans.txt"
    path.write_text("\ufeff19-7-0000 don\u2019t\u00a0[noise] go\r\n", encoding="utf-8")
    said = {u.id: u.text for u in read_librispeech(root, ["dev-clean"]).utterances}
    assert said["19-7-0000"] == "DON'T <NOISE> GO"
    path.write_text("19-7-0000 go <door>\n")
    with pytest.raises(CorpusError, match=r"19-7\.trans\.txt:1: unknown tag '<DOOR>'"):
        read_librispeech(root, ["dev-clean"])
    assert read_librispeech(root, ["dev-clean"], own_tags={"<DOOR>"})


def test_lexicon_and_language_model_lie_beside_the_subsets_or_one_folder_higher(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lhuc_asr.corpus.librispeech.cmudict_path", lambda: tmp_path / "cmudict.dict")
    home = root / "LibriSpeech"
    sources = [LibriSpeechSource(dir=folder) for folder in (root, home)]
    assert {source.language_files() for source in sources} == {LanguageFiles(tmp_path / "cmudict.dict", None)}
    (root / "librispeech-lexicon.txt").touch()
    (home / "4-gram.arpa.gz").touch()
    (home / "3-gram.pruned.1e-7.arpa").touch()
    found = LanguageFiles(root / "librispeech-lexicon.txt", home / "3-gram.pruned.1e-7.arpa")
    assert {source.language_files() for source in sources} == {found}
    (root / "3-gram.pruned.3e-7.arpa.gz").touch()
    assert {source.language_files().arpa for source in sources} == {root / "3-gram.pruned.3e-7.arpa.gz"}
