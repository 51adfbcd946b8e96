"""Headers of recordings in every format, and files that are not as long as their headers say."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.formats import NOT_RECORDINGS, probe
from lhuc_asr.audio.levels import levels
from lhuc_asr.audio.recording import read_native
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError

RATE = 16000
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, RATE // 2)
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)

# Every format that libsndfile writes; its writer of DWVW is broken.
WRITABLE = [
    (form, subtype)
    for form in sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
    for subtype in soundfile.available_subtypes(form)
    if not subtype.startswith(("DWVW", "MPEG_LAYER_I_", "MPEG_LAYER_II_"))
]
# Their headers give no length, so that a cut is a shorter recording.
WITHOUT_LENGTH = {"PAF", "PVF", "IRCAM"}


def encoded(form: str, subtype: str | None = None, samples: np.ndarray = NOISE) -> bytes:
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, 8000 if form == "WVE" else RATE, format=form, subtype=subtype)
    except soundfile.LibsndfileError:
        pytest.skip("libsndfile does not write it")
    return file.getvalue()


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(path: Path) -> np.ndarray:
    """All samples, in both ways of reading."""
    info = probe(path)
    samples, rate = read_native(Utterance("u", "s", "", path, 0.0, info.seconds, ""))
    assert (len(samples), rate) == (info.frames, info.sample_rate)
    assert len(levels(path).power) > 0
    return samples


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def test_probe_reads_the_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((4000, 2)), 8000)
    info = probe(tmp_path / "a.flac")
    assert (info.sample_rate, info.channels, info.frames, info.seconds) == (8000, 2, 4000, 0.5)


@pytest.mark.parametrize(("form", "subtype"), WRITABLE)
def test_what_libsndfile_reads_is_read_and_no_cut_of_it(
    tmp_path: Path, form: str, subtype: str, capfd: pytest.CaptureFixture
) -> None:
    content = encoded(form, subtype)
    whole = saved(tmp_path / "whole", content)
    if form in NOT_RECORDINGS:
        with pytest.raises(AudioError, match="convert it: ffmpeg -i"):
            probe(whole)
        return
    samples = read(whole)
    assert 8000 <= len(samples) < 8400  # codecs of blocks fill the last one
    lossless = subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_24")
    if lossless:
        np.testing.assert_allclose(samples, NOISE, atol=1 / 32768)
    if form not in WITHOUT_LENGTH:
        for left in (len(content) - 2, len(content) - 60, len(content) * 2 // 3, len(content) // 2):
            with pytest.raises(AudioError):
                read(saved(tmp_path / "cut", content[:left]))


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_a_cut_wav_is_measured(tmp_path: Path, endian: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE, endian=endian)
    assert probe(path).frames == 8000
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AudioError, match="truncated: 100 bytes of samples are missing"):
        probe(path)


@pytest.mark.parametrize(
    ("form", "name", "missing"), [("NIST", "a.sph", 8512), ("RF64", "a.wav", 8052), ("W64", "a.w64", 8052)]
)
def test_half_a_file_is_truncated(tmp_path: Path, form: str, name: str, missing: int) -> None:
    content = encoded(form, "PCM_16")
    with pytest.raises(AudioError, match=f"truncated: {missing} bytes of samples are missing"):
        probe(saved(tmp_path / name, content[: len(content) - missing]))


# Files that were written to a pipe, and do not know how long they are.


@pytest.mark.parametrize("claimed", [0, 0x7FFF_0000, 0x7FFF_F000, 0xFFFF_FFFE, 0xFFFF_FFFF])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_a_streamed_wav_is_read_to_its_end(tmp_path: Path, claimed: int, endian: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, NOISE, RATE, format="WAV", endian=endian.upper())
    content, size = file.getvalue(), claimed.to_bytes(4, endian)
    content = with_bytes(with_bytes(content, 4, size), content.index(b"data") + 4, size)
    np.testing.assert_allclose(read(saved(tmp_path / "a.wav", content)), NOISE, atol=1 / 32768)


@pytest.mark.parametrize(
    ("form", "chunk", "offset", "size"),
    [
        ("AU", b".snd", 8, bytes(4)),
        ("AU", b".snd", 8, b"\xff" * 4),
        ("AIFF", b"SSND", 4, bytes(4)),
        ("AIFF", b"SSND", 4, b"\xff" * 4),
        ("CAF", b"data", 4, b"\xff" * 8),
        ("RF64", b"ds64", 16, bytes(8)),
        ("RF64", b"ds64", 16, b"\xff" * 8),
        ("W64", b"data", 16, bytes(8)),
        ("W64", b"data", 16, b"\xff" * 8),
    ],
)
def test_other_streamed_formats_are_read_to_their_ends(
    tmp_path: Path, form: str, chunk: bytes, offset: int, size: bytes
) -> None:
    content = encoded(form, "PCM_16")
    path = saved(tmp_path / "a", with_bytes(content, content.index(chunk) + offset, size))
    np.testing.assert_allclose(read(path), NOISE, atol=1 / 32768)


def test_an_empty_wav_with_another_chunk_behind_has_no_samples(tmp_path: Path) -> None:
    content = encoded("WAV", samples=np.zeros(0)) + b"LIST\x06\x00\x00\x00abcdef"
    with pytest.raises(AudioError, match="the recording has no samples"):
        probe(saved(tmp_path / "a.wav", content))


def flac_claiming(count: int) -> bytes:
    content = encoded("FLAC")
    return with_bytes(content, 21, bytes([content[21] & 0xF0 | count >> 32]) + (count & 0xFFFF_FFFF).to_bytes(4, "big"))


def test_a_flac_without_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.flac", flac_claiming(0))
    np.testing.assert_allclose(read(path), NOISE, atol=1 / 32768)
    part, _ = read_native(Utterance("u", "s", "", path, 0.2, 0.1, ""))
    np.testing.assert_allclose(part, NOISE[3200:4800], atol=1 / 32768)


def test_a_cut_flac_without_its_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"damaged|truncated"):
        read(saved(tmp_path / "a.flac", flac_claiming(0)[:-500]))


# Headers that are wrong.


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        (2**36 - 1, "truncated: 68719476735 samples expected, 8000 found"),
        (8001, "truncated: 8001 samples expected, 8000 found"),
        (4000, "the header gives 4000 samples, but the file has 8000"),
    ],
)
def test_the_length_of_a_flac_is_compared_with_its_last_frame(tmp_path: Path, claimed: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        probe(saved(tmp_path / "a.flac", flac_claiming(claimed)))


def test_samples_behind_those_that_the_header_gives_are_not_lost_silently(tmp_path: Path) -> None:
    content = encoded("WAV")
    short = with_bytes(content, content.index(b"data") + 4, (1000).to_bytes(4, "little"))
    with pytest.raises(AudioError, match="the header gives 1000 bytes of samples, but 15000 bytes more follow"):
        probe(saved(tmp_path / "a.wav", short))


@pytest.mark.parametrize(
    "behind", [b"TAG" + bytes(125), bytes(100_000), b"LIST\x03\x00\x00\x00abc\x00", b"LIST\xff\xff"]
)
def test_what_is_known_to_follow_samples_does_not_matter(tmp_path: Path, behind: bytes) -> None:
    assert len(read(saved(tmp_path / "a.wav", encoded("WAV") + behind))) == 8000


def test_a_chunk_of_odd_size_is_followed_by_a_byte(tmp_path: Path) -> None:
    content = encoded("WAV")
    content = content[:36] + b"LIST\x03\x00\x00\x00abc\x00" + content[36:]
    np.testing.assert_allclose(read(saved(tmp_path / "a.wav", content)), NOISE, atol=1 / 32768)


@pytest.mark.parametrize(
    "beginning", [b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"caff\0\1\0\0", b"Creative Voice File\x1a\x1a\0"]
)
@pytest.mark.parametrize("chunk", [bytes(4), b"abcd", b"\1\0\0\0"])
def test_a_file_of_empty_chunks_is_refused_soon(tmp_path: Path, beginning: bytes, chunk: bytes) -> None:
    path = saved(tmp_path / "a.wav", beginning + (chunk + bytes(4)) * 2_000_000)
    with pytest.raises(AudioError):
        probe(path)


def test_an_mp3_whose_length_can_only_be_guessed_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Without the frame with its length, libsndfile takes the first bit rate for that of all, and stops too early."""
    content = encoded("MP3", samples=np.concatenate([0.01 * NOISE, np.tile(NOISE, 9)]))
    assert len(read(saved(tmp_path / "a.mp3", content))) == 80_000
    tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + content + b"TAG" + bytes(125)
    assert len(read(saved(tmp_path / "a.mp3", tagged))) == 80_000
    second = content.index(content[:2], 100)
    with pytest.raises(AudioError, match=r"does not say how long it is; convert it: ffmpeg -i .*a\.mp3 .*a\.wav"):
        probe(saved(tmp_path / "a.mp3", content[second:]))
    with pytest.raises(AudioError, match="truncated: its last frame is cut"):
        probe(saved(tmp_path / "a.mp3", content[:-100]))
    with pytest.raises(AudioError, match=r"truncated: \d+ frames expected"):
        probe(saved(tmp_path / "a.mp3", content[: content.rindex(content[:2], 0, -1000)]))


