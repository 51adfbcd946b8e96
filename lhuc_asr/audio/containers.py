"""The samples that a file claims to hold: their place and number of bytes, from the headers of its container.

libsndfile reads what is there, and does not say how much should be. So the headers of the formats that state a length
are read here too. PAF, PVF and IRCAM state none, HTK is checked by libsndfile, and the frames of FLAC, Ogg and MP3 are
another module's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Literal

from lhuc_asr.audio.streams import flac_length

# A WAV or AU that was written to a pipe cannot know its length; it claims about 2 or 4 GiB instead, or nothing.
STREAMED_BYTES = 0x7FFF_0000
UNKNOWN_SIZE = b"\xff\xff\xff\xff"

# The size of the samples of an RF64 where its chunk ``ds64`` has the real one.
SIZE_IN_DS64 = 0xFFFF_FFFF

# What is known to follow the samples of a WAV without being a chunk: ID3v1 tags and the rest of a disk's block.
LONGEST_REST = 4096

W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")

# Chunks that are looked at; a file of zeros has as many empty ones as it has room for.
MOST_CHUNKS = 100_000

# Place of the number of samples in a FLAC, 36 bits; the four before them are another value's.
FLAC_COUNT = 21

Endian = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a header says of the samples.

    Attributes:
        start: Place of the first byte of the samples in the file.
        size: Number of bytes of samples; None where the header does not know, as in a file that was written to a pipe.
        unclaimed: Number of bytes behind the samples that belong to nothing.
        repair: Place of a size in the header, and the bytes to read instead, so that libsndfile takes all samples; None
            where it does so anyway.
    """

    start: int
    size: int | None
    unclaimed: int = 0
    repair: tuple[int, bytes] | None = None


def claim(file: FileIO, length: int) -> Claim | None:
    """Read what a file claims; None for formats that claim nothing, and for headers that are cut or wrong.

    Args:
        file: The file, at its beginning.
        length: Number of bytes in the file.
    """
    head = file.read(32)
    for signature, reader in READERS.items():
        if re.match(signature, head, re.DOTALL):
            file.seek(0)
            return reader(file, length)
    return None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the chunks of a container begin: bytes of the id and of the size; and the multiple they are padded to."""

    id_bytes: int
    size_bytes: int
    endian: Endian
    padded_to: int = 1
    with_header: bool = False  # whether a size includes the id and itself
    signed: bool = False


IFF, VOC = _Layout(4, 4, "big", padded_to=2), _Layout(1, 3, "little")
W64, CAF = _Layout(16, 8, "little", padded_to=8, with_header=True), _Layout(4, 8, "big", signed=True)


def _chunks(file: FileIO, length: int, place: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Id, place of the content and size of each chunk from a place on; the last one may reach behind the file's end."""
    header_bytes = layout.id_bytes + layout.size_bytes
    for _ in range(MOST_CHUNKS):
        file.seek(place)
        header = file.read(header_bytes)
        size = int.from_bytes(header[layout.id_bytes :], layout.endian, signed=layout.signed)
        size -= header_bytes if layout.with_header else 0
        place += header_bytes
        if len(header) < header_bytes:
            return
        yield header[: layout.id_bytes], place, size
        if size < 0 or place + size > length:
            return
        place += size + -size % layout.padded_to


def _riff(file: FileIO, length: int) -> Claim | None:
    """WAV, and RF64, whose chunk ``ds64`` has the sizes that do not fit in 32 bits."""
    form = file.read(4)
    layout = _Layout(4, 4, "big" if form == b"RIFX" else "little", padded_to=2)
    large: tuple[int, int] | None = None  # place and value of the 64-bit size of the samples
    for name, place, size in _chunks(file, length, 12, layout):
        if name == b"ds64" and form == b"RF64":
            file.seek(place + 8)
            large = place + 8, int.from_bytes(file.read(8), "little")
        if name != b"data":
            continue
        rest = length - place
        if large is not None and size == SIZE_IN_DS64:
            known = 0 < large[1] < 2**63
            if not known:
                return Claim(place, None, repair=(large[0], rest.to_bytes(8, "little")))
            return Claim(place, large[1], _unclaimed(file, place + large[1] + large[1] % 2, length, layout))
        if size == 0 and _unclaimed(file, place, length, layout):
            return Claim(place, None, repair=(place - 4, UNKNOWN_SIZE))
        if size >= STREAMED_BYTES and size > rest:
            return Claim(place, None)
        return Claim(place, size, _unclaimed(file, place + size + size % 2, length, layout))
    return None


