"""Recordings that a user can name, and the errors for what is not a recording."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.base.errors import AudioError, CorpusError, LhucError
from lhuc_asr.recognizer.named_files import files_of
from lhuc_asr.recognizer.recordings import LeftOut, _names, recordings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recordings in it, and below it, and other files."""
    for name in ("b.wav", "a.FLAC", "below/c.flac", "below/my talk.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(1600), 16000)
    (tmp_path / "notes.txt").write_text("no recording")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources: str | Path) -> list[str]:
    with recordings(sources) as named:
        assert all(recording.path.exists() and recording.info.seconds == 0.1 for recording in named)
        return [recording.name for recording in named]


def test_files_folders_and_patterns_are_expanded_and_ordered_by_name(folder: Path) -> None:
    assert names("b.wav", folder / "a.FLAC") == ["a", "b"]
    assert names(folder) == ["a", "b", "c", "my_talk"]
    assert names("*.*av", "below") == ["b", "c", "my_talk"]
    assert names("**/*.flac") == ["c"]


def test_a_recording_counts_once(folder: Path) -> None:
    assert names("b.wav", "./b.wav", folder / "b.wav", "*.wav") == ["b"]


def test_a_file_may_be_called_like_a_pattern(folder: Path) -> None:
    (folder / "b.wav").rename(folder / "b[1].wav")
    assert names("b[1].wav") == ["b[1]"]


def test_two_of_one_name_are_told_apart_by_their_folders(folder: Path) -> None:
    soundfile.write(folder / "below/b.wav", np.zeros(1600), 16000)
    assert names("b.wav", "below/b.wav", "below/c.flac") == ["b", "below-b", "c"]


def test_two_formats_of_one_recording_are_told_apart_by_their_endings(folder: Path) -> None:
    soundfile.write(folder / "b.flac", np.zeros(1600), 16000)
    assert names("b.wav", "b.flac", "below/c.flac") == ["b.flac", "b.wav", "c"]


def test_two_that_cannot_be_told_apart_are_refused(folder: Path) -> None:
    clashing = ("x/b.wav", "x-b.wav", "y/b.wav", "y/x-b.wav")
    for name in clashing:
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, np.zeros(1600), 16000)
    with pytest.raises(CorpusError, match=r"x-b.wav: another recording has the name 'x-b.wav' too; rename"):
        names(*clashing)


def test_names_of_thousands_take_linear_time() -> None:
    paths = [Path(f"{folder}/{number}.wav") for folder in "ab" for number in range(4000)]
    before = time.process_time()
    named = _names(paths, pytest.fail)
    assert time.process_time() - before < 1.0  # 0.1; the square of 8,000 takes minutes
    assert list(named.values()) == paths


# What is in a folder.


def test_a_folder_has_recordings_of_every_format(tmp_path: Path) -> None:
    for name, form, subtype in (
        ("a.mp3", "MP3", "MPEG_LAYER_III"), ("b.OPUS", "OGG", "OPUS"), ("c.aiff", "AIFF", "PCM_16"),
        ("d.au", "AU", "PCM_16"), ("e.caf", "CAF", "PCM_16"), ("f.w64", "W64", "PCM_16"), ("g.wav", "WAV", "PCM_16"),
    ):  # fmt: skip
        soundfile.write(tmp_path / name, np.zeros(16000), 16000, format=form, subtype=subtype)
    with recordings([tmp_path]) as named:
        assert [recording.path.name for recording in named] == [path.name for path in sorted(tmp_path.iterdir())]


def test_linked_folders_are_entered_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("store")
    soundfile.write(store / "later.wav", np.zeros(1600), 16000)
    (folder / "linked").symlink_to(store)
    (folder / "below" / "loop").symlink_to(folder)
    (store / "back").symlink_to(folder)
    expected = ["a", "b", "c", "later", "my_talk"]
    assert names(folder) == names("**/*.*[aA]*") == expected


def test_what_a_folder_has_besides_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("._b.wav", ".DS_Store", "below/film.mp4"):
        (folder / name).write_bytes(b"Mac OS X")
    (folder / ".Trash").mkdir()
    soundfile.write(folder / ".Trash/gone.wav", np.zeros(1600), 16000)
    os.mkfifo(folder / "pipe.wav")
    assert names(".") == ["a", "b", "c", "my_talk"]
    told, remedy = (record.message for record in caplog.records)
    assert told == ".: 3 files are left out, by their endings not recordings: notes.txt, pipe.wav, below/film.mp4"
    assert remedy.endswith("convert it: ffmpeg -i below/film.mp4 below/film.wav")


def test_a_bad_recording_is_told_and_the_others_are_used(folder: Path) -> None:
    (folder / "empty.wav").write_bytes(b"")
    (folder / "dangling.flac").symlink_to("nowhere")
    (folder / "itself.wav").symlink_to("itself.wav")
    (folder / "nothing").mkdir()
    bad: list[LhucError] = []
    sources = (".", "gone.wav", "x" * 300, "nothing", "*.ogg", "a\0b.wav", "")
    with recordings(sources, bad.append) as named:
        assert [recording.name for recording in named] == ["a", "b", "c", "my_talk"]
    told = "\n".join(map(str, bad))
    for words in (
        "empty.wav: the file is empty", "dangling.flac: no such recording", "itself.wav", "gone.wav: no such recording",
        "nothing: no recording in this folder", "*.ogg: no file matches", "xxx", "a\\x00b.wav",
    ):  # fmt: skip
        assert words in told
    assert len(bad) == 9
    with pytest.raises(CorpusError, match=r"none of 2 recordings can be used; gone\.wav: no such"):
        names_or_bad("gone.wav", "also.wav")


