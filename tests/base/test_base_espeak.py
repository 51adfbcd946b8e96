"""espeak-ng: the same bits whatever was said before, and errors that help."""

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lhuc_asr.base import espeak
from lhuc_asr.base.errors import ConfigError, MissingExtraError
from lhuc_asr.base.espeak import Voice, languages, phonemes, synthesize, variants

SENTENCE = "put the red box on the table"


def test_every_variant_says_the_same_bits_whatever_was_said_before():
    other = Voice("en-gb", "f2", pitch=60)
    changed = []
    for variant in variants():
        first, _ = synthesize(SENTENCE, Voice(variant=variant))
        synthesize("something else entirely", other)
        synthesize(f"{SENTENCE} again", Voice(variant=variant))
        second, _ = synthesize(SENTENCE, Voice(variant=variant))
        if not np.array_equal(first, second):
            changed.append(variant)
    assert len(variants()) > 50
    assert changed == []


def test_the_time_of_day_does_not_change_the_breath():
    breathy = Voice(variant="f2")
    first, _ = synthesize(SENTENCE, breathy)
    time.sleep(1.1)  # the engine would seed its noise with the second
    assert np.array_equal(synthesize(SENTENCE, breathy)[0], first)


def test_another_process_says_the_same_bits():
    script = (
        "import hashlib; from lhuc_asr.base.espeak import Voice, synthesize;"
        f"print(hashlib.sha256(synthesize({SENTENCE!r}, Voice(variant='belinda'))[0].tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout for _ in "ab"
    ]
    assert runs[0] == runs[1]


def test_speech_is_finite_audible_and_at_the_stated_rate():
    samples, rate = synthesize(SENTENCE, Voice())
    assert rate == espeak.SAMPLE_RATE
    assert samples.dtype == np.float32
    assert 1.0 < len(samples) / rate < 4.0
    assert 0.1 < np.abs(samples).max() <= 1.0


def test_rate_pitch_and_range_do_what_they_say():
    def seconds(rate: int) -> float:
        return len(synthesize(SENTENCE, Voice(rate=rate))[0]) / espeak.SAMPLE_RATE

    assert seconds(120) > 1.5 * seconds(240)
    # A monotonous voice has one pitch to measure.
    low, own, high = (_pitch(synthesize("ah ah ah", Voice(pitch=pitch, pitch_range=0))[0]) for pitch in (0, 50, 99))
    assert own / low == pytest.approx(2**0.75, rel=0.1)
    assert high / own == pytest.approx(2**0.75, rel=0.1)


def _pitch(samples: np.ndarray) -> float:
    """Hz of the strongest period between 50 and 250 Hz."""
    autocorrelation = np.fft.irfft(np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2)
    lags = np.arange(espeak.SAMPLE_RATE // 250, espeak.SAMPLE_RATE // 50)
    return espeak.SAMPLE_RATE / lags[autocorrelation[lags].argmax()]


def test_nothing_to_say_gives_an_empty_array():
    assert not synthesize("", Voice())[0].any()


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
    assert np.isfinite(synthesize(text[:100], Voice())[0]).all()


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
