"""Synthetic voices: the same bits from a seed, groups that differ as promised, a warp that moves formants only."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.espeak import Voice, variants
from lhuc_asr.corpus import voices
from lhuc_asr.corpus.grammar import grammar_sentences, grammar_text, vocabulary
from lhuc_asr.corpus.voices import SyntheticSpeaker, VoicesConfig, generate, recordings, say, speakers

SMALL = VoicesConfig(
    training_speakers=2,
    test_speakers=2,
    control_speakers=1,
    training_utterances=2,
    test_utterances=2,
    control_utterances=1,
)
SENTENCE = "PUT THE RED BALL NEAR THE BEACH"


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def speaker_of(warp: float, noise_decibels: float = 60.0, variant: str = "m3") -> SyntheticSpeaker:
    return SyntheticSpeaker(1, "train", Voice("en-us", variant, 50, 0, 170), warp, noise_decibels, 0.0, -25.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    generate(SMALL, folder, processes=1)
    return folder


def test_the_corpus_does_not_depend_on_the_number_of_processes(corpus: Path, tmp_path: Path):
    generate(SMALL, tmp_path / "corpus", processes=2)
    assert hashes(tmp_path / "corpus") == hashes(corpus)


def test_another_seed_is_another_corpus(corpus: Path, tmp_path: Path):
    generate(SMALL.model_copy(update={"seed": 2}), tmp_path / "corpus", processes=1)
    here, there = hashes(corpus), hashes(tmp_path / "corpus")
    assert here.keys() == there.keys()
    assert all(here[name] != there[name] for name in here)


def test_layout_is_librispeechs(corpus: Path):
    flacs = sorted(str(file.relative_to(corpus)) for file in corpus.rglob("*.flac"))
    assert flacs[0] == "control/3001/1/3001-1-0000.flac"
    assert len(flacs) == 2 * 2 + 2 * 2 + 1
    for file in corpus.rglob("*.trans.txt"):
        rows = [line.split(" ", 1) for line in file.read_text().splitlines()]
        assert [f"{name}.flac" for name, _ in rows] == sorted(path.name for path in file.parent.glob("*.flac"))
        assert all(set(text.split()) <= set(vocabulary()) for _, text in rows)
    table = [line for line in (corpus / "SPEAKERS.TXT").read_text().splitlines() if not line.startswith(";")]
    assert [line.split("|")[0].strip() for line in table] == ["1001", "1002", "2001", "2002", "3001"]
    assert [line.split("|")[2].strip() for line in table] == ["train", "train", "test", "test", "control"]


def test_recordings_are_16_bit_at_the_rate_asked_for(corpus: Path):
    for file in corpus.rglob("*.flac"):
        info = soundfile.info(file)
        assert (info.samplerate, info.subtype, info.channels) == (16000, "PCM_16", 1)
        assert 1.0 < info.duration < 8.0


def test_a_failure_leaves_what_was_there(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "old").write_text("kept")

    def fail(*_: object) -> np.ndarray:
        raise OSError("no space")

    monkeypatch.setattr(voices, "say", fail)
    with pytest.raises(OSError, match="no space"):
        generate(SMALL, folder, processes=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "old"]


def test_groups_differ_as_promised():
    config = VoicesConfig(training_speakers=60, test_speakers=16, control_speakers=12)
    people = speakers(config)
    group = {name: [p for p in people if p.group == name] for name in ("train", "test", "control")}
    assert [len(members) for members in group.values()] == [60, 16, 12]
    seen = {person.voice.variant for person in group["train"]}
    assert seen == set(voices.TRAINING_VARIANTS)
    assert not seen & {person.voice.variant for person in group["test"]}
    assert {person.voice.language for person in group["control"]} == set(config.training_accents)
    assert {person.voice.language for person in group["test"]} == set(config.test_accents)
    assert all(0.95 <= person.warp <= 1.05 for person in group["train"] + group["control"])
    warps = [person.warp for person in group["test"]]
    assert all(0.80 <= warp <= 0.88 or 1.14 <= warp <= 1.25 for warp in warps)
    assert min(warps) < 1 < max(warps)
    assert len({person.voice for person in people}) == len(people)


def test_a_voice_does_not_depend_on_how_many_others_there_are():
    many = {person.number: person for person in speakers(VoicesConfig())}
    few = speakers(SMALL)
    assert all(many[person.number] == person for person in few)


def test_timbres_exist_and_no_group_shares_one():
    timbres = voices.TRAINING_VARIANTS + voices.TEST_VARIANTS
    assert len(set(timbres)) == len(timbres)
    assert set(timbres) <= set(variants())


@pytest.mark.parametrize("warp", [0.8, 0.9, 1.12, 1.25])
def test_the_warp_moves_formants_and_keeps_pitch_and_tempo(warp: float):
    plain, warped = (say(SENTENCE, speaker_of(w), 16000, np.random.default_rng(0)).samples for w in (1.0, warp))
    assert len(warped) / len(plain) == pytest.approx(1.0, abs=0.06)
    assert _pitch(warped) / _pitch(plain) == pytest.approx(1.0, abs=0.04)
    assert _envelope_shift(plain, warped) == pytest.approx(warp, rel=0.04)


def _pitch(samples: np.ndarray) -> float:
    """Hz of the strongest period between 60 and 250 Hz."""
    autocorrelation = np.fft.irfft(np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2)
    lags = np.arange(16000 // 250, 16000 // 60)
    return float(16000 / lags[autocorrelation[lags].argmax()])


def _envelope_shift(plain: np.ndarray, warped: np.ndarray) -> float:
    """The factor of frequency by which one long-term spectral envelope looks most like the other."""
    hertz = np.geomspace(500, 4000, 400)

    def envelope(samples: np.ndarray, factor: float) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        frequencies = np.fft.rfftfreq(len(samples), 1 / 16000)
        # Bands of 250 Hz hide the harmonics, which the warp does not move.
        bands = [
            np.log(spectrum[(frequencies > f * factor - 125) & (frequencies < f * factor + 125)].mean()) for f in hertz
        ]
        return np.array(bands) - np.mean(bands)

    factors = np.arange(0.72, 1.4, 0.01)
    reference = envelope(plain, 1.0)
    return float(factors[np.argmin([np.sum((envelope(warped, f) - reference) ** 2) for f in factors])])


@pytest.mark.parametrize("decibels", [10.0, 25.0])
@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_the_noise_floor_is_at_its_level(decibels: float, slope: float):
    person = SyntheticSpeaker(1, "train", Voice(), 1.0, decibels, slope, -25.0)
    samples = say(SENTENCE, person, 16000, np.random.default_rng(0)).samples
    edge = round(0.14 * 16000)  # silence of at least 0.15 s on both sides holds noise only
    noise = np.concatenate([samples[:edge], samples[-edge:]])
    assert 10 * np.log10(np.mean(noise**2)) == pytest.approx(-25 - decibels, abs=1.5)


@given(ratio=st.floats(0.5, 1.6), hertz=st.floats(200, 3000))
def test_resampling_a_tone_gives_the_tone(ratio: float, hertz: float):
    time = np.arange(4000) / 16000
    window = np.hanning(4000)
    resampled = voices._resample((window * np.sin(2 * np.pi * hertz * time)).astype(np.float32), ratio)
    length = len(resampled)
    instants = np.arange(length) / 16000 * 4000 / length
    expected = np.interp(instants, time, window) * np.sin(2 * np.pi * hertz * instants)
    if hertz < 0.45 * 16000 * ratio:
        np.testing.assert_allclose(resampled, expected, atol=2e-3)


def test_grammar_says_its_vocabulary_and_nothing_else():
    words = {word for sentence in grammar_text(1, 4000) for word in sentence.split()}
    assert words == set(vocabulary())
    assert 150 <= len(vocabulary()) <= 250
    assert not any(set("{}") & set(word) for word in vocabulary())


def test_text_for_the_language_model_is_not_what_the_speakers_say(corpus: Path):
    said = {line.split(" ", 1)[1] for file in corpus.rglob("*.trans.txt") for line in file.read_text().splitlines()}
    assert len(said & set(grammar_text(SMALL.seed, 1000))) <= 1
    assert grammar_text(3, 20) == grammar_text(3, 40)[:20]
    assert grammar_sentences(np.random.default_rng(0), 0) == []


def test_an_unknown_accent_is_an_error_that_lists_the_english_ones():
    with pytest.raises(ConfigError, match=r"no accent en-texas; the English ones: .*en-gb-scotland"):
        speakers(VoicesConfig(test_accents=("en-texas",)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"rate": [200, 100]}, "rate: the range 200.0 to 100.0 is empty"),
        ({"test_warps": [[0.3, 0.5]]}, "test_warps.0.0: Input should be greater than or equal to 0.75 .found 0.3"),
        ({"test_warps": [[0.9, 0.8]]}, "test_warps: the range 0.9 to 0.8 is empty"),
        ({"training_speaker": 3}, "did you mean 'training_speakers'"),
        ({"training_accents": []}, "training_accents"),
    ],
)
def test_a_wrong_configuration_is_an_error(tree: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        parse_config(VoicesConfig, tree, "config.yaml")


def test_nothing_to_say_is_an_error():
    with pytest.raises(CorpusError, match="'': espeak-ng says nothing"):
        say("", speaker_of(1.0), 16000, np.random.default_rng(0))


@pytest.mark.parametrize("warp", [0.8, 1.0, 1.25])
def test_phones_are_where_the_recording_has_them(warp: float):
    """The first sound begins after the silence, the last ends before it; only the hisses have their power up high."""
    said = say("A SAW A SAW A SAW", speaker_of(warp), 16000, np.random.default_rng(0))
    loud = np.flatnonzero(np.abs(said.samples) > 0.05 * np.abs(said.samples).max()) / 16000
    first, last = said.phones[0], said.phones[-1]
    assert first.start - 0.01 < loud[0] < first.end
    assert last.start < loud[-1] < last.end + 0.01
    for phone in said.phones:
        power = np.abs(np.fft.rfft(said.samples[round(16000 * phone.start) : round(16000 * phone.end)])) ** 2
        hiss = power[len(power) * 5 // 16 :].sum() / power.sum()  # above 2.5 kHz
        assert hiss > 0.5 if phone.symbol == "s" else hiss < 0.1, (phone, hiss)


def test_the_recordings_of_a_speaker_can_be_made_again(corpus: Path):
    for person in speakers(SMALL):
        for name, said in recordings(SMALL, person):
            (path,) = corpus.rglob(f"{name}.flac")
            samples, rate = soundfile.read(path)
            assert (rate, len(samples)) == (SMALL.sample_rate, len(said.samples))
            assert np.abs(samples - said.samples).max() <= 1 / 32768
