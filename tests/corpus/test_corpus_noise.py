"""Noisy copies: the level that was asked for, other clips for training and test, and what noise is refused."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.audio.recording import read_native
from lhuc_asr.audio.utterance import Utterance, spoken_id
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import AudioError, ConfigError, CorpusError
from lhuc_asr.corpus.noise import (
    CLEAN,
    NoiseConfig,
    mix,
    part_clips,
    put_into_environments,
    read_clips,
    stretch,
)

RATE = 8000
CLASSES = ("rain", "street")
PARTS = {"train": "training", "heldout": "heldout", "test": "test"}


def write_noise(folder: Path, clips: dict[str, int], seconds: float = 1.0) -> None:
    """Clips of white noise; the table has a column that nobody needs."""
    generator = np.random.default_rng(5)
    lines = ["origin\tclass\tpath"]
    for name, count in clips.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = f"{name}/{number}.flac"
            soundfile.write(folder / path, 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
            lines.append(f"somebody\t{name}\t{path}")
    (folder / "noise.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    write_noise(tmp_path / "noise", {"rain": 6, "street": 6, "bell": 2})
    return tmp_path / "noise"


@pytest.fixture
def speech(tmp_path: Path) -> list[Utterance]:
    """Four utterances of two speakers, cut out of recordings of tones at different levels, from 0.3 to 1.8 s."""
    utterances = []
    for number, (level, seconds) in enumerate([(0.3, 0.3), (0.9, 0.7), (0.05, 1.8), (0.5, 1.0)]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, level * np.sin(0.1 * (number + 1) * np.arange(3 * RATE)), RATE)
        utterances.append(Utterance(f"u{number}", f"s{number % 2}", "", path, 0.25, seconds, "YES"))
    return utterances


def config_of(noise: Path, **options: object) -> NoiseConfig:
    return parse_config(NoiseConfig, {"dir": str(noise), "classes": list(CLASSES), **options}, "test")


def copies(noise: Path, speech: list[Utterance], folder: Path, processes: int = 1, seed: int = 1, **options: object):
    splits = {split: (part, speech) for split, part in PARTS.items()}
    return put_into_environments(splits, config_of(noise, **options), folder, seed, processes)


def test_a_copy_has_the_channel_that_was_named_and_no_other(noise, speech, tmp_path):
    stereo = []
    for each in speech:
        path = tmp_path / f"{each.id}.wav"
        own, rate = soundfile.read(each.audio)
        soundfile.write(path, np.stack([0.1 * np.cos(0.3 * np.arange(len(own))), own], axis=1), rate)
        stereo.append(replace(each, audio=path, channel=2))
    mono, of_two = (copies(noise, each, tmp_path / name) for name, each in (("mono", speech), ("two", stereo)))
    for split, made in of_two.items():
        for copy, expected in zip(made, mono[split], strict=True):
            assert copy.channel == (2 if copy.environment == CLEAN else None)
            np.testing.assert_array_equal(read_native(copy)[0], read_native(expected)[0])


def test_what_was_added_has_the_level_that_was_asked_for_measured_on_the_files(noise, speech, tmp_path):
    made = copies(noise, speech, tmp_path / "noisy", snr_decibels=[7.0, 7.0])
    noisy = [copy for split in made for copy in made[split] if copy.environment != CLEAN]
    assert len(noisy) > 2 * 2 * len(speech)
    for copy in noisy:
        mixture, rate = read_native(copy)
        clean, _ = read_native(next(u for u in speech if u.id == spoken_id(copy.id, copy.environment)))
        assert rate == RATE
        assert len(mixture) == len(clean)
        assert abs(mixture).max() <= 0.99
        # Speech and noise were turned down together, by a factor that is found by least squares over both: the
        # tone and the noise are nearly orthogonal.
        factor = mixture @ clean / (clean @ clean)
        rest = mixture - factor * clean
        assert factor < 1.02
        assert 10 * np.log10((factor * clean) @ (factor * clean) / (rest @ rest)) == pytest.approx(7.0, abs=0.35)


@given(
    snr=st.floats(-10, 40),
    level=st.floats(0.01, 1.0),
    noise_level=st.floats(0.001, 1.0),
    seed=st.integers(0, 99),
)
def test_mixing_to_a_level(snr: float, level: float, noise_level: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    speech, noise = level * generator.uniform(-1, 1, 500), noise_level * generator.uniform(-1, 1, 500)
    mixture = mix(speech, noise, snr).astype(np.float64)
    # The mixture is a sum of the two: both factors by solving for them.
    (of_speech, of_noise), residual, *_ = np.linalg.lstsq(np.stack([speech, noise], 1), mixture, rcond=None)
    assert residual == pytest.approx(0, abs=1e-9)
    assert 20 * np.log10(of_speech * np.std(speech) / (of_noise * np.std(noise))) == pytest.approx(snr, abs=0.6)
    power_ratio = np.sum((of_speech * speech) ** 2) / np.sum((of_noise * noise) ** 2)
    assert 10 * np.log10(power_ratio) == pytest.approx(snr, abs=1e-3)
    assert abs(mixture).max() <= 0.99 + 1e-6
    assert of_speech == pytest.approx(1.0) or abs(mixture).max() == pytest.approx(0.99)


@pytest.mark.parametrize("position", [0.0, 0.5, 0.999])
def test_noise_is_cut_without_a_seam_or_looped(position: float) -> None:
    clip = np.arange(10)
    cut = stretch(clip, 4, position)
    assert list(np.diff(cut)) == [1, 1, 1]
    assert list(stretch(clip, 10, position)) == list(clip)
    looped = stretch(clip, 25, position)
    assert len(looped) == 25
    assert set(np.diff(looped)) == {1, -9}
    assert {int(stretch(clip, 4, p / 100)[0]) for p in range(100)} == set(range(7))


def test_test_utterances_come_in_every_environment_training_utterances_in_some(noise, speech, tmp_path):
    made = copies(noise, speech, tmp_path / "noisy", training_conditions=2)
    everywhere = sorted(f"{u.id}.{e}" for u in speech for e in (CLEAN, *CLASSES))
    assert sorted(copy.id for copy in made["test"]) == sorted(copy.id for copy in made["heldout"]) == everywhere
    counts = Counter(spoken_id(copy.id, copy.environment) for copy in made["train"])
    assert counts == {u.id: 2 for u in speech}
    by_id = {u.id: u for u in speech}
    for copy in (copy for split in made.values() for copy in split):
        source = by_id[spoken_id(copy.id, copy.environment)]
        assert (copy.speaker, copy.text, copy.seconds) == (source.speaker, source.text, source.seconds)
        if copy.environment == CLEAN:
            assert replace(copy, id=source.id, environment="") == source
        else:
            assert copy.audio.is_file()
            assert copy.start == 0.0


def test_the_seed_chooses_training_environments_and_nothing_else(noise, speech, tmp_path):
    made = [copies(noise, speech, tmp_path / f"noisy{seed}", seed=seed, training_conditions=1) for seed in range(6)]
    assert len({tuple(copy.id for copy in found["train"]) for found in made}) > 1
    for found in made[1:]:
        assert [copy.id for copy in found["test"]] == [copy.id for copy in made[0]["test"]]
        for one, other in zip(found["test"], made[0]["test"], strict=True):
            assert one.audio.read_bytes() == other.audio.read_bytes()


def test_copies_do_not_depend_on_the_number_of_processes_nor_on_who_else_is_there(noise, speech, tmp_path):
    alone = copies(noise, speech[2:3], tmp_path / "alone")["test"]
    together = copies(noise, speech, tmp_path / "together", processes=2)["test"]
    found = {copy.id: copy.audio.read_bytes() for copy in together}
    assert all(found[copy.id] == copy.audio.read_bytes() for copy in alone)


def test_training_heldout_and_test_utterances_share_no_clip(tmp_path, speech):
    """Clips of one frequency each: the copies' spectra tell which clip is in them."""
    folder = tmp_path / "tones"
    (folder / "rain").mkdir(parents=True)
    frequencies = [500 + 100 * number for number in range(9)]
    for frequency in frequencies:
        tone = np.sin(2 * np.pi * frequency / RATE * np.arange(2 * RATE))
        soundfile.write(folder / "rain" / f"{frequency}.flac", 0.5 * tone, RATE)
    lines = ["path\tclass", *(f"rain/{frequency}.flac\train" for frequency in frequencies)]
    (folder / "noise.tsv").write_text("\n".join(lines))
    many = [replace(speech[1], id=f"u{number}") for number in range(30)]
    made = copies(folder, many, tmp_path / "noisy", classes=["rain"], snr_decibels=[-20.0, -20.0])
    heard = {split: set() for split in made}
    for split, found in made.items():
        for copy in (copy for copy in found if copy.environment == "rain"):
            samples, _ = read_native(copy)
            spectrum = np.abs(np.fft.rfft(samples))
            heard[split].add(100 * round(int(spectrum.argmax()) * RATE / len(samples) / 100))
    assert sum(map(len, heard.values())) == len(set().union(*heard.values()))
    assert set().union(*heard.values()) == set(frequencies)
    assert len(heard["train"]) > len(heard["test"]) > len(heard["heldout"]) > 0


