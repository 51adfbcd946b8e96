"""Kaldi data directories: read, refused, written and read again."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.kaldi_dir import read_kaldi_dir, write_kaldi_dir
from lhuc_asr.corpus.validate import validate


@pytest.fixture
def data(tmp_path: Path, record: Callable[..., Path]) -> Path:
    folder = tmp_path / "data"
    record(folder / "rec1.wav", seconds=2.0)
    (folder / "wav.scp").write_text(f"rec1 {folder / 'rec1.wav'}\n")
    (folder / "segments").write_text("a-1 rec1 0.25 0.75\nb-1 rec1 1.0 2.0\n")
    (folder / "text").write_text("a-1 YES  NO\nb-1 GO\n")
    (folder / "utt2spk").write_text("a-1 a\nb-1 b\n")
    return folder


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def test_segments(data: Path) -> None:
    (data / "utt2env").write_text("b-1 cafe\n")
    first, second = read_kaldi_dir(data).utterances
    assert first == Utterance("a-1", "a", "", data / "rec1.wav", 0.25, 0.5, "YES NO")
    assert second == Utterance("b-1", "b", "cafe", data / "rec1.wav", 1.0, 1.0, "GO")


def test_a_segment_to_the_end_and_one_of_a_channel(data: Path) -> None:
    (data / "segments").write_text("a-1 rec1 0.25 -1\nb-1 rec1 1.0 2.0 1\na-2 rec1 2.0 -1.0 0\n")
    append(data / "utt2spk", "a-2 a")
    reading = read_kaldi_dir(data)
    first, second = reading.utterances
    assert (first.start, first.seconds, first.channel) == (0.25, 1.75, None)
    assert (second.start, second.seconds, second.channel) == (1.0, 1.0, 2)
    [skip] = reading.skipped
    assert (skip.id, skip.reason) == ("a-2", f"{data / 'rec1.wav'}: 2 s long, and the segment starts at 2 s")


def test_channels_come_back(data: Path, tmp_path: Path) -> None:
    (data / "segments").write_text("a-1 rec1 0.0 2.0 1\nb-1 rec1 0.0 2.0\n")
    utterances = read_kaldi_dir(data).utterances
    assert [utterance.channel for utterance in utterances] == [2, None]
    write_kaldi_dir(tmp_path / "copy", utterances)
    assert read_kaldi_dir(tmp_path / "copy").utterances == utterances


def test_the_conversion_that_the_message_names_works(data: Path) -> None:
    """The line is typed here by the one who trusts the file."""
    (data / "wav.scp").write_text(f"rec1 cat {data / 'rec1.wav'} |\nrec2 cat < {data / 'rec1.wav'} |\n")
    with pytest.raises(CorpusError) as caught:
        read_kaldi_dir(data)
    line = re.search(r"convert its recordings: (.*), and name", str(caught.value))[1]
    original = (data / "rec1.wav").read_bytes()
    converted = data / "converted"
    converted.mkdir()
    (converted / "wav.scp").write_bytes((data / "wav.scp").read_bytes())
    subprocess.run(["bash", "-c", line], cwd=converted, check=True)
    assert [(converted / "wav" / f"rec{n}.wav").read_bytes() for n in (1, 2)] == [original, original]


def test_without_segments_an_utterance_is_a_recording(data: Path) -> None:
    (data / "segments").unlink()
    (data / "text").unlink()
    (data / "utt2spk").write_text("rec1 a\n")
    assert read_kaldi_dir(data).utterances == [Utterance("rec1", "a", "", data / "rec1.wav", 0.0, 2.0, "")]


def test_relative_paths(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "wav.scp").write_text("rec1 rec1.wav\n")
    assert read_kaldi_dir(data).utterances[0].audio == data / "rec1.wav"
    (data / "wav.scp").write_text("rec1 data/rec1.wav\n")
    monkeypatch.chdir(data.parent)
    assert read_kaldi_dir(Path("data")).utterances[0].audio == data / "rec1.wav"


@pytest.mark.parametrize("entry", ["touch {} && cat rec1.wav |", "| touch {}"])
def test_shell_commands_are_refused_and_not_run(data: Path, tmp_path: Path, entry: str) -> None:
    ran = tmp_path / "ran"
    append(data / "wav.scp", f"rec2 {entry.format(ran)}")
    with pytest.raises(CorpusError, match=r"wav\.scp:2: .* is a shell command, and commands in data are never run"):
        read_kaldi_dir(data)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("wav.scp", "rec1 other.wav", r"wav\.scp:2: rec1 appears twice, first at .*wav\.scp:1"),
        ("wav.scp", "rec2", r"wav\.scp:2: expected a recording's path"),
        ("text", "a-1 AGAIN", r"text:3: a-1 appears twice"),
        ("segments", "c-1 rec1 0.5 1.0", r"segments:3: utterance c-1 is not in .*utt2spk"),
        (
            "segments",
            "a-2 rec1 1.0 1.0",
            r"segments:3: expected 0 <= start < end, or -1 as the end, found 1\.0 and 1\.0",
        ),
        (
            "segments",
            "a-2 rec1 -0.5 1.0",
            r"segments:3: expected 0 <= start < end, or -1 as the end, found -0\.5 and 1\.0",
        ),
        ("segments", "a-2 rec1 0.5 nan", r"segments:3: expected 0 <= start < end"),
        ("segments", "a-2 rec9 0.5 1.0", r"segments:3: recording rec9 is not in wav\.scp"),
        ("segments", "a-2 rec1 0.5 -2", r"segments:3: expected 0 <= start < end, or -1 as the end, found 0\.5 and -2"),
        ("segments", "a-2 rec1 0.5 1 A", r"segments:3: expected 'UTTERANCE RECORDING START END \[CHANNEL\]'"),
        ("segments", "a-2 rec1 0.5 1 -1", r"segments:3: expected one channel, from 0, found -1"),
        ("segments", "a-2 rec1 0.5 1 0 1", r"segments:3: expected one channel, from 0, found 0 1"),
        ("segments", "a-2 rec1 0.5", r"segments:3: expected 'UTTERANCE RECORDING START END \[CHANNEL\]'"),
        ("segments", "a-2 rec1 0.5 late", r"segments:3: expected 'UTTERANCE RECORDING START END \[CHANNEL\]'"),
    ],
)
def test_a_wrong_line_is_named(data: Path, file: str, line: str, message: str) -> None:
    append(data / file, line)
    with pytest.raises(CorpusError, match=message):
        read_kaldi_dir(data)


@pytest.mark.parametrize(("file", "line"), [("utt2spk", "c-1"), ("utt2spk", "c-1 c d"), ("utt2env", "a-1")])
def test_a_speaker_and_an_environment_are_one_word(data: Path, file: str, line: str) -> None:
    append(data / "segments", "c-1 rec1 0.5 1.0")
    append(data / file, line)
    with pytest.raises(CorpusError, match=rf"{file}:\d: expected an id and one name, found"):
        read_kaldi_dir(data)


def test_missing_files_are_named(data: Path, tmp_path: Path) -> None:
    (data / "utt2spk").unlink()
    with pytest.raises(CorpusError, match="utt2spk: no such file"):
        read_kaldi_dir(data)
    with pytest.raises(CorpusError, match="expected a Kaldi data directory"):
        read_kaldi_dir(tmp_path / "nowhere")


def test_orphans_are_skipped(data: Path) -> None:
    append(data / "text", "z-1 WORDS")
    append(data / "utt2spk", "z-2 z")
    reading = read_kaldi_dir(data)
    assert [skip.id for skip in reading.skipped] == ["z-1", "z-2"]
    assert all("no recording or segment of that id" in skip.reason for skip in reading.skipped)
    assert "text:3" in reading.skipped[0].reason


def test_a_segment_past_the_end_is_found_by_validation(data: Path) -> None:
    append(data / "segments", "a-2 rec1 1.5 2.5")
    append(data / "utt2spk", "a-2 a")
    result = validate(read_kaldi_dir(data), require_text=False, max_skipped=0.5)
    (skip,) = result.skipped
    assert skip.id == "a-2"
    assert "it lasts 2.000 s, but utterance a-2 ends at 2.500 s" in skip.reason


def test_whole_recordings_come_back(tmp_path: Path, spoken) -> None:
    utterances = [spoken("a-1"), replace(spoken("a-2", text=""), environment="cafe"), spoken("b-1", "b")]
    write_kaldi_dir(tmp_path / "out", utterances)
    assert read_kaldi_dir(tmp_path / "out").utterances == utterances
    assert not (tmp_path / "out" / "segments").exists()
    assert (tmp_path / "out" / "spk2utt").read_text() == "a a-1 a-2\nb b-1\n"


def test_segments_come_back(tmp_path: Path, spoken) -> None:
    whole = spoken("a-1", seconds=2.0)
    utterances = [replace(whole, seconds=0.5), replace(whole, id="a-2", start=0.75, seconds=1.25), spoken("a-3")]
    write_kaldi_dir(tmp_path / "out", utterances)
    assert read_kaldi_dir(tmp_path / "out").utterances == utterances
    assert len((tmp_path / "out" / "wav.scp").read_text().splitlines()) == 2


def test_tables_are_sorted_by_utterance_and_by_speaker(tmp_path: Path, spoken) -> None:
    write_kaldi_dir(tmp_path / "out", [spoken("an1", "m"), spoken("an2", "f"), spoken("f-an0", "f")])
    rows = [line.split() for line in (tmp_path / "out" / "utt2spk").read_text().splitlines()]
    assert rows == [["f-an0", "f"], ["f-an2", "f"], ["m-an1", "m"]]


def test_two_utterances_may_not_get_one_id(tmp_path: Path, spoken) -> None:
    with pytest.raises(CorpusError, match="both would get the id m-an1"):
        write_kaldi_dir(tmp_path / "out", [spoken("an1", "m"), spoken("m-an1", "m")])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, spoken) -> None:
    write_kaldi_dir(tmp_path / "out", [spoken("a-1"), spoken("a-2")])
    write_kaldi_dir(tmp_path / "out", [spoken("a-1")])
    assert len(read_kaldi_dir(tmp_path / "out").utterances) == 1
    (tmp_path / "out" / "feats.scp").touch()
    with pytest.raises(CorpusError, match=r"holds feats\.scp, which is not ours to replace"):
        write_kaldi_dir(tmp_path / "out", [spoken("a-1")])


def test_what_a_table_cannot_carry_is_not_written(tmp_path: Path, spoken, record) -> None:
    with pytest.raises(CorpusError, match="'a b' cannot stand in a Kaldi table"):
        write_kaldi_dir(tmp_path / "out", [replace(spoken("a-1"), speaker="a b")])
    with pytest.raises(CorpusError, match=r"cannot stand in wav\.scp"):
        write_kaldi_dir(
            tmp_path / "out", [replace(spoken("a-1"), audio=record(tmp_path / "x.wav").rename(tmp_path / "x|"))]
        )
    with pytest.raises(CorpusError, match="at least one utterance"):
        write_kaldi_dir(tmp_path / "out", [])


@pytest.mark.parametrize("name", ["wav.scp", "segments", "text", "utt2spk", "utt2env"])
def test_byte_order_marks_line_ends_and_spaces_of_other_systems(data: Path, name: str) -> None:
    (data / "utt2env").write_text("a-1 home\nb-1 cafe\n")
    expected = read_kaldi_dir(data)
    path = data / name
    for first, *others in (["\ufeff", "\ufeff"], ["\ufeff\ufeff"], ["\u200b"], ["a\u00ad"[1:]]):
        lines = path.read_text().splitlines()
        marks = [first, *others, *[""] * len(lines)]
        changed = "\r\n".join(mark + line for mark, line in zip(marks, lines, strict=False))
        before = path.read_bytes()
        path.write_bytes(changed.encode())
        assert read_kaldi_dir(data) == expected
        path.write_bytes(before)
    path.write_bytes(path.read_bytes().replace(b" ", "\u00a0".encode(), 1).replace(b"\n", b"\r"))
    assert read_kaldi_dir(data) == expected


def test_transcripts_are_normalised_and_their_tags_mapped(data: Path) -> None:
    (data / "text").write_text(
        "a-1 don\u2019t [LAUGHTER] cafe\u0301 <unk>\nb-1 g\u200bo\u00a0<door>\n", encoding="utf-8"
    )
    first, second = read_kaldi_dir(data, own_tags={"<DOOR>"}).utterances
    assert first.words == ("DON'T", "<NOISE>", "CAF\u00c9", "<unk>")
    assert second.words == ("GO", "<DOOR>")
    with pytest.raises(CorpusError, match=r"text:2: unknown tag '<DOOR>'"):
        read_kaldi_dir(data)


def test_ids_in_both_unicode_forms_are_one(data: Path) -> None:
    for name in ("segments", "utt2spk", "text"):
        form = "zo\u00eb" if name == "text" else "zoe\u0308"
        path = data / name
        path.write_text(path.read_text().replace("a-1 a", "a-1 zoe\u0308").replace("a-1", form), encoding="utf-8")
    reading = read_kaldi_dir(data)
    assert reading.skipped == []
    assert [(u.id, u.speaker, u.text) for u in reading.utterances][-1] == ("zo\u00eb", "zo\u00eb", "YES NO")
