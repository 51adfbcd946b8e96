"""Synthetic voices, with which everything can be tried without a download.

espeak-ng speaks the sentences of a small grammar. A speaker is a timbre, an accent, a pitch and its range, a speaking
rate, the length of a vocal tract and a noise floor. Test speakers have timbres, accents and vocal tracts that no
training speaker has: differences that speaker adaptation can reduce. Control speakers are new too, but drawn like the
training speakers: adaptation can gain little on them, and must do no harm.

The vocal tract is warped by resampling: played ``warp`` times as fast, a recording has all formants ``warp`` times as
high. Pitch and rate, which would change too, are compensated beforehand.

The layout is that of LibriSpeech: ``<group>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac``, beside them
``<speaker>-<chapter>.trans.txt`` with the words in capitals, and ``SPEAKERS.TXT``. ``voices.json`` has the hash of
every file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.config import Seed, StrictModel
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.espeak import PITCH_LIMITS, RATE_LIMITS, SAMPLE_RATE, SpokenPhone, Voice, languages, synthesize
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.base.hashed_folder import FolderDescription, FolderKind, hashes
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import samples_of
from lhuc_asr.base.version import __version__
from lhuc_asr.corpus.grammar import grammar_sentences

Samples = npt.NDArray[np.float32]
Range = tuple[float, float]
Group = Literal["train", "test", "control"]

# The number of a speaker shows the group, and does not depend on the sizes of the other groups.
FIRST_SPEAKER: dict[Group, int] = {"train": 1001, "test": 2001, "control": 3001}
CHAPTER = 1

# Random choices from a seed, each with its own generator; 4 is the text of the grammar.
_VOICE, _SENTENCES, _TIMBRES = 1, 2, 3

# Timbres with a plain voice: no whisper, echo, robot or caricature.
TRAINING_VARIANTS = (
    "m1", "f1", "m3", "f2", "m5", "f5", "m7", "Alicia", "adam", "Annie", "Alex", "anika", "Andy",
    "linda", "boris", "steph", "Denis", "f4", "Diogo", "shelby", "edward2", "Gene", "Henrique",
    "Hugo", "iven3", "iven4", "john", "Lee", "marcelo", "Mario", "max", "Michael", "miguel", "Mike",
    "norbert", "pablo", "quincy", "rob", "robert", "sandro", "travis", "victor", "benjamin",
    "edward", "klatt3", "klatt4",
)  # fmt: skip
TEST_VARIANTS = (
    "m2", "f3", "m4", "belinda", "m6", "steph2", "m8", "aunty", "david", "Gene2", "michel",
    "Nguyen", "paul", "iven2",
)  # fmt: skip

# Warps outside would leave the top of the band empty, or need rates that espeak-ng does not have.
WARP_LIMITS = (0.75, 1.35)

# Measured on the voices of espeak-ng: this fraction of the pitch is constant, the rest doubles every 50 steps.
PITCH_CONSTANT = 0.22

# Silence before the first and after the last word, and the level of a recording.
EDGE_SECONDS: Range = (0.15, 0.25)
LEVEL_DECIBELS: Range = (-30.0, -22.0)
# Samples below this fraction of the peak count as silence around the words.
EDGE_THRESHOLD = 0.01
# Below this frequency the noise is flat: a falling spectrum would have its power where there is no speech.
NOISE_CORNER_HERTZ = 100.0

Count = Annotated[int, Field(ge=0, le=100_000)]
Pitch = Annotated[float, Field(ge=PITCH_LIMITS[0], le=PITCH_LIMITS[1])]
Rate = Annotated[float, Field(ge=RATE_LIMITS[0], le=RATE_LIMITS[1])]
Warp = Annotated[float, Field(ge=WARP_LIMITS[0], le=WARP_LIMITS[1])]
Decibels = Annotated[float, Field(ge=-100.0, le=100.0)]
Slope = Annotated[float, Field(ge=-100.0, le=100.0)]


class VoicesDescription(FolderDescription):
    """Content of ``voices.json``."""

    format: Literal["lhuc-asr-voices-1"] = "lhuc-asr-voices-1"


VOICES = FolderKind(
    VoicesDescription, "voices.json", "corpus of synthetic voices", CorpusError, "make the voices again"
)


class VoicesConfig(StrictModel):
    """Number of voices, their sentences, and the ranges that they are drawn from.

    Attributes:
        training_speakers: Number of speakers in ``train``.
        test_speakers: Number of speakers in ``test``, with other timbres, accents and vocal tracts than in training.
        control_speakers: Number of new speakers who are drawn like the training speakers.
        training_utterances: Number of sentences of each training speaker, 2 to 3 seconds each.
        test_utterances: Number of sentences of each test speaker.
        control_utterances: Number of sentences of each control speaker.
        seed: Seed of all random choices; the same seed gives the same bits.
        sample_rate: Sample rate of the recordings, hertz.
        training_accents: Languages of espeak-ng, which training and control speakers get in turn.
        test_accents: The same for test speakers.
        training_warps: Ranges of the vocal-tract warp, which training and control speakers get in turn; 1 is
            espeak-ng's own, above 1 is a shorter tract.
        test_warps: The same for test speakers.
        pitch: Range of the pitch; 50 is that of the timbre, 0 and 99 are about three quarters of an octave away.
        pitch_range: Range of the width of the intonation; 50 is that of the timbre.
        rate: Range of the speaking rate, words per minute.
        noise_decibels: Range of the level of speech over its noise floor.
        noise_slope: Range of the slope of the noise, decibels per octave; 0 is white, 3 is pink.
    """

    training_speakers: Count = 40
    test_speakers: Count = 10
    control_speakers: Count = 8
    training_utterances: Count = 22
    test_utterances: Count = 22
    control_utterances: Count = 16
    seed: Seed = 1
    sample_rate: int = Field(16000, ge=8000, le=22050)
    training_accents: tuple[str, ...] = Field(("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc"), min_length=1)
    test_accents: tuple[str, ...] = Field(("en-gb-scotland", "en-gb-x-gbclan", "en-029", "en-us"), min_length=1)
    training_warps: tuple[tuple[Warp, Warp], ...] = Field(((0.95, 1.05),), min_length=1)
    test_warps: tuple[tuple[Warp, Warp], ...] = Field(((0.80, 0.88), (1.14, 1.25)), min_length=1)
    pitch: tuple[Pitch, Pitch] = (35, 65)
    pitch_range: tuple[Pitch, Pitch] = (30, 70)
    rate: tuple[Rate, Rate] = (150, 195)
    noise_decibels: tuple[Decibels, Decibels] = (20, 40)
    noise_slope: tuple[Slope, Slope] = (0, 4)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> VoicesConfig:
        single = ("pitch", "pitch_range", "rate", "noise_decibels", "noise_slope")
        ranges = [(name, getattr(self, name)) for name in single]
        ranges += [(name, warps) for name in ("training_warps", "test_warps") for warps in getattr(self, name)]
        for name, (low, high) in ranges:
            if low > high:
                raise ValueError(f"{name}: the range {low} to {high} is empty")
        return self


@dataclass(frozen=True)
class SyntheticSpeaker:
    """One voice, its vocal tract and its microphone.

    Attributes:
        number: Number of the speaker, which is also the name in the corpus.
        group: Training, test or control.
        voice: Voice as it sounds after the warp.
        warp: Factor of the frequencies of all formants.
        noise_decibels: Level of the speech over the noise floor.
        noise_slope: Slope of the noise, decibels per octave.
        level_decibels: Root mean square of the speech, relative to full scale.
    """

    number: int
    group: Group
    voice: Voice
    warp: float
    noise_decibels: float
    noise_slope: float
    level_decibels: float


@dataclass(frozen=True)
class Said:
    """A sentence as a voice said it.

    Attributes:
        sentence: Its words in capitals.
        samples: The recording, samples in [-1, 1], shape (N,).
        phones: Its phones, where the synthesizer put them, in the recording's time.
    """

    sentence: str
    samples: Samples
    phones: tuple[SpokenPhone, ...]


def speakers(config: VoicesConfig) -> list[SyntheticSpeaker]:
    """The speakers of the corpus: training, test, control.

    Raises:
        ConfigError: espeak-ng does not know an accent.
        MissingExtraError: espeak-ng is not installed.
    """
    unknown = [name for name in config.training_accents + config.test_accents if name not in languages()]
    if unknown:
        english = [name for name in languages() if name.startswith("en")]
        raise ConfigError(f"espeak-ng has no accent {', '.join(unknown)}; the English ones: {', '.join(english)}")
    counts: dict[Group, int] = {
        "train": config.training_speakers,
        "test": config.test_speakers,
        "control": config.control_speakers,
    }
    return [_draw_speaker(config, group, index) for group, count in counts.items() for index in range(count)]


def recordings(config: VoicesConfig, speaker: SyntheticSpeaker) -> Iterator[tuple[str, Said]]:
    """The recordings of a speaker in the corpus, by their names; the same bits each time."""
    counts = {
        "train": config.training_utterances,
        "test": config.test_utterances,
        "control": config.control_utterances,
    }
    generator = np.random.default_rng((config.seed, speaker.number, _SENTENCES))
    for index, sentence in enumerate(grammar_sentences(generator, counts[speaker.group])):
        yield f"{speaker.number}-{CHAPTER}-{index:04d}", say(sentence, speaker, config.sample_rate, generator)


def say(sentence: str, speaker: SyntheticSpeaker, sample_rate: int, generator: np.random.Generator) -> Said:
    """One recording.

    Args:
        sentence: Words in any case.
        speaker: The voice.
        sample_rate: Sample rate of the recording, hertz.
        generator: Generator of the silence around the words and of the noise.

    Raises:
        CorpusError: The sentence has no words.
    """
    speech = synthesize(sentence.lower(), _unwarped(speaker.voice, speaker.warp))
    spoken = speech.samples
    if not spoken.any():
        raise CorpusError(f"{sentence!r}: espeak-ng says nothing; a sentence needs words")
    loud = np.flatnonzero(np.abs(spoken) > EDGE_THRESHOLD * np.abs(spoken).max())
    cut = _resample(spoken[loud[0] : loud[-1] + 1], sample_rate / SAMPLE_RATE / speaker.warp)
    power = np.mean(cut**2)
    before, after = (samples_of(seconds, sample_rate) for seconds in generator.uniform(*EDGE_SECONDS, size=2))
    padded = np.pad(cut / np.sqrt(power), (before, after))
    noise = _noise(len(padded), sample_rate, speaker.noise_slope, generator)
    padded += noise * 10 ** (-speaker.noise_decibels / 20)
    samples = np.clip(padded * 10 ** (speaker.level_decibels / 20), -1, 1).astype(np.float32)
    cut_seconds = float(loud[0]) / SAMPLE_RATE

    def moved(seconds: float) -> float:
        return before / sample_rate + (seconds - cut_seconds) / speaker.warp

    phones = (replace(phone, start=moved(phone.start), end=moved(phone.end)) for phone in speech.phones)
    return Said(sentence, samples, tuple(phones))


def generate(config: VoicesConfig, folder: Path, processes: int = 2) -> None:
    """Write the corpus, whole or not at all.

    Args:
        config: The voices and their sentences.
        folder: Folder of the corpus; an existing one is replaced.
        processes: Number of processes; the corpus does not depend on it.

    Raises:
        ConfigError: espeak-ng does not know an accent.
        MissingExtraError: espeak-ng is not installed.
        WorkerError: A worker process died.
    """
    everybody = speakers(config)
    with atomic_folder(folder) as temporary, Executor(processes) as executor:
        record = partial(_record_speaker, config, temporary)
        recorded = executor.map(record, everybody)
        seconds = list(progress(recorded, "synthetic voices", len(everybody)))
        rows = [_speakers_row(*pair) for pair in zip(everybody, seconds, strict=True)]
        header = "; Synthetic voices of espeak-ng; SEX is not known.\n;ID  |SEX| SUBSET           |MINUTES| NAME\n"
        (temporary / "SPEAKERS.TXT").write_text(header + "".join(rows), encoding="utf-8")
        paths = {file.relative_to(temporary).as_posix(): file for file in files_below(temporary)}
        VOICES.write(temporary, VoicesDescription(made_by=__version__, sha256=hashes(paths)))


def check(folder: Path) -> None:
    """Refuse a corpus in which a file is missing, changed or added.

    Raises:
        CorpusError: The message names the file.
    """
    VOICES.read(folder, complete=FIRST_SPEAKER)


def _draw_speaker(config: VoicesConfig, group: Group, index: int) -> SyntheticSpeaker:
    number = FIRST_SPEAKER[group] + index
    generator = np.random.default_rng((config.seed, number, _VOICE))
    timbres = TEST_VARIANTS if group == "test" else TRAINING_VARIANTS
    accents = config.test_accents if group == "test" else config.training_accents
    warps = config.test_warps if group == "test" else config.training_warps
    # Every accent is combined with every range of warps. Timbres are not repeated before all are used; their order
    # depends on the seed and the group.
    order = np.random.default_rng((config.seed, FIRST_SPEAKER[group], _TIMBRES)).permutation(len(timbres))
    return SyntheticSpeaker(
        number=number,
        group=group,
        voice=Voice(
            accents[index // len(warps) % len(accents)],
            timbres[order[index % len(timbres)]],
            pitch=round(generator.uniform(*config.pitch)),
            pitch_range=round(generator.uniform(*config.pitch_range)),
            rate=round(generator.uniform(*config.rate)),
        ),
        warp=generator.uniform(*warps[index % len(warps)]),
        noise_decibels=generator.uniform(*config.noise_decibels),
        noise_slope=generator.uniform(*config.noise_slope),
        level_decibels=generator.uniform(*LEVEL_DECIBELS),
    )


def _unwarped(voice: Voice, warp: float) -> Voice:
    """The voice that has the tempo and the pitch of ``voice`` when it is played ``warp`` times as fast."""
    factor = PITCH_CONSTANT + (1 - PITCH_CONSTANT) * 2 ** ((voice.pitch - 50) / 50)
    pitch = 50 + 50 * math.log2((factor / warp - PITCH_CONSTANT) / (1 - PITCH_CONSTANT))
    low, high = PITCH_LIMITS
    return Voice(
        voice.language,
        voice.variant,
        pitch=min(high, max(low, round(pitch))),
        pitch_range=min(high, round(voice.pitch_range / warp)),
        rate=round(voice.rate / warp),
    )


def _record_speaker(config: VoicesConfig, folder: Path, speaker: SyntheticSpeaker) -> float:
    """Write the recordings and transcripts of a speaker; returns their length in seconds."""
    import soundfile

    chapter = folder / speaker.group / str(speaker.number) / str(CHAPTER)
    chapter.mkdir(parents=True)
    transcripts, total = [], 0
    for name, said in recordings(config, speaker):
        # Through memory, since libsndfile does not report a full disk.
        encoded = io.BytesIO()
        soundfile.write(encoded, said.samples, config.sample_rate, format="FLAC", subtype="PCM_16")
        (chapter / f"{name}.flac").write_bytes(encoded.getvalue())
        transcripts.append(f"{name} {said.sentence}\n")
        total += len(said.samples)
    (chapter / f"{speaker.number}-{CHAPTER}.trans.txt").write_text("".join(transcripts), encoding="utf-8")
    return total / config.sample_rate


def _resample(samples: Samples, ratio: float) -> Samples:
    """Band-limited resampling to ``ratio`` times as many samples, over the whole recording at once.

    The spectrum is cut or padded with zeros. This treats the recording as periodic, which does no harm since it
    begins and ends in silence.
    """
    length = round(len(samples) * ratio)
    spectrum = np.fft.rfft(samples)
    return (np.fft.irfft(spectrum[: length // 2 + 1], length) * (length / len(samples))).astype(np.float32)


def _noise(length: int, sample_rate: int, slope: float, generator: np.random.Generator) -> Samples:
    """Gaussian noise of unit power that falls by ``slope`` decibels per octave, shape (length,)."""
    size = 1 << (length - 1).bit_length()  # a power of two, because prime lengths are ten times as slow
    spectrum = np.fft.rfft(generator.standard_normal(size))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / sample_rate) / NOISE_CORNER_HERTZ, 1.0))
    noise = np.fft.irfft(spectrum * 10 ** (-slope * octaves / 20), size)[:length]
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), np.float32)


def _speakers_row(speaker: SyntheticSpeaker, seconds: float) -> str:
    voice = speaker.voice
    name = (
        f"{voice.language} {voice.variant} pitch {voice.pitch} range {voice.pitch_range} rate {voice.rate} "
        f"warp {speaker.warp:.3f} noise {speaker.noise_decibels:.1f} dB"
    )
    return f"{speaker.number:<5}| U | {speaker.group:<16} | {seconds / 60:5.2f} | {name}\n"
