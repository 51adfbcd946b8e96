"""espeak-ng: text to speech, and text to phonemes, in a hundred languages, without a network.

The library and its data come with the package espeakng-loader (GPL-3; the extra ``voices``), which is not imported
anywhere else. It is called through ctypes, one call at a time.

espeak-ng keeps state between calls that its own initialisation does not reset: the phase of the voice, its place
in the table of pitch flutter, the echo's buffer; and it seeds its noise with the time of day. 88 of its 104
variants say the same sentence differently the second time. Every call here therefore loads the library again,
seeds it, and unloads it afterwards (0.4 ms), so that the same text and voice always give the same bits. This does not
hold where other code of the same process keeps the same library file loaded.
"""

from __future__ import annotations

import ctypes
import difflib
import itertools
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lhuc_asr.base.errors import ConfigError, MissingExtraError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.foreign import foreign_errors, one_line

SAMPLE_RATE = 22050
PHONEME_SEPARATOR = "_"

# Limits that the engine accepts without clipping: percent of its pitch scale, and words per minute.
PITCH_LIMITS = (0, 99)
RATE_LIMITS = (80, 450)

# Constants of speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS, _INITIALIZE_PHONEME_IPA, _INITIALIZE_DONT_EXIT = 0x0001, 0x0002, 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PHONEMES_IPA = 0x02
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_EVENT_LIST_TERMINATED, _EVENT_WORD, _EVENT_END, _EVENT_PHONEME = 0, 1, 5, 7


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h, for events whose ``id`` is the symbol of a phoneme."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("symbol", ctypes.c_char * 8),
    )


_SynthesisCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.POINTER(_Event)
)

# What is called here; a library that lacks one of them is of another version.
_FUNCTIONS = (
    "espeak_Initialize", "espeak_ListVoices", "espeak_SetParameter", "espeak_SetSynthCallback", "espeak_SetVoiceByName",
    "espeak_Synchronize", "espeak_Synth", "espeak_Terminate", "espeak_TextToPhonemes", "espeak_ng_SetRandSeed",
)  # fmt: skip
_REINSTALL = "reinstall it with pip install --force-reinstall 'lhuc_asr[voices]'"

_lock = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    Attributes:
        language: Language or accent, one of ``languages()``.
        variant: Timbre, one of ``variants()``.
        pitch: Pitch, 0 to 99; 50 is the variant's own, 0 and 99 are about three quarters of an octave away.
        pitch_range: Range of the pitch, 0 to 99; 0 is monotonous, 50 is the variant's own.
        rate: Speaking rate, 80 to 450 words per minute.

    Raises:
        ConfigError: A number is outside its limits.
    """

    language: str = "en-us"
    variant: str = "m3"
    pitch: int = 50
    pitch_range: int = 50
    rate: int = 175

    def __post_init__(self) -> None:
        limits = {"pitch": PITCH_LIMITS, "pitch_range": PITCH_LIMITS, "rate": RATE_LIMITS}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"voice: {name} is {value}, expected {low} to {high}")


@dataclass(frozen=True, slots=True)
class SpokenPhone:
    """A phone of synthesized speech, where espeak-ng puts it.

    A stop begins with its burst: its closure belongs to the phone before, or to none where a word begins. A vowel after
    a nasal or a liquid begins where the transition between the two has ended.

    Attributes:
        symbol: Its symbol in the International Phonetic Alphabet, with stress; a vowel and the consonant that follows
            may have one symbol, such as ``əl``.
        word: Place in the text of the word, or of the words that are said as one, in characters from 0.
        start: Beginning, seconds.
        end: End, seconds; a pause may follow.
    """

    symbol: str
    word: int
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Synthesized speech.

    Attributes:
        samples: Samples in -1..1, shape (samples,), at ``SAMPLE_RATE``.
        phones: The phones that are said, in order.
    """

    samples: npt.NDArray[np.float32]
    phones: tuple[SpokenPhone, ...]


