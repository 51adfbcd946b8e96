"""Headers of recordings, and files that are shorter than their headers say."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.formats import probe
from lhuc_asr.base.errors import AudioError

RATE = 16000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)


def test_probe_reads_the_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((4000, 2)), 8000)
    info = probe(tmp_path / "a.flac")
    assert (info.sample_rate, info.channels, info.frames, info.seconds) == (8000, 2, 4000, 0.5)


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such recording"):
        probe(tmp_path)


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_a_cut_wav_is_measured(tmp_path: Path, endian: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE, endian=endian)
    assert probe(path).frames == 8000
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AudioError, match="truncated: 100 bytes of samples are missing"):
        probe(path)


def test_a_wav_that_was_written_to_a_pipe_has_no_length_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert probe(path).frames == 8000


def test_a_flac_without_its_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, TONE, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # total samples in STREAMINFO, 36 bits
    path.write_bytes(content)
    with pytest.raises(AudioError, match="does not say how long it is; through a pipe, send WAV instead of FLAC"):
        probe(path)
