"""A new person's enrolment: their words are written down without and with parameters, which are learned meanwhile.

    hear(samples)    a block of sound: words of both sides, and how much was said
    end_take()       what was said since the last one is a recording: a sentence that was read, say, or a file
    takes()          what there is to learn from
    learn(...)       parameters of that, as ``adapt`` estimates them; it takes seconds, and another thread may run it
    become(person)   from now on the side with parameters has these
    result(...)      at the end: parameters, the verdict, and all recordings transcribed with and without

Sound is kept in memory, at most ``MOST_SECONDS`` of it. What is said after that is written down and not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from lhuc_asr.audio.resampling import ResamplingStream
from lhuc_asr.base.errors import AudioError, LhucError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS, samples_of
from lhuc_asr.lhuc.speaker import check_speaker_name
from lhuc_asr.recognizer.adapting import Adaptation
from lhuc_asr.recognizer.arrays import recorded
from lhuc_asr.recognizer.live import Heard
from lhuc_asr.recognizer.pauses import spoken_part
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.recordings import OnBad, Recording
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus
from lhuc_asr.recognizer.transcript import Word, recording_name

# Half a minute of speech teaches most of what there is to gain (recipes/an4, recipes/demo).
NEEDED_SECONDS = 30.0
# Speech after which parameters are estimated for the first time; then each time after twice as much.
FIRST_SECONDS = 8.0
# Sound that is kept to learn from: 16 bits a sample, ten megabytes at 16 kHz.
MOST_SECONDS = 300.0
# A recording with a transcript may be so long.
LONGEST_SENTENCE_SECONDS = 60.0
# Sound that a new side hears again: more than the longest piece that is decoded at once.
TAIL_SECONDS = 30.0
# What is kept before and after what was said.
AROUND_WORDS_SECONDS = 0.2
FULL_SCALE = 32768


@dataclass(frozen=True)
class Take:
    """A recording to learn from.

    Attributes:
        name: Its name.
        samples: Shape (N,), int16, at the model's sample rate.
        words: What was read; None for free speech.
    """

    name: str
    samples: np.ndarray
    words: tuple[str, ...] | None


@dataclass(frozen=True)
class Row:
    """A recording as it is transcribed without and with the person's parameters.

    Attributes:
        read: What was read; None for free speech.
        without: The words without parameters.
        adapted: The words with them.
    """

    read: tuple[str, ...] | None
    without: tuple[str, ...]
    adapted: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What an enrolment ends with.

    Attributes:
        adaptation: The person, and the verdict.
        rows: The recordings.
        problems: What is wrong with recordings that were left out.
    """

    adaptation: Adaptation
    rows: Sequence[Row]
    problems: Sequence[str]


@dataclass(frozen=True)
class Progress:
    """What a block of sound has added.

    Attributes:
        without: Words without the person's parameters.
        adapted: Words with them; None as long as there are none.
        seconds: Seconds of speech so far: from the first word to the last of each line.
        full: Whether no more sound is kept.
    """

    without: Heard
    adapted: Heard | None
    seconds: float
    full: bool