def synthesize(text: str, voice: Voice) -> Speech:
    """Turn text into speech.

    Args:
        text: The text; punctuation makes pauses.
        voice: The voice.

    Returns:
        The speech; no samples for a text without words.

    Raises:
        ConfigError: The language or the variant is unknown (the message lists near names), or the text cannot be said.
        MissingExtraError: espeak-ng is not installed.
    """
    name = f"{_identifier(voice.language)}+{_known(voice.variant, variants(), 'variant')}"
    chunks: list[npt.NDArray[np.int16]] = []
    events: list[tuple[int, int, int, str]] = []

    def collect(samples: Any, count: int, reported: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        events.extend(_events(reported))
        return 0

    callback = _SynthesisCallback(collect)
    encoded = _encoded(text)
    with _fresh_library() as library:
        library.espeak_SetSynthCallback(callback)
        _checked(library.espeak_SetVoiceByName(name.encode()), f"voice {name}")
        # Setting a voice resets the parameters, so they come after it.
        library.espeak_SetParameter(_PARAMETER_RATE, voice.rate, 0)
        library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
        library.espeak_SetParameter(_PARAMETER_RANGE, voice.pitch_range, 0)
        status = library.espeak_Synth(encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        _checked(status, f"saying {text!r}")
        _checked(library.espeak_Synchronize(), f"saying {text!r}")
    joined = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    return Speech(joined.astype(np.float32) / 32768.0, tuple(_spoken_phones(events)))


def _events(reported: Any) -> Iterator[tuple[int, int, int, str]]:
    """Type, place in the text, sample and symbol of each event that can begin or end a phone."""
    for index in itertools.count():
        event = reported[index]
        if event.type == _EVENT_LIST_TERMINATED:
            return
        if event.type in (_EVENT_WORD, _EVENT_PHONEME, _EVENT_END):
            symbol = event.symbol.decode(errors="ignore") if event.type == _EVENT_PHONEME else ""
            yield event.type, event.text_position - 1, event.sample, symbol


def _spoken_phones(events: list[tuple[int, int, int, str]]) -> Iterator[SpokenPhone]:
    """The phones among the events; each ends where the next event is, a pause's has no symbol."""
    for (kind, word, sample, symbol), (_, _, end, _) in itertools.pairwise(events):
        if kind == _EVENT_PHONEME and symbol:
            yield SpokenPhone(symbol, word, sample / SAMPLE_RATE, end / SAMPLE_RATE)


def phonemes(text: str, language: str) -> str:
    """The pronunciation of ``text`` in the International Phonetic Alphabet.

    Args:
        text: Words.
        language: Language or accent, one of ``languages()``.

    Returns:
        Words separated by spaces, the phonemes of a word by ``_``, with stress marks: ``"h_ə_l_ˈoʊ w_ˈɜː_l_d"``.
        Around a word in another script, marks such as ``(en)`` name the language that pronounced it.

    Raises:
        ConfigError: The language is unknown, and the message lists near names; or the text cannot be said.
        MissingExtraError: espeak-ng is not installed.
    """
    identifier = _identifier(language)
    rest = ctypes.c_char_p(_encoded(text))
    mode = _PHONEMES_IPA | ord(PHONEME_SEPARATOR) << 8
    clauses: list[str] = []
    with _fresh_library() as library:
        _checked(library.espeak_SetVoiceByName(identifier.encode()), f"language {language}")
        while rest.value is not None:  # one clause per call; the pointer is null after the last one
            clauses.append(
                library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, mode).decode(errors="replace")
            )
    return " ".join(" ".join(clauses).split())


def languages() -> tuple[str, ...]:
    """The languages and accents that espeak-ng can speak, sorted: ``("af", "am", ..., "zh")``.

    Raises:
        MissingExtraError: espeak-ng is not installed.
    """
    return tuple(sorted(_voice_files()))


@cache
def variants() -> tuple[str, ...]:
    """The timbres that can be used with any language, sorted: ``("Alex", ..., "m3", ...)``.

    Raises:
        MissingExtraError: espeak-ng is not installed.
    """
    # Kept in a name: the record holds its address only.
    code = ctypes.create_string_buffer(b"variant")
    wanted = _VoiceRecord(languages=ctypes.addressof(code))
    return tuple(sorted({file.rpartition("/")[2] for _, _, file in _listed(wanted)}))


class _VoiceRecord(ctypes.Structure):
    """``espeak_VOICE`` of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        # Codes, each between a byte with its priority and a zero; a priority of zero ends the list.
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@cache
def _voice_files() -> dict[str, str]:
    """The voice file of each language code, for the languages whose dictionary is installed."""
    data = _paths()[1]
    files: dict[str, str] = {}
    for _, code, file in _listed(None):
        with foreign_errors(MissingExtraError, f"{data}: the voice {file} of espeak-ng cannot be read", _REINSTALL):
            text = (data / "lang" / file).read_text(encoding="utf-8")
        named = re.search(r"^dictionary\s+(\S+)", text, re.M)
        candidates = [named[1]] if named else [code, code.partition("-")[0]]
        if any((data / f"{candidate}_dict").exists() for candidate in candidates):
            files.setdefault(code, file)
    return files


def _listed(wanted: _VoiceRecord | None) -> list[tuple[int, str, str]]:
    """(priority, language code, file) of the voices that match, or of all languages, in order of priority."""
    voices: list[tuple[int, str, str]] = []
    with _fresh_library() as library:
        records = library.espeak_ListVoices(None if wanted is None else ctypes.byref(wanted))
        for record in _until_null(records):
            address = record.languages
            while priority := ctypes.string_at(address, 1)[0]:
                code = ctypes.string_at(address + 1)
                voices.append((priority, code.decode(), record.identifier.decode()))
                address += len(code) + 2
    return sorted(voices)


def _until_null(records: Any) -> Iterator[Any]:
    index = 0
    while records[index]:
        yield records[index].contents
        index += 1


def _identifier(language: str) -> str:
    # The voice's file, because espeak_SetVoiceByName does not find "en-gb", which its own list names.
    return _voice_files()[_known(language, _voice_files(), "language")]


def _known(name: str, names: Iterable[str], kind: str) -> str:
    names = sorted(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
        raise ConfigError(
            f"espeak-ng has no {kind} {name!r}; near names: {', '.join(near)} "
            f"(lhuc_asr.base.espeak.{kind}s() lists all {len(names)})"
        )
    return name


def _encoded(text: str) -> bytes:
    """The text for the library, which would end at a NUL, and knows UTF-8 only."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{one_line(ascii(text))}: is not text in UTF-8; espeak-ng cannot say it") from error
    if b"\0" in encoded:
        raise ConfigError(f"{one_line(ascii(text))}: has the character NUL; espeak-ng cannot say it")
    return encoded


