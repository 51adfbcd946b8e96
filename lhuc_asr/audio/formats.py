"""Samples of an utterance: opened, cut, mixed down, resampled, and refused where they cannot be trusted.

WAV, FLAC, Ogg and NIST SPHERE are read, told apart by their content and not by the name's ending. A recording
that ends before its header or its manifest says is an error, not a shorter recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS, samples_of

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "NIST"})

# Manifests are written with rounded lengths; less than a frame shift changes at most one frame.
TOLERANCE_SECONDS = FRAME_SHIFT_SECONDS

# Lossy codecs and resampling overshoot full scale a little, and are clipped. Twice full scale (6 dB) is no
# overshoot: those are integer samples that someone stored as floats.
LARGEST_OVERSHOOT = 2.0

# A WAV written to a pipe cannot know its length and claims about 2 or 4 GiB instead.
STREAMED_WAV_BYTES = 0x7FFF_0000

# Samples that libsndfile claims, more or less, where a FLAC's header leaves their number open.
UNKNOWN_LENGTH = 2**62

# Ten minutes: 38 MB at 16 kHz.
LEVELS_AT_ONCE = 60_000

# An Ogg page is at most 65,307 bytes, so the last one begins in here.
OGG_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording's header says.

    Attributes:
        sample_rate: Samples a second and channel.
        channels: 1 is mono.
        frames: Samples a channel.
        seconds: Length.
    """

    sample_rate: int
    channels: int
    frames: int
    seconds: float


def probe(path: Path) -> AudioInfo:
    """Read a recording's header, and check that the file is as long as it says.

    Raises:
        AudioError: The file is missing, empty, of another format, without samples, or cut off.
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
        raise AudioError(f"{path}: its header does not say how long it is; where FLAC goes through a pipe, send WAV")
    _refuse_truncation(path, header.format)
    if header.frames == 0:
        raise AudioError(f"{path}: the recording has no samples")
    return AudioInfo(header.samplerate, header.channels, header.frames, header.frames / header.samplerate)


def read_audio(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """Samples of one utterance, mixed down to one channel.

    Args:
        utterance: Which stretch of which recording.
        sample_rate: Wanted, hertz; the recording is resampled (soxr, high quality) where its own differs.

    Returns:
        float32 (N,), in [-1, 1), N = seconds * sample_rate up to rounding.

    Raises:
        AudioError: The recording is missing, unreadable, shorter than the utterance, or not finite.
    """
    samples, native_rate = read_native(utterance)
    if native_rate != sample_rate:
        import librosa  # seconds to import, and most corpora need no resampling

        samples = librosa.resample(samples, orig_sr=native_rate, target_sr=sample_rate, res_type="soxr_hq")
    return samples.clip(-1.0, np.nextafter(np.float32(1.0), np.float32(0.0)))


def read_native(utterance: Utterance) -> tuple[np.ndarray, int]:
    """Samples of one utterance at the recording's own rate, mixed down, checked, not clipped.

    Returns:
        float32 (N,) and the sampling rate in hertz.

    Raises:
        AudioError: As ``read_audio``.
    """
    path, start, seconds = utterance.audio, utterance.start, utterance.seconds
    if not (math.isfinite(start) and math.isfinite(seconds) and start >= 0 and seconds > 0):
        raise AudioError(
            f"{path}: utterance {utterance.id} begins at {start} s and lasts {seconds} s; "
            "expected a beginning of 0 or more and a length above 0"
        )
    info = probe(path)
    if start + seconds > info.seconds + TOLERANCE_SECONDS:
        raise AudioError(
            f"{path}: truncated: it lasts {info.seconds:.3f} s, but utterance {utterance.id} ends at "
            f"{start + seconds:.3f} s; fetch the recording again or correct the manifest"
        )
    first = samples_of(start, info.sample_rate)
    count = min(samples_of(start + seconds, info.sample_rate), info.frames) - first
    if count <= 0:
        raise AudioError(f"{path}: utterance {utterance.id} has no samples (it lasts {seconds} s)")
    try:
        channels, _ = soundfile.read(path, start=first, frames=count, dtype="float32", always_2d=True)  # (N, C)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged or truncated ({error.error_string}); fetch it again") from error
    if len(channels) < count:
        raise AudioError(f"{path}: truncated: {count} samples expected, {len(channels)} found; fetch it again")
    samples = channels[:, 0] if info.channels == 1 else channels.mean(axis=1)  # (N,)
    peak = float(np.abs(samples).max())
    if not math.isfinite(peak):
        raise AudioError(f"{path}: holds samples that are NaN or infinite; make the recording again")
    if peak > LARGEST_OVERSHOOT:
        raise AudioError(
            f"{path}: samples reach {peak:.0f}, expected at most 1; "
            "integer samples were stored as floats: divide them by full scale (32768 for 16 bits)"
        )
    return samples, info.sample_rate


def levels(path: Path) -> tuple[np.ndarray, float]:
    """How loud a recording is, 10 ms after 10 ms; it is read in blocks, however long it is.

    Args:
        path: A recording that ``probe`` accepts.

    Returns:
        Mean square of the samples, of full scale 1, mixed down to one channel, shape (N,), float64, the last one of
        what is left; and the exact length of one value in seconds, since 10 ms need not be whole samples.

    Raises:
        AudioError: The recording is damaged.
    """
    try:
        with soundfile.SoundFile(path) as file:
            hop = round(FRAME_SHIFT_SECONDS * file.samplerate)
            blocks = file.blocks(blocksize=hop * LEVELS_AT_ONCE, dtype="float32", always_2d=True)
            parts = [_mean_squares(block.mean(axis=1), hop) for block in blocks]
            return np.concatenate(parts), hop / file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged or truncated ({error.error_string}); fetch it again") from error


def _mean_squares(samples: np.ndarray, hop: int) -> np.ndarray:
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(squares), hop)
    means: np.ndarray = np.add.reduceat(squares, starts) / np.diff(np.append(starts, len(squares)))
    return means


def resolve_sample_rate(utterances: Iterable[Utterance]) -> int:
    """The rate to bring a corpus to: the lowest among its recordings.

    Resampling up would leave the upper filters without energy in some recordings only, and a network would
    learn to tell recordings apart by that.

    Raises:
        AudioError: A recording cannot be opened.
        CorpusError: There is no utterance.
    """
    recordings = {utterance.audio for utterance in utterances}
    if not recordings:
        raise CorpusError("no utterance, so no sampling rate; give at least one recording")
    return min(probe(path).sample_rate for path in sorted(recordings))


def _refuse_truncation(path: Path, audio_format: str) -> None:
    """Find a cut that libsndfile corrects silently: it takes the rest of a WAV or Ogg for the whole.

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
    """Bytes that the data chunk promises past the end of the file (RIFF: id, size, content)."""
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


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Play a recording faster or slower: tempo, pitch and formants change together (Ko et al. 2015).

    Args:
        samples: Shape (N,).
        speed: Above 1 is faster and shorter.

    Returns:
        About N / ``speed`` samples, float32; the same array at speed 1.
    """
    if speed == 1.0:
        return samples
    import librosa

    # Any two rates of this ratio do: a hundredth is finer than anyone perturbs.
    return librosa.resample(samples, orig_sr=round(100 * speed), target_sr=100, res_type="soxr_hq")
