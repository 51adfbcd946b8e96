"""A corpus of synthetic voices, for trying everything without downloading anything.

espeak-ng speaks the sentences of a small grammar. A speaker is a timbre, an accent, a pitch, its range, a
speaking rate, the length of a vocal tract and a noise floor. Test speakers have timbres, accents and vocal
tracts that no training speaker has: what speaker adaptation can mend. Control speakers are new too, but drawn
like the training speakers: there adaptation has little to win, and must not harm.

The vocal tract is warped by resampling: played ``warp`` times as fast, all formants are ``warp`` times as
high. Pitch and rate, which would change with them, are compensated before.

Laid out like LibriSpeech: ``<group>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac``, beside them
``<speaker>-<chapter>.trans.txt`` with the words in capitals, and ``SPEAKERS.TXT``.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.espeak import PITCH_LIMITS, Voice, languages, synthesize
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import samples_of
from lhuc_asr.corpus.grammar import grammar_sentences

Samples = npt.NDArray[np.float32]
Range = tuple[float, float]
Group = Literal["train", "test", "control"]

# A speaker's number tells the group, and does not depend on how many speakers the other groups have.
FIRST_SPEAKER: dict[Group, int] = {"train": 1001, "test": 2001, "control": 3001}
CHAPTER = 1

# What is drawn from a seed: each has a random generator of its own.
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

# Measured on its voices: espeak-ng's pitch is this part constant, and the rest doubles every 50 steps.
PITCH_CONSTANT = 0.22

# What a recording keeps before the first and after the last word, and its level.
EDGE_SECONDS: Range = (0.15, 0.25)
LEVEL_DECIBELS: Range = (-30.0, -22.0)
# Samples below this share of the loudest one are taken for the silence around it.
EDGE_THRESHOLD = 0.01
# Noise is flat below: else a falling spectrum would have its power where no speech is.
NOISE_CORNER_HERTZ = 100.0

Count = Annotated[int, Field(ge=0)]


class VoicesConfig(StrictModel):
    """How many voices there are, how much they say, and what they are drawn from.

    Attributes:
        training_speakers: Speakers of ``train``.
        test_speakers: Speakers of ``test``: other timbres, accents and vocal tracts than in training.
        control_speakers: New speakers who are drawn like those of training.
        training_utterances: Sentences a training speaker says, 2 to 3 seconds each.
        test_utterances: Sentences a test speaker says.
        control_utterances: Sentences a control speaker says.
        seed: The same seed gives the same bits.
        sample_rate: Of the recordings, Hz.
        training_accents: espeak-ng languages of training and control, by turns.
        test_accents: The same for test.
        training_warps: Ranges of the vocal-tract warp in training and control, by turns; 1 is espeak-ng's own,
            over 1 a shorter tract.
        test_warps: The same for test.
        pitch: Range of the pitch; 50 is the timbre's own, 0 and 99 are about three quarters of an octave away.
        pitch_range: Range of the intonation's width; 50 is the timbre's own.
        rate: Range of the speaking rate, words a minute.
        noise_decibels: Range of the speech's level over its noise floor.
        noise_slope: Range of the noise's fall in decibels an octave; 0 is white, 3 pink.
    """

    training_speakers: Count = 40
    test_speakers: Count = 10
    control_speakers: Count = 8
    training_utterances: Count = 22
    test_utterances: Count = 22
    control_utterances: Count = 16
    seed: Count = 1
    sample_rate: int = Field(16000, ge=8000, le=22050)
    training_accents: tuple[str, ...] = Field(("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc"), min_length=1)
    test_accents: tuple[str, ...] = Field(("en-gb-scotland", "en-gb-x-gbclan", "en-029", "en-us"), min_length=1)
    training_warps: tuple[Range, ...] = Field(((0.95, 1.05),), min_length=1)
    test_warps: tuple[Range, ...] = Field(((0.80, 0.88), (1.14, 1.25)), min_length=1)
    pitch: Range = (35, 65)
    pitch_range: Range = (30, 70)
    rate: Range = (150, 195)
    noise_decibels: Range = (20, 40)
    noise_slope: Range = (0, 4)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> VoicesConfig:
        warps = {"training_warps": self.training_warps, "test_warps": self.test_warps}
        for name in ("pitch", "pitch_range", "rate", "noise_decibels", "noise_slope"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the range {low} to {high} is empty")
        for name, ranges in warps.items():
            for low, high in ranges:
                if not WARP_LIMITS[0] <= low <= high <= WARP_LIMITS[1]:
                    raise ValueError(f"{name}: {low} to {high} is no range within {WARP_LIMITS[0]} to {WARP_LIMITS[1]}")
        return self


@dataclass(frozen=True)
class SyntheticSpeaker:
    """One voice, its vocal tract and its microphone.

    Attributes:
        number: Name in the corpus.
        group: Where it belongs.
        voice: As it shall sound: what espeak-ng is asked for makes up for the warp.
        warp: Factor of all formants' frequencies.
        noise_decibels: Level of its speech over its noise floor.
        noise_slope: Fall of the noise, decibels an octave.
        level_decibels: Root mean square of its speech, relative to full scale.
    """

    number: int
    group: Group
    voice: Voice
    warp: float
    noise_decibels: float
    noise_slope: float
    level_decibels: float


def speakers(config: VoicesConfig) -> list[SyntheticSpeaker]:
    """The corpus' voices: training, test, control.

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


