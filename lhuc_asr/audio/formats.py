"""Headers of recordings, and whether the files are as long as their headers say.

A recording is in any format that libsndfile reads and in which this can be checked, and is recognised by its content,
not by its name. A file that is shorter than its header says is an error, not a shorter recording; so is one that is
longer, where samples would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.audio.containers import LONGEST_REST, claim
from lhuc_asr.audio.decoding import KNOWN_FORMATS, binary, opened
from lhuc_asr.audio.signatures import convert
from lhuc_asr.audio.streams import FlacLength, Mp3Length, OggLength, flac_length, mp3_length, ogg_length
from lhuc_asr.base.errors import AudioError

# Matrices, instruments and dumps of samplers, whose lengths libsndfile and this package cannot check.
NOT_RECORDINGS = frozenset({"MAT4", "MAT5", "XI", "MPC2K", "SDS", "SD2", "RAW"})

# About the number of samples that libsndfile reports where a FLAC's header leaves it open.
UNKNOWN_LENGTH = 2**62

# Opus counts time at this rate, whatever the rate of the recording.
OPUS_RATE = 48_000

# Half of the lowest rate is less than any telephone's band; the highest is the fastest of converters for sound.
LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000


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
        AudioError: The file is missing, empty, truncated, without samples, in another format, or has a sample rate
            that is not one of sound.
    """
    _check_claim(path)
    with opened(path) as sound:
        audio_format, rate, channels, frames = sound.format, sound.samplerate, sound.channels, sound.frames
        clock = OPUS_RATE / rate if sound.subtype == "OPUS" and rate else 1.0
    if audio_format in NOT_RECORDINGS:
        raise AudioError(f"{path}: expected a {KNOWN_FORMATS} recording, found {sound.format_info}; {convert(path)}")
    frames = _stream_length(path, audio_format, frames, clock)
    if frames == 0:
        raise AudioError(f"{path}: the recording has no samples")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path}: a sample rate of {rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}; correct the header"
        )
    return AudioInfo(rate, channels, frames, frames / rate)


def _check_claim(path: Path) -> None:
    """Refuse a file that has fewer bytes of samples than its header says, or more."""
    with binary(path) as (file, length):
        claimed = claim(file, length)
    if claimed is None or claimed.size is None:
        return
    missing = claimed.start + claimed.size - length
    if missing > 0:
        raise AudioError(f"{path}: truncated: {missing} bytes of samples are missing; fetch it again")
    if claimed.unclaimed:
        raise AudioError(
            f"{path}: the header gives {claimed.size} bytes of samples, but {claimed.unclaimed} bytes more follow; "
            "correct the header, or make the recording again"
        )


def _stream_length(path: Path, audio_format: str, frames: int, clock: float) -> int:
    """Number of samples of a compressed stream; other formats keep theirs.

    Args:
        path: The recording.
        audio_format: The container, as libsndfile calls it.
        frames: Number of samples that libsndfile reports.
        clock: Ticks of the clock of Ogg pages for each sample.
    """
    with binary(path) as (file, length):
        match audio_format:
            case "OGG":
                _check_ogg(path, ogg_length(file, length), frames * clock)
            case "FLAC":
                return _flac_frames(path, flac_length(file, length), frames)
            case "MP3":
                return _mp3_frames(path, mp3_length(file, length), frames)
    return frames


def _check_ogg(path: Path, lengths: OggLength, ticks: float) -> None:
    """libsndfile reads the first stream, and stops where a page of it is damaged."""
    if not lengths.ended:
        raise AudioError(f"{path}: truncated: the Ogg stream has no last page; fetch it again")
    if lengths.joined:
        raise AudioError(f"{path}: several Ogg streams, of which only the first would be read; {convert(path)}")
    if ticks < lengths.least:
        raise AudioError(f"{path}: damaged: pages of the Ogg stream are missing or damaged; fetch it again")


def _flac_frames(path: Path, lengths: FlacLength | None, frames: int) -> int:
    if lengths is None or lengths.end is None:
        if frames >= UNKNOWN_LENGTH:
            raise AudioError(f"{path}: damaged: neither its header nor its end says how long it is; fetch it again")
        return frames
    if lengths.claimed and lengths.claimed != lengths.end:
        raise _mismatch(path, lengths.claimed, lengths.end, "samples")
    return lengths.end


def _mp3_frames(path: Path, lengths: Mp3Length | None, frames: int) -> int:
    """Without a claim, libsndfile estimates the length from the first bit rate, and reads no further than that."""
    if lengths is None:
        return frames
    if lengths.cut:
        raise AudioError(f"{path}: truncated: its last frame is cut; fetch it again")
    if lengths.claimed is not None:
        # Encoders differ in whether they count the frame that holds the claim.
        if abs(lengths.claimed - lengths.present) > 1 and lengths.unclaimed <= LONGEST_REST:
            raise _mismatch(path, lengths.claimed, lengths.present, "frames")
        return frames
    present = lengths.present * lengths.samples
    if lengths.unclaimed > LONGEST_REST or present > frames + 2 * lengths.samples:
        raise AudioError(f"{path}: an MP3 that does not say how long it is; {convert(path)}")
    return min(frames, present)


def _mismatch(path: Path, claimed: int, present: int, unit: str) -> AudioError:
    if present < claimed:
        return AudioError(f"{path}: truncated: {claimed} {unit} expected, {present} found; fetch it again")
    return AudioError(
        f"{path}: the header gives {claimed} {unit}, but the file has {present}; make the recording again, or "
        f"{convert(path)}"
    )