@pytest.mark.parametrize("rate", [1, 16, 3999, 10_000_000])
def test_sample_rates_that_are_not_of_sound_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, rate)
    with pytest.raises(AudioError, match=f"a sample rate of {rate} Hz, expected 4000 to 768000"):
        probe(tmp_path / "a.wav")


def test_three_hundred_channels_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile(NOISE[:1600, None], 300), RATE)
    np.testing.assert_allclose(read(tmp_path / "a.wav"), NOISE[:1600], atol=1e-4)


# Names and what is not a file.


def test_the_name_does_not_choose_the_format(tmp_path: Path) -> None:
    for name in ("a.raw", "a.RAW", "a.sd2", "a.vox", "a.mp3", "a", b"\xff\xfe.wav"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
        assert len(read(saved(path, encoded("WAV")))) == 8000


def test_no_samples_are_made_of_a_raw_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"not a WAV, FLAC, .* recording"):
        probe(saved(tmp_path / "a.raw", NOISE.tobytes()))


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_folder, "no such recording: it is a folder"),
        (make_fifo, "a pipe or device, expected a file"),
        (lambda path: Path("/dev/zero"), "a pipe or device, expected a file"),
        (lambda path: saved(path, b""), "the file is empty"),
        (lambda path: path, "no such recording"),
        (lambda path: saved(path, b"x") / "below.wav", "no such recording"),
        (lambda path: Path("a\0b.wav"), "cannot be opened .*null"),
        (lambda path: path.parent / ("a" * 300), "cannot be opened .*too long"),
    ],
)
def test_what_is_not_a_file_is_an_error_of_one_line(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path / "a.wav")
    for reader in (probe, levels):
        with pytest.raises(AudioError, match=message) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
        assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "M4A .*; convert it: ffmpeg -i"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "MP4 .*; convert it: ffmpeg -i"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "Windows Media .*; convert it: ffmpeg -i"),
        (b"#!AMR\n" + bytes(40), "AMR audio; convert it: ffmpeg -i"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), "Matroska or WebM .*; convert it: ffmpeg -i"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI video; convert it: ffmpeg -i"),
        (b"\xff\xf1\x50\x80" + bytes(40), "AAC audio; convert it: ffmpeg -i"),
        (b"\x1f\x8b\x08" + bytes(40), "a compressed archive; unpack it"),
        (b"BW64\xff\xff\xff\xffWAVEds64", "a WAV with a codec that libsndfile does not know.*; convert it: ffmpeg -i"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch the recordings: git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page, perhaps a failed download"),
        (b"this is text\n", "not a WAV, FLAC, Ogg, MP3, AIFF, CAF, AU or NIST SPHERE recording"),
    ],
)
def test_other_formats_are_recognised_by_their_content(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        probe(saved(tmp_path / "a.wav", content))


def test_a_compressed_sphere_file_is_named(tmp_path: Path) -> None:
    content = encoded("NIST", "PCM_16")
    content = content.replace(b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00")
    with pytest.raises(AudioError, match=r"compressed NIST SPHERE recording; convert it: sph2pipe -f wav"):
        probe(saved(tmp_path / "a.sph", content))


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError, MemoryError, ZeroDivisionError, OverflowError])
def test_every_error_of_soundfile_is_an_error_of_the_recording(
    tmp_path: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.wav", encoded("WAV"))

    def fail(*arguments: object, **options: object) -> None:
        raise error("of soundfile")

    for method in ("read", "__init__"):
        monkeypatch.setattr(soundfile.SoundFile, method, fail)
        with pytest.raises(AudioError, match=r"a\.wav: .*of soundfile"):
            levels(path)


@pytest.mark.parametrize("form", ["NIST", "AU", "AVR", "WVE", "W64", "RF64", "CAF"])
def test_a_second_file_behind_the_samples_is_an_error(tmp_path: Path, form: str) -> None:
    content = encoded(form)
    with pytest.raises(AudioError, match=r"the header gives \d+ bytes of samples, but \d+ bytes more follow"):
        probe(saved(tmp_path / "joined", content + content))


def test_an_ogg_file_is_one_stream_without_damage(tmp_path: Path) -> None:
    content = encoded("OGG", "VORBIS", np.tile(NOISE, 3))
    assert probe(saved(tmp_path / "a.ogg", content)).frames == 3 * len(NOISE)
    middle = len(content) // 2
    with pytest.raises(AudioError, match="pages of the Ogg stream are missing or damaged; fetch it again"):
        probe(saved(tmp_path / "damaged.ogg", with_bytes(content, middle, bytes(200))))
    serial = content[14:18]
    other = content.replace(serial, bytes(byte ^ 1 for byte in serial))
    with pytest.raises(AudioError, match="several Ogg streams, of which only the first would be read; convert it"):
        probe(saved(tmp_path / "joined.ogg", content + other))
