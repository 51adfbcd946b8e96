"""Tables of recordings: columns by any of their names, parts of recordings, lines that are refused."""

import gzip

import pytest

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.csv_table import read_csv_table


@pytest.fixture
def table(tmp_path, record):
    record(tmp_path / "clips" / "one.wav", seconds=0.5)
    record(tmp_path / "clips" / "two.wav", seconds=2.0)

    def write(text, name="table.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_whole_recordings(table, tmp_path):
    path = table('audio,speaker,text\nclips/one.wav,ann,"Yes, I do"\nclips/two.wav,bob,no\n')
    assert read_csv_table(path).utterances == [
        Utterance("one", "ann", "", tmp_path / "clips" / "one.wav", 0.0, 0.5, "YES, I DO"),
        Utterance("two", "bob", "", tmp_path / "clips" / "two.wav", 0.0, 2.0, "NO"),
    ]


def test_common_voice(table, tmp_path):
    """Its quotation marks are text, not quotes of cells; its last columns may be empty."""
    path = table('client_id\tpath\tsentence\tup_votes\tgender\nab12\tclips/one.wav\t"Yes\t2\t\n', "train.tsv")
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in (path, path.with_suffix(".gz")):
        [utterance] = read_csv_table(name).utterances
        assert (utterance.speaker, utterance.text) == ("ab12", '"YES')


def test_parts_of_recordings_channels_and_environments(table):
    path = table(
        "Speaker;Text;Audio;Begin;End;Channel;Environment\n"
        "ann;yes;clips/two.wav;0.25;0.75;2;cafe\nann;no;clips/two.wav;1.5;;;\n"
    )
    first, second = read_csv_table(path).utterances
    assert (first.id, first.start, first.seconds, first.channel, first.environment) == ("two-2", 0.25, 0.5, 2, "cafe")
    assert (second.id, second.start, second.seconds, second.channel, second.environment) == (
        "two-3",
        1.5,
        0.5,
        None,
        "",
    )


def test_a_cell_over_two_lines_and_the_line_that_follows(table):
    path = table('id,audio,speaker,text\na,clips/one.wav,ann,"yes\nno"\nb,clips/one.wav,,go\n')
    with pytest.raises(CorpusError, match=r"table\.csv:4: the cell speaker is empty"):
        read_csv_table(path)
    path = table('id,audio,speaker,text\na,clips/one.wav,ann,"yes\nno"\n')
    assert read_csv_table(path).utterances[0].words == ("YES", "NO")


def test_a_recording_that_is_missing_is_left_out(table):
    [skip] = read_csv_table(table("audio,speaker,text\nclips/three.wav,ann,yes\n")).skipped
    assert skip.id == "three"
    assert "three.wav" in skip.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv: is empty; expected a line of column names: audio, speaker, text"),
        ("audio,text\n", r"table\.csv:1: no column speaker; found 'audio,text'|found 'audio, text'"),
        ("audio,path,speaker,text\n", r"table\.csv:1: 2 columns are the audio; rename all but one"),
        ("audio,speaker,text\nclips/one.wav,ann,a,b\n", r"table\.csv:2: 4 cells, expected 3; quote cells with ','"),
        ("audio,speaker,text\n,ann,yes\n", r"table\.csv:2: the cell audio is empty"),
        ("audio,speaker,text,start\nclips/one.wav,ann,a,x\n", r"table\.csv:2: start: expected seconds .*, found 'x'"),
        ("audio,speaker,text,start\nclips/one.wav,ann,a,-1\n", r"table\.csv:2: start: expected seconds"),
        (
            "audio,speaker,text,start\nclips/one.wav,ann,a,1\n",
            r"table\.csv:2: the utterance ends at 0\.5 s, expected an",
        ),
        ("audio,speaker,text,channel\nclips/one.wav,ann,a,0\n", r"table\.csv:2: channel: expected a number from 1, f"),
        ("audio,speaker,text\nclips/one.wav,ann,a [b]\n", r"table\.csv:2: unknown tag '\[B\]'"),
    ],
)
def test_what_is_refused(table, text, message):
    with pytest.raises(CorpusError, match=message):
        read_csv_table(table(text))
