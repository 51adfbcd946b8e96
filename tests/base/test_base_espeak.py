"""espeak-ng: the same bits whatever was said before, and errors that help."""

import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lhuc_asr.base import espeak
from lhuc_asr.base.errors import ConfigError, MissingExtraError
from lhuc_asr.base.espeak import Speech, Voice, languages, phonemes, synthesize, variants

SENTENCE = "put the red box on the table"


def test_every_variant_says_the_same_bits_whatever_was_said_before():
    other = Voice("en-gb", "f2", pitch=60)
    changed = []
    for variant in variants():
        first = synthesize(SENTENCE, Voice(variant=variant)).samples
        synthesize("something else entirely", other)
        synthesize(f"{SENTENCE} again", Voice(variant=variant))
        second = synthesize(SENTENCE, Voice(variant=variant)).samples
        if not np.array_equal(first, second):
            changed.append(variant)
    assert len(variants()) > 50
    assert changed == []


def test_the_time_of_day_does_not_change_the_breath():
    breathy = Voice(variant="f2")
    first = synthesize(SENTENCE, breathy).samples
    time.sleep(1.1)  # the engine would seed its noise with the second
    assert np.array_equal(synthesize(SENTENCE, breathy).samples, first)


def test_another_process_says_the_same_bits():
    script = (
        "import hashlib; from lhuc_asr.base.espeak import Voice, synthesize;"
        f"print(hashlib.sha256(synthesize({SENTENCE!r}, Voice(variant='belinda')).samples.tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout for _ in "ab"
    ]
    assert runs[0] == runs[1]


def test_speech_is_finite_audible_and_at_the_stated_rate():
    samples = synthesize(SENTENCE, Voice()).samples
    assert samples.dtype == np.float32
    assert 1.0 < len(samples) / espeak.SAMPLE_RATE < 4.0
    assert 0.1 < np.abs(samples).max() <= 1.0


def test_rate_pitch_and_range_do_what_they_say():
    def seconds(rate: int) -> float:
        return len(synthesize(SENTENCE, Voice(rate=rate)).samples) / espeak.SAMPLE_RATE

    assert seconds(120) > 1.5 * seconds(240)
    # A monotonous voice has one pitch to measure.
    low, own, high = (
        _pitch(synthesize("ah ah ah", Voice(pitch=pitch, pitch_range=0)).samples) for pitch in (0, 50, 99)
    )
    assert own / low == pytest.approx(2**0.75, rel=0.1)
    assert high / own == pytest.approx(2**0.75, rel=0.1)