def say(sentence: str, speaker: SyntheticSpeaker, sample_rate: int, generator: np.random.Generator) -> Samples:
    """One recording.

    Args:
        sentence: Words in any case.
        speaker: Who says it.
        sample_rate: Of the recording, Hz.
        generator: Draws the silence around the words, and the noise.

    Returns:
        Samples in -1..1, shape (samples,).

    Raises:
        CorpusError: There is nothing to say.
    """
    spoken, spoken_rate = synthesize(sentence.lower(), _unwarped(speaker.voice, speaker.warp))
    if not spoken.any():
        raise CorpusError(f"{sentence!r}: espeak-ng says nothing; a sentence needs words")
    loud = np.flatnonzero(np.abs(spoken) > EDGE_THRESHOLD * np.abs(spoken).max())
    speech = _resample(spoken[loud[0] : loud[-1] + 1], sample_rate / spoken_rate / speaker.warp)
    power = np.mean(speech**2)
    before, after = (samples_of(seconds, sample_rate) for seconds in generator.uniform(*EDGE_SECONDS, size=2))
    padded = np.pad(speech / np.sqrt(power), (before, after))
    noise = _noise(len(padded), sample_rate, speaker.noise_slope, generator)
    padded += noise * 10 ** (-speaker.noise_decibels / 20)
    return np.clip(padded * 10 ** (speaker.level_decibels / 20), -1, 1).astype(np.float32)


def generate(config: VoicesConfig, folder: Path, workers: int = 2) -> None:
    """Write the corpus, whole or not at all.

    Args:
        config: What to make.
        folder: Where; a corpus that is there is replaced.
        workers: Processes; the corpus does not depend on their number.

    Raises:
        ConfigError: espeak-ng does not know an accent.
        MissingExtraError: espeak-ng is not installed.
        WorkerError: A worker process died.
    """
    everybody = speakers(config)
    with atomic_folder(folder) as temporary, Executor(workers) as executor:
        record = partial(_record_speaker, config, temporary)
        recorded = executor.map(record, everybody)
        seconds = list(progress(recorded, "synthetic voices", len(everybody)))
        rows = [_speakers_row(*pair) for pair in zip(everybody, seconds, strict=True)]
        header = "; Synthetic voices of espeak-ng; SEX is not known.\n;ID  |SEX| SUBSET           |MINUTES| NAME\n"
        (temporary / "SPEAKERS.TXT").write_text(header + "".join(rows), encoding="utf-8")


def _draw_speaker(config: VoicesConfig, group: Group, index: int) -> SyntheticSpeaker:
    number = FIRST_SPEAKER[group] + index
    generator = np.random.default_rng((config.seed, number, _VOICE))
    timbres = TEST_VARIANTS if group == "test" else TRAINING_VARIANTS
    accents = config.test_accents if group == "test" else config.training_accents
    warps = config.test_warps if group == "test" else config.training_warps
    # Every accent meets every range of warps. Timbres without repetition as long as they last, in an order of
    # the seed's and the group's own.
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
    """The voice that, played ``warp`` times as fast, has the tempo and the pitch of ``voice``."""
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
    """Write a speaker's recordings and transcripts; returns seconds."""
    import soundfile

    counts = {
        "train": config.training_utterances,
        "test": config.test_utterances,
        "control": config.control_utterances,
    }
    generator = np.random.default_rng((config.seed, speaker.number, _SENTENCES))
    chapter = folder / speaker.group / str(speaker.number) / str(CHAPTER)
    chapter.mkdir(parents=True)
    transcripts, total = [], 0
    for index, sentence in enumerate(grammar_sentences(generator, counts[speaker.group])):
        name = f"{speaker.number}-{CHAPTER}-{index:04d}"
        samples = say(sentence, speaker, config.sample_rate, generator)
        # Through memory, since libsndfile does not say that a disk is full.
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, config.sample_rate, format="FLAC", subtype="PCM_16")
        (chapter / f"{name}.flac").write_bytes(encoded.getvalue())
        transcripts.append(f"{name} {sentence}\n")
        total += len(samples)
    (chapter / f"{speaker.number}-{CHAPTER}.trans.txt").write_text("".join(transcripts), encoding="utf-8")
    return total / config.sample_rate


def _resample(samples: Samples, ratio: float) -> Samples:
    """Band-limited resampling to ``ratio`` times as many samples, over the whole recording at once.

    The spectrum is cut or padded with zeros. That treats the recording as periodic, which does not matter
    where it begins and ends in silence.
    """
    length = round(len(samples) * ratio)
    spectrum = np.fft.rfft(samples)
    return (np.fft.irfft(spectrum[: length // 2 + 1], length) * (length / len(samples))).astype(np.float32)


def _noise(length: int, sample_rate: int, slope: float, generator: np.random.Generator) -> Samples:
    """Gaussian noise of unit power that falls by ``slope`` decibels an octave, shape (length,)."""
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