def _unclaimed(file: FileIO, end: int, length: int, layout: _Layout) -> int:
    """Number of bytes from ``end`` on that are neither chunks nor padding."""
    for name, place, size in _chunks(file, length, end, layout):
        if not re.fullmatch(rb"[ -~]{4}", name) or place + size > length + 1:
            break
        end = place + size + -size % layout.padded_to
    file.seek(end)
    rest = length - end
    return rest if rest > LONGEST_REST and any(file.read(LONGEST_REST)) else 0


def _alone(place: int, size: int, length: int) -> Claim:
    """What is claimed where nothing but samples may follow the header; libsndfile takes all of it."""
    rest = length - place - size
    return Claim(place, size, rest if rest > LONGEST_REST else 0)


def _w64(file: FileIO, length: int) -> Claim | None:
    for name, place, size in _chunks(file, length, 40, W64):
        if name[:4] == b"data":
            return _alone(place, size, length) if 0 < size < 2**62 else Claim(place, None)
    return None


def _iff(file: FileIO, length: int) -> Claim | None:
    """AIFF and AIFF-C, whose samples lie behind an offset and a block size, and 8SVX."""
    for name, place, size in _chunks(file, length, 12, IFF):
        if name in (b"SSND", b"BODY"):
            return Claim(place, None if size == 0 or size >= STREAMED_BYTES else size)
    return None


def _au(file: FileIO, length: int) -> Claim | None:
    header = file.read(12)
    endian: Endian = "big" if header[:4] == b".snd" else "little"
    place, size = (int.from_bytes(header[at : at + 4], endian) for at in (4, 8))
    if size == 0 and place < length:
        return Claim(place, None, repair=(8, UNKNOWN_SIZE))
    return Claim(place, None) if size >= STREAMED_BYTES and place + size > length else _alone(place, size, length)


def _caf(file: FileIO, length: int) -> Claim | None:
    for name, place, size in _chunks(file, length, 8, CAF):
        if name == b"data":
            if size == -1:
                return _streamed_caf(place, length)
            return Claim(place, size, _unclaimed(file, place + size, length, CAF))
    return None


def _streamed_caf(place: int, length: int) -> Claim:
    return Claim(place, None, repair=(place - 8, (length - place).to_bytes(8, "big")))


def _sphere(file: FileIO, length: int) -> Claim | None:
    header = file.read(16)
    if not header[8:15].strip().isdigit():
        return None
    place = int(header[8:15])
    file.seek(0)
    fields = dict(re.findall(rb"^(\w+) -i (\d{1,18})", file.read(min(place, length)), re.MULTILINE))
    # The count is optional, and one of 0 is written to pipes.
    count = int(fields.get(b"sample_count", 0))
    size = count * int(fields.get(b"channel_count", 1)) * int(fields.get(b"sample_n_bytes", 1))
    return _alone(place, size, length) if size else Claim(place, None)


def _voc(file: FileIO, length: int) -> Claim | None:
    """Creative Voice: blocks of a type, a size and a content; the type 0 ends the file."""
    file.seek(20)
    start = end = int.from_bytes(file.read(2), "little")
    for name, place, size in _chunks(file, length, start, VOC):
        if name == b"\0":
            break
        end = place + size
    return Claim(start, end - start)


def _avr(file: FileIO, length: int) -> Claim | None:
    header = file.read(128)
    channels = 2 if header[12:14] == b"\xff\xff" else 1
    return _alone(128, int.from_bytes(header[26:30], "big") * channels * header[15] // 8, length)


def _wve(file: FileIO, length: int) -> Claim | None:
    return _alone(32, int.from_bytes(file.read(32)[18:22], "big"), length)


def _flac(file: FileIO, length: int) -> Claim | None:
    """A FLAC that was written to a pipe gives no number of samples, which its last frame does."""
    file.seek(FLAC_COUNT)
    count = int.from_bytes(file.read(5), "big")
    lengths = flac_length(file, length) if count % 2**36 == 0 else None
    if lengths is None or lengths.end is None:
        return None
    return Claim(0, None, repair=(FLAC_COUNT, (count | lengths.end).to_bytes(5, "big")))


READERS: dict[bytes, Callable[[FileIO, int], Claim | None]] = {
    rb"RIF[FX]....WAVE": _riff,
    rb"RF64....WAVE": _riff,
    re.escape(W64_RIFF): _w64,
    rb"FORM....(AIF[FC]|8SVX|16SV)": _iff,
    rb"\.snd|dns\.": _au,
    rb"caff": _caf,
    rb"fLaC": _flac,
    rb"NIST_1A\n": _sphere,
    rb"Creative Voice File": _voc,
    rb"2BIT": _avr,
    rb"ALawSoundFile\*\*": _wve,
}