def _checked(status: int, doing: str) -> None:
    if status != 0:
        raise ConfigError(f"espeak-ng failed with status {status} at {doing}")


def _paths() -> tuple[Path, Path]:
    """The shared library, and the folder of its data."""
    with extra("voices"):
        import espeakng_loader
    with foreign_errors(MissingExtraError, "espeak-ng cannot be found by the package espeakng-loader", _REINSTALL):
        return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """A freshly loaded library, unloaded when the block ends."""
    path, data = _paths()
    process = ctypes.CDLL(None)
    process.dlclose.argtypes = [ctypes.c_void_p]
    with _lock:
        with foreign_errors(MissingExtraError, f"{path}: espeak-ng cannot be loaded", _REINSTALL):
            library = ctypes.CDLL(str(path))
        try:
            with foreign_errors(MissingExtraError, f"{path}: is another version of espeak-ng", _REINSTALL):
                _declare(library)
            options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_PHONEME_IPA | _INITIALIZE_DONT_EXIT
            rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), options)
            if rate != SAMPLE_RATE:
                raise MissingExtraError(
                    f"{path}: espeak-ng started with status {rate}, expected its sample rate {SAMPLE_RATE}; "
                    f"{_REINSTALL}"
                )
            # Breath is noise, from a generator that initialisation seeds with the time of day; two variants take
            # it from the C library's generator, which outlives the load.
            library.espeak_ng_SetRandSeed(1)
            process.srand(1)
            yield library
            library.espeak_Terminate()
        finally:
            process.dlclose(library._handle)


def _declare(library: ctypes.CDLL) -> None:
    """Types of the arguments and results that are not plain integers.

    Raises:
        AttributeError: The library lacks a function.
    """
    for name in _FUNCTIONS:
        getattr(library, name)
    text, pointer = ctypes.c_char_p, ctypes.c_void_p
    unsigned, integer = ctypes.c_uint, ctypes.c_int
    library.espeak_Initialize.argtypes = [integer, integer, text, integer]
    library.espeak_SetVoiceByName.argtypes = [text]
    library.espeak_ListVoices.argtypes = [pointer]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
    library.espeak_Synth.argtypes = [
        text, ctypes.c_size_t, unsigned, integer, unsigned, unsigned, pointer, pointer
    ]  # fmt: skip
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_ng_SetRandSeed.restype = None
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(text), integer, integer]
    library.espeak_TextToPhonemes.restype = text
