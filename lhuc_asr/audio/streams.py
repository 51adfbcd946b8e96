"""The ends of compressed streams: what the last frame of a FLAC, an Ogg or an MP3 says of its length.

Frames are recognised by their headers alone; nothing is decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import FileIO

# An Ogg page has at most 65,307 bytes, so the last one begins in this part of the file.
OGG_TAIL_BYTES = 65_536

# The largest frame of a FLAC, 16,384 samples of 8 channels in 24 bits, and what may follow the last one, such as tags.
LARGEST_FLAC_FRAME, FLAC_REST_BYTES = 524_288, 4096

# Bit rates in kbit/s and sample rates in Hz of MPEG audio, by their codes (ISO 11172-3, 13818-3); 0 is not allowed.
MPEG1_LAYER3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
MPEG2_LAYER3 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
MPEG1_RATES = (44100, 48000, 32000, 0)


@dataclass(frozen=True, slots=True)
class OggLength:
    """The end of an Ogg file.

    Attributes:
        ended: Whether the last page is whole and marked as the last of its stream.
        joined: Whether it belongs to another stream than the first page does.
        least: Samples of one channel from the first page of sound to the end, at the rate of the codec's clock.
    """

    ended: bool
    joined: bool
    least: int


@dataclass(frozen=True, slots=True)
class FlacLength:
    """Lengths of a FLAC in samples of one channel.

    Attributes:
        claimed: Length that the header gives; 0 where it does not know.
        end: The sample after the last frame; None if no frame is found.
    """

    claimed: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Mp3Length:
    """Lengths of an MP3 in frames.

    Attributes:
        claimed: Number that the first frame gives (Xing, Info, VBRI); None where it does not.
        present: Number of whole frames.
        samples: Number of samples of one channel in a frame.
        cut: Whether the last frame is cut.
        unclaimed: Number of bytes behind the last frame.
    """

    claimed: int | None
    present: int
    samples: int
    cut: bool
    unclaimed: int


def ogg_length(file: FileIO, length: int) -> OggLength:
    """What the pages at both ends of an Ogg file say (RFC 3533, section 6)."""
    file.seek(0)
    head = file.read(2 * OGG_TAIL_BYTES)
    file.seek(max(0, length - OGG_TAIL_BYTES))
    tail = file.read()
    place = tail.rfind(b"OggS")
    page = tail[max(0, place) :]
    whole = place >= 0 and len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 0x04:
        return OggLength(False, False, 0)
    # Pages of headers are at 0, and those in which no packet ends at -1.
    at = (_granule(head[match.start() :]) for match in re.finditer(b"OggS", head))
    first = next((granule for granule in at if granule > 0), 0)
    return OggLength(True, head[14:18] != page[14:18], max(0, _granule(page) - first))


def _granule(page: bytes) -> int:
    return int.from_bytes(page[6:14], "little", signed=True)


def flac_length(file: FileIO, length: int) -> FlacLength | None:
    """Lengths of a FLAC (RFC 9639, sections 8.2 and 9.1); None for other files, as those with a tag before the FLAC."""
    file.seek(0)
    head = file.read(26)
    if head[:4] != b"fLaC" or len(head) < 26:
        return None
    block_samples, largest = int.from_bytes(head[8:10], "big"), int.from_bytes(head[15:18], "big")
    claimed = int.from_bytes(head[21:26], "big") & (2**36 - 1)
    file.seek(max(0, length - min(largest or LARGEST_FLAC_FRAME, LARGEST_FLAC_FRAME) - FLAC_REST_BYTES))
    tail = file.read()
    for match in reversed(list(re.finditer(rb"\xff[\xf8\xf9]", tail))):
        end = _flac_frame_end(tail[match.start() : match.start() + 16], block_samples)
        if end is not None:
            return FlacLength(claimed, end)
    return FlacLength(claimed, None)


def _flac_frame_end(header: bytes, block_samples: int) -> int | None:
    """The sample after a frame's last; None if the header is not one."""
    if len(header) < 6 or header[3] & 1:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # the leading ones of the first byte, as in UTF-8
    digits = ones or 1
    coded = header[4 : 4 + digits]
    if ones in (1, 8) or any(byte >> 6 != 2 for byte in coded[1:]):
        return None
    number = coded[0] & (0xFF >> (ones + 1))
    for byte in coded[1:]:
        number = number << 6 | byte & 0x3F
    at = 4 + digits
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    after = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if size_code == 0 or rate_code == 15 or len(header) <= after or _crc8(header[:after]) != header[after]:
        return None
    if size_bytes:
        samples = int.from_bytes(header[at : at + size_bytes], "big") + 1
    else:
        samples = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    return (number if header[1] & 1 else number * block_samples) + samples


def _crc8(content: bytes) -> int:
    """FLAC's checksum of a frame header: the polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value


def mp3_length(file: FileIO, length: int) -> Mp3Length | None:
    """Lengths of an MP3, from the headers of all its frames; None if the first one is not where it should be.

    The headers are read in one go, about 40 a second of audio.
    """
    file.seek(0)
    content = file.read()
    place = _behind_tags(content, 0)
    first = _mp3_frame(content, place)
    if first is None:
        return None
    size, samples = first
    claimed = _mp3_claim(content[place : place + size])
    if claimed is not None:
        place += size
    present = 0
    while (frame := _mp3_frame(content, place)) is not None and place + frame[0] <= length:
        place = _behind_tags(content, place + frame[0])
        present += 1
    return Mp3Length(claimed, present, samples, cut=frame is not None, unclaimed=length - place)


def _behind_tags(content: bytes, place: int) -> int:
    """The place behind the ID3v2 tags that begin here, if any do."""
    while content[place : place + 3] == b"ID3" and len(content) >= place + 10:
        bits = [byte & 0x7F for byte in content[place + 6 : place + 10]]
        place += 10 + (bits[0] << 21 | bits[1] << 14 | bits[2] << 7 | bits[3])
    return place


def _mp3_frame(content: bytes, place: int) -> tuple[int, int] | None:
    """Bytes and samples of the frame of layer III that begins here; None if none does."""
    header = content[place : place + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2 or header[1] & 0x18 == 0x08:
        return None
    version = header[1] >> 3 & 3  # 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    bits = (MPEG1_LAYER3 if version == 3 else MPEG2_LAYER3)[header[2] >> 4]
    rate = MPEG1_RATES[header[2] >> 2 & 3] // {3: 1, 2: 2, 0: 4}[version]
    if bits == 0 or rate == 0:
        return None
    samples = 1152 if version == 3 else 576
    return samples // 8 * 1000 * bits // rate + (header[2] >> 1 & 1), samples


def _mp3_claim(frame: bytes) -> int | None:
    """Number of frames that the first one gives, which then holds no samples of its own."""
    # Xing's flag 1 says that the number is there.
    first = re.search(rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)|VBRI.{10}(....)", frame, re.DOTALL)
    return int.from_bytes(first[1] or first[2], "big") if first else None
