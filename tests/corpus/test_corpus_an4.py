"""Both layouts of AN4, made by hand; and the real one where it is there."""

import os
from pathlib import Path

import pytest

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.an4 import an4_lexicon, read_an4
from lhuc_asr.corpus.validate import validate


@pytest.fixture
def cmu(tmp_path: Path, record) -> Path:
    record(tmp_path / "wav" / "an4_clstk" / "fash" / "an251-fash-b.wav")
    record(tmp_path / "wav" / "an4_clstk" / "mblb" / "cen1-mblb-b.flac")
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "an4_train.fileids").write_text("an4_clstk/mblb/cen1-mblb-b\nan4_clstk/fash/an251-fash-b\n")
    (etc / "an4_train.transcription").write_text(
        "<s> YES <sil> ++NOISE++ NO </s> (an251-fash-b)\nP I T (cen1-mblb-b)\n"
    )
    return tmp_path


@pytest.fixture
def packed(tmp_path: Path, record) -> Path:
    record(tmp_path / "audio" / "train" / "fash" / "an251-fash-b.flac")
    record(tmp_path / "audio" / "test" / "fcaw" / "an409-fcaw-b.flac")
    (tmp_path / "utts.tsv").write_text(
        "utt_id\tspeaker\tsplit\tpath\tn_samples\tsample_rate\ttext\n"
        "an251-fash-b\tfash\ttrain\taudio/train/fash/an251-fash-b.flac\t8000\t16000\tYES\n"
        "an409-fcaw-b\tfcaw\ttest\taudio/test/fcaw/an409-fcaw-b.flac\t8000\t16000\t\n"
    )
    return tmp_path


def test_cmu_layout(cmu: Path) -> None:
    reading = read_an4(cmu, "train")
    assert reading.skipped == []
    assert [(u.speaker, u.id, u.text, u.seconds) for u in reading.utterances] == [
        ("fash", "an251-fash-b", "YES <NOISE> NO", 0.5),
        ("mblb", "cen1-mblb-b", "P I T", 0.5),
    ]
    assert len(validate(reading).utterances) == 2


def test_packed_layout(packed: Path) -> None:
    (train,) = read_an4(packed, "train").utterances
    assert (train.speaker, train.text, train.seconds) == ("fash", "YES", 0.5)
    assert train.audio == packed / "audio" / "train" / "fash" / "an251-fash-b.flac"
    (test,) = read_an4(packed, "test").utterances
    assert (test.speaker, test.text) == ("fcaw", "")


def test_what_is_not_in_all_three_places_is_skipped(cmu: Path) -> None:
    etc = cmu / "etc"
    with (etc / "an4_train.fileids").open("a") as file:
        file.write("an4_clstk/fash/an252-fash-b\n")
    (etc / "an4_train.transcription").write_text("YES (an251-fash-b)\nNO (an9-fash-b)\n")
    reading = read_an4(cmu, "train")
    assert [u.id for u in reading.utterances] == ["an251-fash-b"]
    reasons = {skip.id: skip.reason for skip in reading.skipped}
    assert "no such recording" in reasons["an252-fash-b"]
    assert "no transcript in" in reasons["cen1-mblb-b"]
    assert "but not in" in reasons["an9-fash-b"]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("transcription", "YES", r"transcription:3: expected 'WORDS \(utterance-id\)', found 'YES'"),
        ("transcription", "YES (an251-fash-b)", "transcription:3: an251-fash-b appears twice"),
        ("fileids", "an253", "fileids:3: expected <folder>/<speaker>/<utterance>, found 'an253'"),
    ],
)
def test_a_wrong_line_is_named(cmu: Path, name: str, line: str, message: str) -> None:
    with (cmu / "etc" / f"an4_train.{name}").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CorpusError, match=message):
        read_an4(cmu, "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [("a\tb\ttrain\tc.flac\tmany\t16000\tYES", "utts.tsv:4"), ("a\tb\ttrain", "utts.tsv:4")],
)
def test_a_wrong_row_is_named(packed: Path, row: str, message: str) -> None:
    with (packed / "utts.tsv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(CorpusError, match=message):
        read_an4(packed, "train")


def test_other_columns_are_refused(packed: Path) -> None:
    (packed / "utts.tsv").write_text("id\ttext\n")
    with pytest.raises(CorpusError, match=r"utts.tsv:1: expected the columns utt_id, speaker"):
        read_an4(packed, "train")


def test_a_folder_that_is_not_an4(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no AN4 here; expected etc/an4_test.fileids"):
        read_an4(tmp_path, "test")
    with pytest.raises(CorpusError, match="has the splits train and test, not 'dev'"):
        read_an4(tmp_path, "dev")  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match=r"an4.dic: no such file"):
        an4_lexicon(tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize(("split", "speakers", "utterances"), [("train", 74, 948), ("test", 10, 130)])
def test_the_real_corpus_is_whole(split, speakers: int, utterances: int) -> None:
    root = Path(os.environ["LHUC_ASR_DATA"]) / "an4"
    result = validate(read_an4(root, split), max_skipped=0.0)
    assert len(result.utterances) == utterances
    assert len({u.speaker for u in result.utterances}) == speakers
    assert an4_lexicon(root).is_file()