class Enrolment:
    """One person's enrolment.

    Blocks come one after the other; nothing here is called by two threads at once but ``learn`` and ``result``.

    Args:
        recognizer: The recognizer; several enrolments may share it.
        name: Name of the person.
        rate: Sample rate of the blocks, hertz; None for the model's.
        reads: Whether the person reads; then only sentences that have ended are learned from.

    Attributes:
        name: Name of the person.
        sample_rate: Sample rate of the recordings: the model's.

    Raises:
        SpeakerError: The name cannot be the name of a file.
    """

    def __init__(self, recognizer: Recognizer, name: str, rate: int | None, *, reads: bool) -> None:
        check_speaker_name(name)
        self._recognizer, self.name, self._reads = recognizer, name, reads
        self._without = _Side(recognizer, None, 0.0)
        self._adapted: _Side | None = None
        self.sample_rate = self._without.sample_rate
        self._resampling = ResamplingStream(rate or self.sample_rate, self.sample_rate)
        self._takes: list[Take] = []
        # The recording that is being made: its samples, int16; when its last word so far has ended; whether it is cut.
        self._recorded, self._cut = bytearray(), False
        self._last_word: float | None = None
        self._begin = self._heard_samples = self._kept_samples = 0
        self._tail = np.zeros(0, dtype=np.float32)
        self._seconds, self._due = 0.0, FIRST_SECONDS
        self._seconds_before = 0.0  # the recording that is being made

    @property
    def left_seconds(self) -> float:
        """How much more sound is kept."""
        return MOST_SECONDS - self._kept_samples / self.sample_rate

    def hear(self, block: np.ndarray) -> Progress:
        """Take the next samples.

        Args:
            block: Samples of one channel, int16 (N,), at the rate that was given.
        """
        samples = self._resampling.take(block.astype(np.float32) / FULL_SCALE)
        samples = samples.clip(-1.0, 1.0 - 1 / FULL_SCALE)
        self._heard_samples += len(samples)
        self._keep(samples)
        self._tail = np.concatenate([self._tail, samples])[-samples_of(TAIL_SECONDS, self.sample_rate) :]
        adapted = None if self._adapted is None else self._adapted.hear(samples)
        return self._progress(self._without.hear(samples), adapted)

    def end_take(self, words: Sequence[str] | None = None) -> Progress:
        """End the recording that is being made; what was not heard of it yet stands now.

        Args:
            words: What was read in it; None for free speech.

        Raises:
            AudioError: Nothing was said in it, or it is too long for known words, or no more sound is kept; it is not
                kept.
        """
        adapted = None if self._adapted is None else self._adapted.end()
        progress = self._progress(self._without.end(), adapted)
        samples, last_word, is_cut = self._recording(), self._last_word, self._cut
        self._recorded, self._last_word, self._cut = bytearray(), None, False
        self._begin, self._tail = self._heard_samples, self._tail[:0]
        problem = ""
        if is_cut and (words is not None or not len(samples)):
            problem = f"{MOST_SECONDS / 60:.0f} minutes of sound are kept, and no more; that is enough"
        elif last_word is None:
            problem = "nothing was heard; say it again"
        elif words is not None and len(samples) > samples_of(LONGEST_SENTENCE_SECONDS, self.sample_rate):
            problem = f"this took more than {LONGEST_SENTENCE_SECONDS:.0f} s; read it again"
        if problem:
            self._kept_samples -= len(samples)
            self._seconds = self._seconds_before
            raise AudioError(problem)
        self._seconds_before = self._seconds
        known = None if words is None else tuple(words)
        self._takes.append(Take(self._next_name(), self._without_waiting(samples), known))
        return progress

    def takes(self) -> list[Take]:
        """The recordings to learn from; of free speech that goes on, what was said up to its last word."""
        if self._last_word is None or self._reads:
            return list(self._takes)
        end = samples_of(self._last_word + AROUND_WORDS_SECONDS, self.sample_rate) - self._begin
        so_far = Take(self._next_name(), self._recording()[:end], None)
        return [*self._takes, so_far]

    def is_due(self) -> bool:
        """Whether enough was said since the last time to estimate parameters; asked once, it is so no more."""
        due = self._seconds >= self._due and self.left_seconds > 0
        while self._seconds >= self._due:
            self._due *= 2
        return due

    def become(self, person: Speaker) -> None:
        """Write down with these parameters from now on; what was said since the last line is heard again."""
        begin = (self._heard_samples - len(self._tail)) / self.sample_rate
        self._adapted = _Side(self._recognizer, person, begin)
        self._adapted.catch_up(self._tail)

    def _without_waiting(self, samples: np.ndarray) -> np.ndarray:
        """A recording without what was not spoken at its ends: a person reads a sentence first, and then says it.

        Statistics of the features are of all that is there, and a network has learned from recordings without waiting.
        """
        hop = samples_of(FRAME_SHIFT_SECONDS, self.sample_rate)
        whole = samples[: len(samples) // hop * hop].reshape(-1, hop) / FULL_SCALE
        first, end = spoken_part(np.square(whole).mean(axis=1))
        margin = samples_of(AROUND_WORDS_SECONDS, self.sample_rate)
        return samples[max(0, first * hop - margin) : end * hop + margin]

    def _next_name(self) -> str:
        return f"{recording_name(self.name)}-{len(self._takes) + 1:02d}"

    def _keep(self, samples: np.ndarray) -> None:
        room = max(0, samples_of(MOST_SECONDS, self.sample_rate) - self._kept_samples)
        kept = (samples[:room] * FULL_SCALE).round().astype(np.int16)
        self._recorded += kept.tobytes()
        self._kept_samples += len(kept)
        self._cut = self._cut or len(kept) < len(samples)

    def _recording(self) -> np.ndarray:
        return np.frombuffer(bytes(self._recorded), np.int16)

    def _progress(self, without: Heard, adapted: Heard | None) -> Progress:
        self._seconds += sum(line[-1].end - line[0].start for line in without.lines)
        if without.finished:
            self._last_word = without.finished[-1].end
        standing = (without if adapted is None else adapted).finished
        if standing:
            left = self._heard_samples - samples_of(standing[-1].end, self.sample_rate)
            self._tail = self._tail[-left:] if left > 0 else self._tail[:0]
        return Progress(without, adapted, self._seconds, self.left_seconds <= 0)


class _Side:
    """What is written down with one set of parameters.

    Args:
        recognizer: The recognizer.
        person: The parameters; None for none.
        begin: When its first sample was said, seconds.
    """

    def __init__(self, recognizer: Recognizer, person: Speaker | None, begin: float) -> None:
        self._live, self._begin = recognizer.listen(person), begin
        self._waiting: tuple[tuple[Word, ...], ...] = ()  # lines that were not handed out yet
        self.sample_rate = self._live.sample_rate

    def catch_up(self, samples: np.ndarray) -> None:
        """Hear what was said before; its words are handed out with those of the next block."""
        self._waiting = self._live.hear(samples).lines

    def hear(self, samples: np.ndarray) -> Heard:
        """The words that samples add."""
        return self._timed(self._live.hear(samples))

    def end(self) -> Heard:
        """The words of what is left."""
        return self._timed(self._live.end())

    def _timed(self, heard: Heard) -> Heard:
        """Words with times since the first sample of the enrolment."""
        begin, lines, self._waiting = self._begin, self._waiting + heard.lines, ()
        timed = (
            tuple(Word(each.word, begin + each.start, begin + each.end, each.confidence) for each in line)
            for line in lines
        )
        return Heard(tuple(timed), heard.unfinished)


def learn(recognizer: Recognizer, name: str, takes: Sequence[Take], rate: int) -> Speaker:
    """A person's parameters, estimated on recordings with the words that were read, or else those of a first pass.

    Args:
        recognizer: The recognizer.
        name: Name of the person.
        takes: The recordings.
        rate: Their sample rate, hertz.

    Raises:
        AudioError: The recordings cannot be learned from.
    """
    with _recordings(takes, rate) as recordings:
        return _adapted(recognizer, name, takes, recordings, lambda _: None, judged=False).speaker


def result(recognizer: Recognizer, name: str, takes: Sequence[Take], rate: int) -> Result:
    """What an enrolment ends with; arguments and errors as for ``learn``."""
    problems: list[LhucError] = []
    with _recordings(takes, rate) as recordings:
        adaptation = _adapted(recognizer, name, takes, recordings, problems.append, judged=True)
        without, adapted = (
            {each.recording: each.words for each in recognizer.transcripts(recordings, person)}
            for person in (None, adaptation.speaker)
        )
    rows = [
        Row(take.words, *(tuple(word.word for word in side[take.name]) for side in (without, adapted)))
        for take in takes
    ]
    return Result(adaptation, rows, [str(problem) for problem in problems])


@contextmanager
def _recordings(takes: Sequence[Take], rate: int) -> Iterator[list[Recording]]:
    with ExitStack() as stack:
        yield [stack.enter_context(recorded(take.name, (take.samples, rate))) for take in takes]


def _adapted(
    recognizer: Recognizer,
    name: str,
    takes: Sequence[Take],
    recordings: list[Recording],
    on_bad: OnBad,
    *,
    judged: bool,
) -> Adaptation:
    known = {take.name: take.words for take in takes if take.words is not None}
    corpus = SpeakerCorpus({name: recordings}, {})
    (adaptation,) = recognizer.adapt_corpus(corpus, known or None, judged=judged, on_bad=on_bad)
    return adaptation