@given(takes=st.lists(st.integers(1, 6), min_size=3, max_size=12), seed=st.integers(0, 5))
def test_takes_of_one_recording_stay_together_and_no_part_is_empty(takes: list[int], seed: int) -> None:
    clips = [Path(f"1-{100 + n}-{chr(65 + take)}.flac") for n, count in enumerate(takes) for take in range(count)]
    shuffled = random.Random(seed).sample(clips, len(clips))
    parts = part_clips("rain", shuffled)
    assert parts == part_clips("rain", clips)
    assert sorted(path for part in parts.values() for path in part) == sorted(clips)
    recordings = [{path.stem[:-2] for path in part} for part in parts.values()]
    assert all(recordings)
    assert sum(map(len, recordings)) == len(takes)


def test_too_few_recordings_are_refused(noise, speech, tmp_path):
    with pytest.raises(CorpusError, match=r"noise class bell: 2 clips of 2 recordings, expected three .* leave the cl"):
        copies(noise, speech, tmp_path / "noisy", classes=["bell"])
    with pytest.raises(CorpusError, match="4 clips of 1 recordings"):
        part_clips("rain", [Path(f"1-7-{take}.flac") for take in "ABCD"])
    assert not (tmp_path / "noisy").exists()


def test_a_class_that_is_not_there(noise):
    with pytest.raises(CorpusError, match=r"noise\.tsv: no class snow, wind; it has bell, rain, street"):
        read_clips(config_of(noise, classes=["snow", "rain", "wind"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such recording; or take its line out"),
        (lambda path: path.write_bytes(b"noise"), "not a WAV, FLAC, Ogg, MP3, .* recording"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), r"rain/3\.flac"),
        (lambda path: soundfile.write(path, np.zeros(RATE), RATE), "digital silence; take its line out"),
    ],
)
def test_an_unreadable_clip_is_named_before_anything_is_written(noise, speech, tmp_path, damage, message):
    damage(noise / "rain" / "3.flac")
    with pytest.raises(CorpusError, match=message) as caught:
        copies(noise, speech, tmp_path / "noisy")
    assert f"{noise / 'noise.tsv'}: clip of rain: " in str(caught.value)
    assert not (tmp_path / "noisy").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"noise\.tsv: no such file"),
        ("", r"noise\.tsv:1: expected a line of column names, path and class among them"),
        ("file\tclass\n", r"noise\.tsv:1: expected a line of column names"),
        ("path\tclass\nrain/0.flac\n", r"noise\.tsv:2: expected 2 fields, found 1"),
    ],
)
def test_a_table_that_is_none(noise, table, message):
    (noise / "noise.tsv").unlink()
    if table is not None:
        (noise / "noise.tsv").write_text(table)
    with pytest.raises(CorpusError, match=message):
        read_clips(config_of(noise))


