"""Recordings that a user can name, and the errors for what is not a recording."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.recognizer.recordings import recordings


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


def test_two_that_cannot_be_told_apart_are_refused(folder: Path) -> None:
    soundfile.write(folder / "b.flac", np.zeros(1600), 16000)
    with pytest.raises(CorpusError, match=r"another recording has the name 'b' too; rename"):
        names("b.wav", "b.flac")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["gone.wav"], "gone.wav: no such recording"),
        (["*.ogg"], r"\*.ogg: no file matches this pattern"),
        (["empty"], "empty: no recording in this folder; expected files in .flac, .oga, .ogg, .sph, .wav"),
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


def test_a_flac_that_does_not_know_its_length_is_refused(standard_input: Callable[[bytes], None]) -> None:
    content = bytearray(encoded("FLAC"))
    content[21] &= 0xF0  # the low half of this byte and the next four count the samples; 0 is unknown
    content[22:26] = bytes(4)
    standard_input(bytes(content))
    with pytest.raises(AudioError, match="does not say how long it is"), recordings(["-"]):
        pass


@pytest.mark.parametrize(("share", "message"), [(0.5, "truncated"), (0.0, "empty")])
def test_standard_input_that_ends_early_is_refused(
    share: float, message: str, standard_input: Callable[[bytes], None]
) -> None:
    content = encoded("WAV")
    standard_input(content[: round(share * len(content))])
    with pytest.raises(AudioError, match=message), recordings(["-"]):
        pass