def names_or_bad(*sources: str) -> None:
    with recordings(sources, lambda problem: None):
        pass


def test_problems_are_an_error_in_the_end() -> None:
    left_out = LeftOut()
    left_out.check(4)
    left_out.note(AudioError("a.wav: truncated"))
    with pytest.raises(AudioError, match=r"^left out 1 of 4 recordings, the others are done; a\.wav: truncated$"):
        left_out.check(4)
    with pytest.raises(AudioError, match=r"^a\.wav: truncated$"):
        left_out.check(1)


def test_names_that_are_not_utf8_can_be_shown(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (folder / "b.wav").rename(folder / name)
    (folder / "a.FLAC").rename(folder / "tea\x1b\N{COMBINING ACUTE ACCENT}.wav")
    with recordings([name, *folder.glob("tea*")]) as named:
        assert [recording.name for recording in named] == ["caf\\xe9", "tea\\x1b\N{COMBINING ACUTE ACCENT}"]
        assert all(recording.file_name.encode() for recording in named)


def test_a_name_that_fills_a_files_is_shortened_in_outputs(folder: Path) -> None:
    (folder / "b.wav").rename(folder / f"{'x' * 251}.wav")
    (folder / "a.FLAC").rename(folder / f"{'x' * 249}y.flac")
    with recordings([folder]) as named:
        short = [recording.file_name for recording in named if recording.name.startswith("x")]
    assert len(set(short)) == 2
    assert all(len(name) == 200 for name in short)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["gone.wav"], "gone.wav: no such recording"),
        (["*.ogg"], r"\*.ogg: no file matches this pattern"),
        (["empty"], "empty: no recording in this folder; expected files in .8svx, .aif"),
        ([], "no recording was named"),
        (["notes.txt"], "notes.txt: not a WAV, FLAC, Ogg, MP3"),
    ],
)
def test_what_is_no_recording_is_named(folder: Path, sources: Sequence[str], message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises((AudioError, CorpusError), match=message):
        names(*sources)


def test_less_than_a_window_is_refused(folder: Path) -> None:
    soundfile.write(folder / "click.wav", np.zeros(160), 16000)
    with pytest.raises(AudioError, match=r"click.wav: 10 ms are shorter than one window"):
        names("click.wav")


# Standard input.


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Set what comes in."""

    class Stream:
        buffer: io.BytesIO

    def set_to(content: bytes) -> None:
        Stream.buffer = io.BytesIO(content)
        monkeypatch.setattr(sys, "stdin", Stream)

    return set_to


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.1, 0.1, 1600), 16000, format=form, subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_standard_input_is_a_recording_and_leaves_nothing(
    form: str, standard_input: Callable[[bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    standard_input(encoded(form))
    with recordings(["-"]) as (recording,):
        assert (recording.name, recording.info.frames) == ("standard-input", 1600)
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_does_not_know_its_length_is_read(standard_input: Callable[[bytes], None]) -> None:
    content = bytearray(encoded("WAV"))
    size = content.index(b"data") + 4
    content[4:8] = content[size : size + 4] = b"\xff\xff\xff\xff"
    standard_input(bytes(content))
    with recordings(["-"]) as (recording,):
        assert recording.info.frames == 1600


def test_a_flac_that_does_not_know_its_length_is_read(standard_input: Callable[[bytes], None]) -> None:
    content = bytearray(encoded("FLAC"))
    content[21] &= 0xF0  # the low half of this byte and the next four count the samples; 0 is unknown
    content[22:26] = bytes(4)
    standard_input(bytes(content))
    with recordings(["-"]) as (recording,):
        assert recording.info.frames == 1600


def test_standard_input_has_no_file_that_could_stay(
    standard_input: Callable[[bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while it is read either: whatever kills the process, the person's voice is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    standard_input(encoded("WAV"))
    with recordings(["-", "-"]) as (recording,):
        assert list(tmp_path.iterdir()) == []
        assert (recording.source, recording.title) == ("-", "standard input")
        assert soundfile.info(recording.path).frames == soundfile.info(recording.path).frames == 1600


def test_a_pipe_is_read_as_standard_input_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(encoded("WAV"),))
    writer.start()
    with recordings([pipe]) as (recording,):
        assert (recording.name, recording.source, recording.info.frames) == ("pipe", str(pipe), 1600)
    writer.join()


def test_standard_input_that_is_closed_or_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match="standard input is closed"), recordings(["-"]):
        pass
    ours, theirs = os.openpty()
    with open(theirs) as terminal, open(ours, "rb"):
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(AudioError, match="standard input is a terminal"), recordings(["-"]):
            pass


@pytest.mark.parametrize(("share", "message"), [(0.5, "truncated"), (0.0, "empty")])
def test_standard_input_that_ends_early_is_refused(
    share: float, message: str, standard_input: Callable[[bytes], None]
) -> None:
    content = encoded("WAV")
    standard_input(content[: round(share * len(content))])
    with pytest.raises(AudioError, match=f"^standard input: .*{message}"), recordings(["-"]):
        pass


def test_a_format_that_must_be_converted_has_no_name_in_a_pipe(standard_input: Callable[[bytes], None]) -> None:
    standard_input(b"\0\0\0\x20ftypM4A \0\0\0\0")
    with (
        pytest.raises(
            AudioError, match=r"^standard input: M4A \(AAC\) audio; save it to a file, and convert .* ffmpeg$"
        ),
        recordings(["-"]),
    ):
        pass


def test_a_folder_that_may_not_be_read_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    problems: list[LhucError] = []
    assert files_of(str(tmp_path), problems.append) == []
    assert [str(problem) for problem in problems] == [
        f"{tmp_path}: the folder cannot be read (Permission denied); nothing of it is taken"
    ]
