"""Files that hold sound, or once did, in formats that libsndfile does not read, recognised by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

FFMPEG, SPH2PIPE, UNPACK = "ffmpeg -i {} {}", "sph2pipe -f wav {} {}", "unpack it first"

# What the file is, and what helps.
SIGNATURES: dict[bytes, tuple[str, str]] = {
    rb"....ftyp(M4[AB]|M4P)": ("M4A (AAC) audio", FFMPEG),
    rb"....ftyp3g": ("3GP audio or video", FFMPEG),
    rb"....(ftyp|moov|mdat|wide|free|skip)": ("MP4 or QuickTime audio or video", FFMPEG),
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ("Windows Media audio or video", FFMPEG),
    rb"#!AMR": ("AMR audio", FFMPEG),
    rb"\x1a\x45\xdf\xa3": ("Matroska or WebM audio or video", FFMPEG),
    rb"RIFF....AVI ": ("AVI video", FFMPEG),
    rb"FLV\x01": ("Flash video", FFMPEG),
    rb"\x00\x00\x01[\xba\xb3]|\x47.{187}\x47": ("MPEG video", FFMPEG),
    rb"\.RMF|\.ra\xfd": ("RealMedia audio or video", FFMPEG),
    rb"\xff[\xf0\xf1\xf8\xf9]|ADIF": ("AAC audio", FFMPEG),
    rb"\x0b\x77": ("AC-3 audio", FFMPEG),
    rb"wvpk|MAC |TTA[12]|tBaK|OFR |ajkg": ("audio in a rare lossless format", FFMPEG),
    rb"MP\+|MPCK|DSD |FRM8|\x02?#!SILK": ("audio in a rare format", FFMPEG),
    rb"OggS.{24,64}(Speex  |\x80theora|BBCD)": ("Ogg with Speex or video", FFMPEG),
    rb"(RIF[FX]|RF64|BW64)....WAVE": ("a WAV with a codec that libsndfile does not know, or a damaged one", FFMPEG),
    rb"NIST_1A\n.*embedded-(shorten|shortpack|wavpack)": ("a compressed NIST SPHERE recording", SPH2PIPE),
    rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!": ("a compressed archive", UNPACK),
    rb"version https://git-lfs": ("a pointer of Git LFS", "fetch the recordings: git lfs pull"),
    rb"\s*(?i:<!doctype html|<html)": ("a web page, perhaps a failed download", "fetch it again"),
}
SIGNATURE_BYTES = 1024


def help_for(head: bytes, path: Path) -> str | None:
    """What a file is that libsndfile does not read, and what to do; None for unknown ones.

    Args:
        head: The first ``SIGNATURE_BYTES`` of the file.
        path: The file, for the command line that converts it.
    """
    for signature, (kind, remedy) in SIGNATURES.items():
        if re.match(signature, head, re.DOTALL):
            return f"{kind}; {convert(path, remedy) if '{' in remedy else remedy}"
    return None


def convert(path: Path, remedy: str = FFMPEG) -> str:
    """The command line that converts a file to a WAV beside it; in words where the file has no name.

    Example:
        >>> convert(Path("my talk.m4a"))
        "convert it: ffmpeg -i 'my talk.m4a' 'my talk.wav'"
    """
    if path.parent == Path("/dev/fd"):  # it came through a pipe
        return f"save it to a file, and convert that with {remedy.split()[0]}"
    converted = path.with_name(f"{path.stem}-converted.wav" if path.suffix.lower() == ".wav" else f"{path.stem}.wav")
    return f"convert it: {remedy.format(quote(str(path)), quote(str(converted)))}"
