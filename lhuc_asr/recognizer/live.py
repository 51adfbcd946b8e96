"""Speech as it comes: samples in, words out while one speaks.

Two searches share the work. One goes on with every block of samples, and its best path gives the words so far, which
may still change. When the speaker pauses, the piece of speech that ends there is searched as ``transcribe`` searches a
piece, with the same scores and the same lattices, and its words stand, with times and confidences.

What a word waits for:

    the block of samples      as long as the caller's blocks, and 50 ms for a step of the search
    context                   70 ms for a network that sees seven frames ahead; LDA and differences look further
    the search                until the word's path is the best one, which may take some of the next word

Features are normalised with the speaker's mean and deviation. For an unknown speaker they are those of all that was
heard so far, after ``UNKNOWN_SECONDS`` of it.

If the recognizer learns, each piece whose words stand is learned from, and the next piece is decoded with what the
speaker's parameters have become (``learning.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, SpeakerError
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS, frames_of, samples_of, seconds_of
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.search import RunningSearch, Searcher
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.features.filterbank import compute_features
from lhuc_asr.recognizer.decoding import Decoding
from lhuc_asr.recognizer.learning import Learning
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.pauses import has_speech
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speech import Speech, feature_table
from lhuc_asr.recognizer.transcript import Word

# A pause of this length ends a piece; of a piece without words, all but the last of it is forgotten.
PAUSE_SECONDS = 0.6
# Number of frames that are searched at a time, whatever the blocks; after each step a pause is looked for.
STEP_FRAMES = 5
# Number of earlier frames whose levels say what is silence: a minute.
EARLIER_FRAMES = 6000
# How much of an unknown speaker's sound is heard before features are normalised and words come.
UNKNOWN_SECONDS = 3.0
# Name of the piece in messages.
PIECE = "live"

# From a piece's scores (T, K) and its start in seconds to its lattice and its words.
FinalWords = Callable[[np.ndarray, float], tuple[LatticeSummary, list[Word]]]


@dataclass(frozen=True)
class Heard:
    """What a block of samples has added.

    Attributes:
        finished: Words that stand, with times since the first sample.
        unfinished: Words after them so far, which may still change.
    """

    finished: tuple[Word, ...]
    unfinished: tuple[str, ...]


class Live:
    """One person's speech as it comes.

    Args:
        model: The model.
        decoding: The pass and the person's parameters; its statistics of the features are not used for an unknown one.
        known: Whether the statistics of the person's features are known.
        final_words: The words of a piece, as in a transcript.
        learning: The person's parameters, which go on with each piece; None to leave them as they are.
    """

    def __init__(
        self,
        model: LoadedModel,
        decoding: Decoding,
        known: bool,
        final_words: FinalWords,
        learning: Learning | None = None,
    ) -> None:
        self._model, self._decoding, self._known, self._final_words = model, decoding, known, final_words
        self._learning = learning
        self._features = decoding.plan.features
        self._shift = int(self.sample_rate * FRAME_SHIFT_SECONDS)
        in_space = decoding.plan.in_space and model.space is not None
        reach = model.space.context if in_space and model.space is not None else 0
        # Frames on either side that a frame's scores depend on.
        self._context = model.models[decoding.plan.network].context + reach + 2 * self._features.delta_order
        self._searcher = Searcher(model.pool.graph, decoding.plan.search)
        self._statistics = CmvnAccumulator(self._features.dimension)
        self._samples = np.zeros(0, np.float32)  # those of the piece, and after it
        self._start = 0  # number of samples before the piece
        self._earlier = np.zeros(0)  # levels before the piece
        self._frames = self._counted = 0  # frames of the piece that were searched, and that are in the statistics
        self._search = self._begin()

    @property
    def sample_rate(self) -> int:
        """The sample rate that ``hear`` expects, hertz."""
        return self._features.sample_rate

    def hear(self, samples: np.ndarray) -> Heard:
        """Take the next samples.

        Args:
            samples: Samples in [-1, 1), shape (N,), of any length.

        Raises:
            AudioError: The samples are of another shape, or not finite.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise AudioError(f"samples of shape {samples.shape}: expected one channel of finite numbers")
        self._samples = np.concatenate([self._samples, samples])
        finished = self._searched(ending=False)
        return Heard(tuple(finished), self._search.best().words if self._spoken(0, self._frames) else ())

    def end(self) -> Heard:
        """The words of what is left. Samples that are heard after it are of a new piece."""
        finished = [*self._searched(ending=True), *self._finish(self._frames)]
        self._start += len(self._samples)
        self._samples = self._samples[:0]
        return Heard(tuple(finished), ())

    @property
    def learned_seconds(self) -> float:
        """Length of the pieces that were learned from."""
        return 0.0 if self._learning is None else self._learning.seconds

    @property
    def speaker(self) -> Speaker:
        """The person as learned so far, to be saved to a file.

        Raises:
            SpeakerError: The recognizer does not learn.
            FeatureError: Nothing was heard yet of an unknown person.
        """
        if self._learning is None:
            raise SpeakerError("nothing is learned of this person; listen with learn=True")
        return Speaker(self._decoding.speaker, self._model.description.network, self._learning.adapted, self._cmvn())

    def _searched(self, ending: bool) -> list[Word]:
        """Search on in the frames whose context is there, in short steps that miss no pause; the words that stand."""
        finished: list[Word] = []
        while self._advance(ending):
            if (end := self._end_of_piece()) is not None:
                finished += self._finish(end)
        return finished

    def _advance(self, ending: bool) -> bool:
        """Search one step on; whether there were frames for it."""
        there = frames_of(len(self._samples) / self.sample_rate, self.sample_rate)
        until = min(self._frames + STEP_FRAMES, self._longest)
        if ending:
            until = min(until, there)
        if until <= self._frames or (until + self._context > there and not ending):
            return False
        if not self._may_begin(there, ending):
            return False
        first = max(0, self._frames - self._context)
        scores = self._scored(self._speech(first, min(there, until + self._context)))
        self._search.advance(scores[self._frames - first : until - first])
        self._frames = until
        return True

    def _may_begin(self, there: int, ending: bool) -> bool:
        """Add new frames to an unknown person's statistics; whether there are enough of them, or there come no more."""
        if self._known:
            return True
        if there > self._counted:
            self._statistics.add(self._computed(self._counted, there))
            self._counted = there
        heard = self._start / self._shift + there
        return ending or heard * FRAME_SHIFT_SECONDS >= UNKNOWN_SECONDS

    @property
    def _longest(self) -> int:
        """Number of frames of the longest piece."""
        return frames_of(self._model.description.piece_seconds, self.sample_rate)

    def _end_of_piece(self) -> int | None:
        """The frame before which the piece ends, in the middle of a pause if there is any; None if it goes on."""
        best = self._search.best()
        silent = np.isin(best.pdfs, self._model.topology.silence_pdfs)
        trailing = len(silent) if silent.all() else int(np.argmin(silent[::-1]))
        pause = frames_of(PAUSE_SECONDS)
        if trailing >= pause and (best.words or trailing == len(silent)):
            # A word may have begun at the end of a silent piece, so a little of it stays.
            return self._frames - (trailing // 2 if best.words else pause // 2)
        # The best path may stretch a word over a pause.
        if self._frames > pause and not self._spoken(self._frames - pause, self._frames):
            return self._frames - pause // 2
        if self._frames < self._longest:
            return None
        # Too long: cut in the middle of the longest pause of its second half.
        runs = np.diff(np.concatenate([[False], silent[len(silent) // 2 :], [False]]).astype(int))
        begins, ends = np.flatnonzero(runs == 1), np.flatnonzero(runs == -1)
        if not len(begins):
            return self._frames
        which = int((ends - begins).argmax())
        return len(silent) // 2 + int(begins[which] + ends[which] + 1) // 2

    def _finish(self, frames: int) -> list[Word]:
        """The words of the piece that ends after so many frames; what comes after it is the next piece."""
        words: list[Word] = []
        if self._spoken(0, frames) and self._search.best().words:
            speech = self._speech(0, frames)
            summary, words = self._final_words(self._scored(speech), self._start / self.sample_rate)
            if self._learning is not None:
                self._learning.learn(speech, summary)
        samples = min(len(self._samples), frames * self._shift)
        self._earlier = np.concatenate([self._earlier, self._levels(frames)])[-EARLIER_FRAMES:]
        self._samples, self._start = self._samples[samples:], self._start + samples
        self._frames, self._counted = 0, max(0, self._counted - frames)
        self._search = self._begin()
        return words

    def _spoken(self, first: int, end: int) -> bool:
        """Whether frames of the piece hold more than silence and steady noise, beside what was before them."""
        if first == end:
            return False
        level = np.concatenate([self._earlier, self._levels(end)])
        before = len(self._earlier) + first
        return has_speech(level, [(0, before), (before, len(level))][not before :])[-1]

    def _levels(self, frames: int) -> np.ndarray:
        """Mean squares of the piece's first frames, one a frame shift."""
        samples = self._samples[: frames * self._shift].astype(np.float64)
        levels: np.ndarray = np.square(samples.reshape(-1, self._shift)).mean(axis=1)
        return levels

    def _begin(self) -> RunningSearch:
        return self._searcher.begin(PIECE)

    def _computed(self, first: int, end: int) -> np.ndarray:
        """Features of frames of the piece, not normalised, shape (end - first, D)."""
        window = samples_of(FRAME_LENGTH_SECONDS, self.sample_rate)
        samples = self._samples[first * self._shift : (end - 1) * self._shift + window]
        return compute_features(samples, self._features)

    def _cmvn(self) -> Cmvn:
        """Mean and deviation to normalise the features with."""
        return self._decoding.cmvn if self._known else self._statistics.estimate()

    def _speech(self, first: int, end: int) -> Speech:
        """Frames of the piece, with features as if it were they alone."""
        speaker = self._decoding.speaker
        piece = Utterance(PIECE, speaker, "", Path(PIECE), seconds_of(first), seconds_of(end - first), "")
        table = feature_table({PIECE: self._cmvn().apply(self._computed(first, end))}, speaker)
        return Speech((piece,), {PIECE: PIECE}, {self._features: table})

    def _scored(self, speech: Speech) -> np.ndarray:
        """Scores of frames of the piece, shape (T, K)."""
        ((_, scores),) = self._decoding.scores(self._model, speech)
        return scores
