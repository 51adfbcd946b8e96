"""Files of transcripts: where they are, what they may replace, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lhuc_asr.audio.formats import AudioInfo
from lhuc_asr.base.destinations import Inputs
from lhuc_asr.base.errors import CorpusError, OutputError
from lhuc_asr.recognizer.recordings import Recording
from lhuc_asr.recognizer.transcript import Transcript, Word
from lhuc_asr.recognizer.transcript_files import TranscriptFiles
from lhuc_asr.recognizer.transcript_formats import Format, check_holds

NAMED = [Recording(name, Path(f"{name}.wav"), AudioInfo(16000, 1, 16000, 1.0), f"{name}.wav") for name in "ab"]
VOCABULARY = {"GO", "ON"}


def said(name: str, *words: str) -> Transcript:
    return Transcript(name, Path(f"{name}.wav"), 1.0, tuple(Word(word, 0.0, 1.0, 1.0) for word in words))


def files(output: Path | str, *, overwrite: bool = False) -> TranscriptFiles:
    return TranscriptFiles.at(str(output), "txt", NAMED, overwrite=overwrite)


def test_a_folder_has_a_file_a_recording_each_as_soon_as_it_is_finished(tmp_path: Path) -> None:
    def transcripts() -> Iterator[Transcript]:
        yield said("a", "GO")
        assert (tmp_path / "new/a.txt").read_text() == "a GO\n"
        yield said("b")

    files(f"{tmp_path}/new/").write(transcripts())
    assert files(tmp_path / "new").done(NAMED) == {"a", "b"}
    (tmp_path / "new/b.txt").unlink()
    assert files(tmp_path / "new").done(NAMED) == {"a"}


def test_a_file_has_all_recordings(tmp_path: Path) -> None:
    whole = files(tmp_path / "all.txt")
    assert whole.done(NAMED) == set()
    whole.write([said("a", "GO"), said("b")])
    assert (tmp_path / "all.txt").read_text() == "a GO\nb\n"
    assert whole.done(NAMED) == {"a", "b"}


@pytest.mark.parametrize(("form", "content"), [("txt", "a GO\n"), ("txt", ""), ("json", "[]"), ("json", "{")])
def test_a_file_that_lacks_a_recording_is_not_taken_for_finished(form: Format, content: str, tmp_path: Path) -> None:
    (tmp_path / "all").write_text(content)
    with pytest.raises(OutputError, match=r"all: exists and lacks [12] of 2 recordings, such as [ab]\.wav; go without"):
        TranscriptFiles.at(str(tmp_path / "all"), form, NAMED, overwrite=False).done(NAMED)


def test_an_empty_file_and_a_device_hold_no_transcript(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert files(tmp_path).done(NAMED) == set()
    assert files("/dev/null").done(NAMED) == set()
    (tmp_path / "a.ctm").touch()  # a recording without words
    assert TranscriptFiles.at(str(tmp_path), "ctm", NAMED, overwrite=False).done(NAMED) == {"a"}


def test_captions_of_several_recordings_are_in_a_folder(tmp_path: Path) -> None:
    captions = TranscriptFiles.at(str(tmp_path / "new"), "srt", NAMED, overwrite=False)
    assert captions.paths == [tmp_path / "new/a.srt", tmp_path / "new/b.srt"]
    assert TranscriptFiles.at(str(tmp_path / "new"), "srt", NAMED[:1], overwrite=False).paths == [tmp_path / "new"]
    check_holds("srt", 1)
    with pytest.raises(CorpusError, match="SRT holds one recording, found 2; write them to a folder"):
        check_holds("srt", 2)


@pytest.mark.parametrize("content", [b"The reference.\n", b"a THE REFERENCE\n", b"c GO ON\n", b"RIFF\xff\x00"])
def test_a_file_of_somebody_else_is_not_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    for output in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(OutputError, match=r"a\.txt: exists and is not a transcript .*--overwrite"):
            files(output).check_contents(NAMED, VOCABULARY)
        files(output, overwrite=True).check_contents(NAMED, VOCABULARY)


def test_words_that_were_corrected_are_kept_beside_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a GO ON\n")
    files(path).check_contents(NAMED, VOCABULARY)
    files(path).write([said("a", "GO")])
    assert (path.read_text(), (tmp_path / "a.txt~").read_text()) == ("a GO\n", "a GO ON\n")
    # The same words again leave the old ones where they are; nothing is kept when that is asked for.
    files(path).write([said("a", "GO")])
    assert (tmp_path / "a.txt~").read_text() == "a GO ON\n"
    files(path, overwrite=True).write([said("a")])
    assert (path.read_text(), (tmp_path / "a.txt~").read_text()) == ("a\n", "a GO ON\n")


def test_words_that_are_kept_stay_when_others_are_kept_later(tmp_path: Path) -> None:
    """The first were corrected by hand, the second come from another model; ``a.txt~`` may be an editor's too."""
    path = tmp_path / "a.txt"
    (tmp_path / "a.txt.~2~").symlink_to("nowhere")
    path.write_text("a by hand\n")
    for words in (("GO",), ("ON",), ()):
        files(path).write([said("a", *words)])
    kept = {name: (tmp_path / name).read_text() for name in ("a.txt", "a.txt~", "a.txt.~3~", "a.txt.~4~")}
    assert kept == {"a.txt": "a\n", "a.txt~": "a by hand\n", "a.txt.~3~": "a GO\n", "a.txt.~4~": "a ON\n"}
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_file_and_a_device_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for output in (tmp_path / "a.txt", "/dev/null", "/dev/stdout"):
        files(output).check_places(Inputs([]))
        files(output).check_contents(NAMED, VOCABULARY)


def test_an_input_is_not_replaced_even_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"RIFF")
    for output in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(OutputError, match=r"a\.txt: this is an input"):
            files(output, overwrite=True).check_places(Inputs([tmp_path / "a.txt"]))