def test_speech_that_cannot_be_put_anywhere(noise, speech, tmp_path):
    with pytest.raises(CorpusError, match=r"utterance u0 was recorded in the environment 'car'.*leave out noise:"):
        copies(noise, [replace(speech[0], environment="car")], tmp_path / "noisy")
    with pytest.raises(CorpusError, match="longer than 200 bytes; shorten"):
        copies(noise, [replace(speech[0], id="u" * 198)], tmp_path / "noisy")
    soundfile.write(speech[0].audio, np.zeros(3 * RATE), RATE)
    with pytest.raises(AudioError, match=r"0\.wav with .*the speech is digital silence.*leave the utterance out"):
        copies(noise, speech, tmp_path / "noisy")
    assert not (tmp_path / "noisy").exists()
    soundfile.write(speech[0].audio, 0.1 * np.sin(np.arange(700_000)), 700_000)
    with pytest.raises(AudioError, match=r"0\.wav: cannot be copied as FLAC at 700000 Hz .*convert it to 16 kHz"):
        copies(noise, speech[:1], tmp_path / "noisy")
    with pytest.raises(AudioError, match="the noise is digital silence"):
        mix(np.ones(5), np.zeros(5), 10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["rain", "rain"]}, "expected each once"),
        ({"classes": ["clean"]}, "none called 'clean'"),
        ({"classes": ["a.b"]}, "classes"),
        ({"classes": []}, "classes"),
        ({"snr_decibels": [15.0, 5.0]}, "the range 15 to 5 is empty"),
        ({"snr_decibels": [5.0, float("inf")]}, "snr_decibels"),
        ({"training_conditions": 4}, "training_conditions: 4, but with the clean one there are only 3"),
        ({"training_conditions": 0}, "training_conditions"),
    ],
)
def test_noise_that_cannot_be_is_no_configuration(options, message):
    with pytest.raises(ConfigError, match=message):
        config_of(Path("noise"), **options)
