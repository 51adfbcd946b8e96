"""Audio files and their headers: WAV, FLAC, Ogg and NIST SPHERE, recognised by their content, not by their names.

A file that is shorter than its header says is an error, not a shorter recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import soundfile

from lhuc_asr.base.errors import AudioError

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "NIST"})

# A WAV that was written to a pipe cannot know its length and claims about 2 or 4 GiB instead.
STREAMED_WAV_BYTES = 0x7FFF_0000

# About the number of samples that libsndfile reports where a FLAC's header leaves it open.
UNKNOWN_LENGTH = 2**62

# An Ogg page has at most 65,307 bytes, so the last one begins in this part of the file.
OGG_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The header of a recording.

    Attributes:
        sample_rate: Samples per second of one channel, hertz.
        channels: Number of channels; 1 is mono.
        frames: Number of samples in one channel.
        seconds: Length of the recording.
    """

    sample_rate: int
    channels: int
    frames: int
    seconds: float


def probe(path: Path) -> AudioInfo:
    """Read the header of a recording, and check that the file is as long as the header says.

    Raises:
        AudioError: The file is missing, empty, truncated, without samples, or in another format.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such recording")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes)")
    try:
        header = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not a WAV, FLAC or Ogg recording ({error.error_string})") from error
    if header.format not in FORMATS:
        raise AudioError(f"{path}: expected WAV, FLAC or Ogg, found {header.format_info}; convert it")
    if header.frames >= UNKNOWN_LENGTH:
        raise AudioError(f"{path}: its header does not say how long it is; through a pipe, send WAV instead of FLAC")
    _refuse_truncation(path, header.format)
    if header.frames == 0:
        raise AudioError(f"{path}: the recording has no samples")
    return AudioInfo(header.samplerate, header.channels, header.frames, header.frames / header.samplerate)


def _refuse_truncation(path: Path, audio_format: str) -> None:
    """Refuse a truncation that libsndfile accepts silently: it reads the rest of a WAV or Ogg as if it were whole.

    FLAC needs nothing here: its header counts the samples, and its decoder fails where they end.
    """
    with path.open("rb") as file:
        if audio_format in ("WAV", "WAVEX"):
            missing = _wav_bytes_missing(file, path.stat().st_size)
            if missing > 0:
                raise AudioError(f"{path}: truncated: {missing} bytes of samples are missing; fetch it again")
        elif audio_format == "OGG" and not _ogg_has_end(file, path.stat().st_size):
            raise AudioError(f"{path}: truncated: the Ogg stream has no last page; fetch it again")


def _wav_bytes_missing(file: BinaryIO, file_bytes: int) -> int:
    """Bytes of the data chunk that lie past the end of the file (RIFF: id, size, content)."""
    order: Literal["big", "little"] = "big" if file.read(12)[:4] == b"RIFX" else "little"
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], order)
        if chunk[:4] == b"data":
            return 0 if size >= STREAMED_WAV_BYTES else file.tell() + size - file_bytes
        file.seek(size + size % 2, 1)  # chunks are padded to an even length
    return 0


def _ogg_has_end(file: BinaryIO, file_bytes: int) -> bool:
    """Whether the last page is whole and marked as the last of its stream (RFC 3533, section 6)."""
    file.seek(max(0, file_bytes - OGG_TAIL_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 0x04:
        return False
    segments = page[26]
    return len(page) >= 27 + segments + sum(page[27 : 27 + segments])
