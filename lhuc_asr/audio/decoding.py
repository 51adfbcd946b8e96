"""The door to libsndfile: every recording is opened here, and every error in it is an ``AudioError``.

libsndfile chooses by content, so files are opened by their descriptors: soundfile takes ``*.raw`` for samples without
a header, and cannot encode the names of files that are not UTF-8.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np
import soundfile

from lhuc_asr.audio.containers import claim
from lhuc_asr.audio.signatures import SIGNATURE_BYTES, convert, help_for
from lhuc_asr.base.errors import AudioError

KNOWN_FORMATS = "WAV, FLAC, Ogg, MP3, AIFF, CAF, AU or NIST SPHERE"

# Lossy codecs and resampling overshoot full scale a little, and are clipped. A sample at twice full scale (6 dB) is
# not an overshoot: integer samples were stored as floats.
LARGEST_OVERSHOOT = 2.0

# Values that are decoded at once: 64 MB of floats.
VALUES_AT_ONCE = 2**24

# What soundfile raises for headers that it does not expect; its own class is a RuntimeError.
FOREIGN = (RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError, OSError)


@contextmanager
def binary(path: Path) -> Iterator[tuple[FileIO, int]]:
    """Open a recording as bytes.

    Yields:
        The file and its length in bytes.

    Raises:
        AudioError: The file is missing, empty, or not a regular file, or cannot be read.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{path}: no such recording: it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{path}: a pipe or device, expected a file; save the recording to a file first")
        if status.st_size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes)")
        file = path.open("rb", buffering=0)  # libsndfile reads on where the descriptor stands
    except AudioError:  # also a ValueError
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{path}: no such recording") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError(f"{str(path)!r}: cannot be opened ({_reason(error)})") from error
    with file:
        yield file, status.st_size


@contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a recording for decoding.

    Raises:
        AudioError: The file cannot be opened, or is in a format that is not known; or, within the context, what is
            read cannot be decoded.
    """
    with binary(path) as (file, length):
        claimed = claim(file, length)
        source: int | _Repaired = file.fileno()
        if claimed is not None and claimed.repair is not None:
            source = _Repaired(file, *claimed.repair)
        file.seek(0)
        head = file.read(SIGNATURE_BYTES)
        file.seek(0)
        try:
            sound = soundfile.SoundFile(source, closefd=False)
        except FOREIGN as error:
            known = help_for(head, path) if isinstance(error, soundfile.LibsndfileError) else None
            other = f"not a {KNOWN_FORMATS} recording ({_reason(error)}); leave it out, or {convert(path)}"
            fault = known or other
            raise AudioError(f"{path}: {fault}") from error
        try:
            with sound:
                yield sound
        except AudioError:
            raise
        except FOREIGN as error:
            raise AudioError(f"{path}: damaged or truncated ({_reason(error)}); fetch it again") from error


def read_blocks(path: Path, first: int, count: int, block: int | None = None) -> Iterator[np.ndarray]:
    """Decode part of a recording, a block at a time.

    Args:
        path: The recording.
        first: Number of samples of each channel before the part.
        count: Number of samples of each channel in the part.
        block: Number of samples of each channel in a block, the last one has what is left; None for about 64 MB.

    Yields:
        float32 (N, C), full scale is 1.

    Raises:
        AudioError: The recording is damaged or not finite, or ends before the part does.
    """
    with opened(path) as sound:
        block = block or max(1, VALUES_AT_ONCE // sound.channels)
        # GSM and some ADPCM cannot be sought in.
        place = sound.seek(first) if sound.seekable() else sum(map(len, _blocks(sound, first, block)))
        for values in _blocks(sound, count, block) if place == first else ():
            place += len(values)
            _check_peak(path, float(np.abs(values).max()))
            yield values
        if place < first + count:
            raise AudioError(f"{path}: truncated: {first + count} samples expected, {place} found; fetch it again")


def _blocks(sound: soundfile.SoundFile, count: int, block: int) -> Iterator[np.ndarray]:
    """Up to ``count`` samples; fewer where the recording ends before."""
    while count > 0:
        values = sound.read(min(count, block), dtype="float32", always_2d=True)
        if not len(values):
            return
        count -= len(values)
        yield values


def _check_peak(path: Path, peak: float) -> None:
    if not math.isfinite(peak):
        raise AudioError(f"{path}: holds samples that are NaN or infinite; make the recording again")
    if peak > LARGEST_OVERSHOOT:
        raise AudioError(
            f"{path}: samples reach {peak:.0f}, expected at most 1; "
            "integer samples were stored as floats: divide them by full scale (32768 for 16 bits)"
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class _Repaired:
    """A file with other bytes at one place, for libsndfile's virtual files."""

    mode = "rb"

    def __init__(self, file: FileIO, place: int, content: bytes) -> None:
        self._file, self._place, self._content = file, place, content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        begin = self._file.tell()
        values = bytearray(self._file.read(size))
        for index, byte in enumerate(self._content, start=self._place - begin):
            if 0 <= index < len(values):
                values[index] = byte
        return bytes(values)

    def readinto(self, buffer: memoryview) -> int:
        values = self.read(len(buffer))
        buffer[: len(values)] = values
        return len(values)