def _pitch(samples: np.ndarray) -> float:
    """Hz of the strongest period between 50 and 250 Hz."""
    autocorrelation = np.fft.irfft(np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2)
    lags = np.arange(espeak.SAMPLE_RATE // 250, espeak.SAMPLE_RATE // 50)
    return espeak.SAMPLE_RATE / lags[autocorrelation[lags].argmax()]


def test_nothing_to_say_gives_an_empty_array():
    nothing = synthesize("", Voice())
    assert not nothing.samples.any()
    assert nothing.phones == ()


@pytest.mark.parametrize("variant", ["m3", "f3", "klatt4", "belinda"])
@pytest.mark.parametrize("language", ["en-us", "en-gb-scotland", "de"])
def test_the_phones_that_are_said_are_those_of_the_text(language: str, variant: str):
    """The engine has two ways to tell phones: while it speaks, and without speaking."""
    phones = synthesize(SENTENCE, Voice(language, variant)).phones
    assert "".join(phone.symbol for phone in phones) == re.sub(r"[ _]", "", phonemes(SENTENCE, language))


def test_asking_for_phones_changes_no_sample(monkeypatch: pytest.MonkeyPatch):
    voices = [Voice(variant=variant) for variant in ("m3", "f2", "klatt4", "belinda", "Gene2")]
    with_phones = [synthesize(SENTENCE, voice) for voice in voices]
    for option in ("_INITIALIZE_PHONEME_EVENTS", "_INITIALIZE_PHONEME_IPA"):
        monkeypatch.setattr(espeak, option, 0)
    for voice, speech in zip(voices, with_phones, strict=True):
        plain = synthesize(SENTENCE, voice)
        assert plain.phones == ()
        assert np.array_equal(plain.samples, speech.samples)


def test_phones_are_in_order_and_their_words_where_they_stand_in_the_text():
    speech = synthesize(SENTENCE, Voice())
    seconds = len(speech.samples) / espeak.SAMPLE_RATE
    edges = [edge for phone in speech.phones for edge in (phone.start, phone.end)]
    assert edges == sorted(edges)
    assert edges[0] >= 0.0
    assert seconds - 0.05 < edges[-1] <= seconds
    words = SENTENCE.split()
    starts = {sum(len(word) + 1 for word in words[:number]) for number in range(len(words))}
    # "on the" is said as one word.
    assert {phone.word for phone in speech.phones} == starts - {SENTENCE.index("the table")}


@pytest.mark.parametrize("rate", [120, 200])
def test_sounds_are_where_their_phones_are(rate: int):
    """A hiss is above 4 kHz, a vowel below; a stop begins with its burst, after silence; a comma is silence."""
    speech = synthesize("a saw, a saw, a car", Voice(rate=rate))
    phones, high = speech.phones, []
    assert [phone.symbol.strip("ˈˌ") for phone in phones] == ["ɐ", "s", "ɔː", "ɐ", "s", "ɔː", "ɐ", "k", "ɑːɹ"]
    for phone in phones:
        power = np.abs(np.fft.rfft(_part(speech, phone.start, phone.end))) ** 2
        high.append(power[len(power) * 4000 * 2 // espeak.SAMPLE_RATE :].sum() / power.sum())
    hiss = [high[index] for index in (1, 4)]
    assert min(hiss) > 0.5 > 0.1 > max(high[index] for index in (0, 2, 3, 5, 6, 8))
    loudness = np.abs(speech.samples).max()
    closure = _part(speech, phones[7].start - 0.015, phones[7].start)
    burst = _part(speech, phones[7].start, phones[7].start + 0.015)
    pause = _part(speech, phones[2].end + 0.01, phones[3].start - 0.01)
    assert len(pause) > 0.05 * espeak.SAMPLE_RATE
    assert max(np.abs(closure).max(), np.abs(pause).max()) < 0.02 * loudness < 0.1 * loudness < np.abs(burst).max()


def _part(speech: Speech, start: float, end: float) -> np.ndarray:
    """The samples between two times, seconds."""
    return speech.samples[round(start * espeak.SAMPLE_RATE) : round(end * espeak.SAMPLE_RATE)]


def test_phonemes_have_words_and_separators():
    assert phonemes("hello world", "en-us") == "h_ə_l_ˈoʊ w_ˈɜː_l_d"
    # Two clauses come back as one line.
    assert phonemes("cat; dog", "en-us").count(" ") == 1
    assert phonemes("dog", "en-us") != phonemes("dog", "en-gb")


def test_every_language_can_be_used():
    # "en-gb" is in the engine's own list, but not found by that name; "fo" is listed without a dictionary.
    assert {"en-us", "en-gb", "en-gb-scotland", "de", "nb", "cmn"} <= set(languages())
    assert "fo" not in languages()
    for language in languages():
        assert isinstance(phonemes("a", language), str)


def test_unknown_names_are_errors_that_list_near_ones():
    with pytest.raises(ConfigError, match=r"no language 'en-us-nycc'; near names: en-us-nyc.*languages\(\)"):
        phonemes("hello", "en-us-nycc")
    with pytest.raises(ConfigError, match=r"no variant 'belindaa'; near names: belinda.*variants\(\)"):
        synthesize("hello", Voice(variant="belindaa"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pitch": 100}, "pitch is 100, expected 0 to 99"),
        ({"pitch_range": -1}, "pitch_range is -1, expected 0 to 99"),
        ({"rate": 30}, "rate is 30, expected 80 to 450"),
    ],
)
def test_a_voice_out_of_limits_is_an_error(wrong: dict[str, int], message: str):
    with pytest.raises(ConfigError, match=message):
        Voice(**wrong)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lhuc_asr\[voices\]'"):
        synthesize("hello", Voice())


@pytest.mark.parametrize("text", ["a\0b", "name\udcff"])
def test_text_that_the_library_would_cut_or_not_understand_is_refused(text: str):
    with pytest.raises(ConfigError, match="espeak-ng cannot say it"):
        phonemes(text, "en-us")
    with pytest.raises(ConfigError, match="espeak-ng cannot say it"):
        synthesize(text, Voice())


@pytest.mark.parametrize(
    "text", ["😀", "<b>", "[[", "]]", "\x01\x1b", "\u200d", "\u0301", "ﬀ²", "\U000e0001", "9" * 5000, "<" * 500]
)
def test_odd_text_is_said_or_left_out(text: str):
    assert isinstance(phonemes(text, "en-us"), str)
    assert np.isfinite(synthesize(text[:100], Voice()).samples).all()


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("missing.so", "espeak-ng cannot be loaded"),
        ("text.so", "cannot be loaded"),
        ("libc.so.6", "is another version"),
    ],
)
def test_a_library_that_cannot_be_used_is_named(
    library: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "text.so").write_text("not a library", encoding="utf-8")
    path = Path(library) if library.startswith("libc") else tmp_path / library
    monkeypatch.setattr(espeak, "_paths", lambda: (path, tmp_path))
    with (
        pytest.raises(MissingExtraError, match=f"{message}.*; reinstall it with pip install") as caught,
        espeak._fresh_library(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_loader_that_fails_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", ModuleType("espeakng_loader"))
    with pytest.raises(MissingExtraError, match="cannot be found by the package espeakng-loader"):
        espeak._paths()
