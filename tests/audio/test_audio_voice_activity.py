"""Voice activity on espeak-ng's voices, whose words and pauses are where they were put."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from peak_memory import importable

from lhuc_asr.audio.resampling import resample
from lhuc_asr.audio.voice_activity import VoiceActivity
from lhuc_asr.base.espeak import SAMPLE_RATE, Voice, synthesize

# Words, and the pause before each in seconds.
SAID = (("go", 0.4), ("seven", 0.9), ("she had a dark suit in wash water", 0.6), ("six", 1.5), ("stop", 0.5))
# Edges of words are soft; a window is 32 ms, and 30 ms are added on either side. Half the shortest pause.
EDGE = 0.2


@pytest.fixture(scope="module")
def detector() -> VoiceActivity:
    return VoiceActivity()


def recorded(path: Path, rate: int = SAMPLE_RATE, noise: float = 1e-3) -> list[tuple[float, float]]:
    """Write the words, with noise of a deviation; returns when each begins and ends."""
    parts, spans, at = [], [], 0
    for number, (words, pause) in enumerate(SAID):
        samples = synthesize(words, Voice(variant="m3" if number % 2 else "f2")).samples
        samples = np.trim_zeros(samples)
        parts += [np.zeros(round(pause * SAMPLE_RATE), np.float32), samples]
        at += len(parts[-2])
        spans.append((at / SAMPLE_RATE, (at + len(samples)) / SAMPLE_RATE))
        at += len(samples)
    samples = resample(np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.float32)]), SAMPLE_RATE, rate)
    samples = samples + np.random.default_rng(0).normal(0, noise, len(samples))
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return spans


def check(parts: Sequence[tuple[float, float]], spans: Sequence[tuple[float, float]]) -> None:
    """One part for each phrase, or several; none beside them."""
    assert len(parts) >= len(spans)
    for start, end in spans:
        inside = [part for part in parts if part[0] < end and part[1] > start]
        assert inside[0][0] == pytest.approx(start, abs=EDGE)
        assert inside[-1][1] == pytest.approx(end, abs=EDGE)
    for part in parts:
        assert any(start - EDGE < part[0] and part[1] < end + EDGE for start, end in spans), part


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 48000])
def test_the_parts_are_the_words_at_any_rate(detector: VoiceActivity, tmp_path: Path, rate: int) -> None:
    spans = recorded(tmp_path / "a.wav", rate)
    check(detector.parts(tmp_path / "a.wav", 0.0, soundfile.info(tmp_path / "a.wav").duration), spans)


def test_noise_that_is_nearly_as_loud_does_not_matter(detector: VoiceActivity, tmp_path: Path) -> None:
    """The words have a root mean square of 0.08."""
    spans = recorded(tmp_path / "a.wav", noise=0.03)
    check(detector.parts(tmp_path / "a.wav", 0.0, soundfile.info(tmp_path / "a.wav").duration), spans)


def test_a_part_of_a_recording_is_judged_alone(detector: VoiceActivity, tmp_path: Path) -> None:
    """Times count from where the part begins."""
    spans = recorded(tmp_path / "a.wav")
    (first, _), (_, end) = spans[1], spans[2]
    start, seconds = first - 0.3, end - first + 0.6
    check(detector.parts(tmp_path / "a.wav", start, seconds), [(low - start, high - start) for low, high in spans[1:3]])


def test_blocks_change_nothing(detector: VoiceActivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silero's own function over the whole recording, in one piece, is the oracle."""
    from silero_vad import get_speech_timestamps

    recorded(tmp_path / "a.wav", 16000)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    whole = get_speech_timestamps(torch.from_numpy(samples), detector._network, min_speech_duration_ms=60)
    monkeypatch.setattr("lhuc_asr.audio.voice_activity.BLOCK_SECONDS", 1)
    assert len(samples) % 512
    parts = detector.parts(tmp_path / "a.wav", 0.0, len(samples) / 16000)
    assert parts == [(part["start"] / 16000, part["end"] / 16000) for part in whole]


def test_a_channel_is_chosen(detector: VoiceActivity, tmp_path: Path) -> None:
    spans = recorded(tmp_path / "a.wav", 16000)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    soundfile.write(tmp_path / "two.wav", np.stack([0 * samples, samples], axis=1), 16000, subtype="FLOAT")
    assert detector.parts(tmp_path / "two.wav", 0.0, len(samples) / 16000, channel=1) == []
    check(detector.parts(tmp_path / "two.wav", 0.0, len(samples) / 16000, channel=2), spans)


def test_the_number_of_threads_stays() -> None:
    """The import of silero_vad sets it to one."""
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "from lhuc_asr.audio.voice_activity import VoiceActivity\n"
        "VoiceActivity(); assert torch.get_num_threads() == 3"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=200)


# Peak of the memory in MB after each of some seconds of a recording.
PEAKS = (
    "import sys\n"
    "from pathlib import Path\n"
    "from peak_memory import peak_of_memory\n"
    "from lhuc_asr.audio.voice_activity import VoiceActivity\n"
    "detector = VoiceActivity()\n"
    "for seconds in map(float, sys.argv[2:]):\n"
    "    detector.parts(Path(sys.argv[1]), 0.0, seconds)\n"
    "    print(peak_of_memory() // 10**6)\n"
)


def peaks(path: Path, *seconds: float) -> list[int]:
    command = [sys.executable, "-c", PEAKS, str(path), *map(str, seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=importable())
    assert ran.returncode == 0, ran.stderr
    return [int(line) for line in ran.stdout.split()]


def test_the_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Two minutes of two channels at 48 kHz are 46 MB of floats."""
    noise = np.random.default_rng(0).normal(0, 0.01, (48000 * 120, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 48000)
    short, long = peaks(tmp_path / "a.wav", 20, 120)
    assert long - short < 15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    """An hour at 16 kHz is 230 MB of floats."""
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 16000, 1) as file:
        generator = np.random.default_rng(0)
        for _ in range(60):
            file.write(generator.normal(0, 0.01, 60 * 16000).astype(np.float32))
    minute, hour = peaks(tmp_path / "a.wav", 60, 3600)
    assert hour - minute < 15
