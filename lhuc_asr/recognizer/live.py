"""Speech as it comes: samples in, words out while one speaks.

A running search goes on with every block of samples, and its best path gives the words so far, which may still change.
When the speaker pauses, the piece of speech that ends there is searched once more, as ``transcribe`` searches a piece,
with the same scores and lattices. The words of this second search stand, with times and confidences.

A word is seen when the running search has it, which needs

    the block of samples     as long as the caller's blocks, and up to 50 ms for a step of the search
    the frames after it      that the network sees: seven of 10 ms, say, and more for LDA and differences; not
                             those before it, of which a time-delay network may see more
    the best path            which may take some of the next word

and it stands 0.6 s after the speaker has paused, or when the piece has become too long.

Features are normalised with the speaker's mean and deviation. For an unknown speaker they are those of the pieces with
speech so far, and words come after ``UNKNOWN_SECONDS`` of these. If the recognizer learns, each piece whose words stand
is learned from, and the next piece is decoded with what the speaker's parameters have become (``learning.py``).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import SearchError, SpeakerError
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS, frames_of, seconds_of
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.search import RunningSearch, Searcher
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.recognizer.decoding import Decoding
from lhuc_asr.recognizer.learning import Learning
from lhuc_asr.recognizer.live_sound import LiveSound, as_samples
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.pauses import runs
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speech import Speech, feature_table
from lhuc_asr.recognizer.transcript import Word

logger = logging.getLogger(__name__)

# A pause of this length ends a piece. Of a piece without words half a pause is kept: a word may have begun in it.
PAUSE_SECONDS = 0.6
PAUSE_FRAMES = round(PAUSE_SECONDS / FRAME_SHIFT_SECONDS)
# Number of frames that are searched at a time, whatever the blocks; after each step a pause is looked for.
STEP_FRAMES = 5
# How much of an unknown speaker's speech is heard before features are normalised and words come.
UNKNOWN_SECONDS = 3.0
UNKNOWN_FRAMES = round(UNKNOWN_SECONDS / FRAME_SHIFT_SECONDS)
# Name of the piece in messages.
PIECE = "live"

# From a piece's scores (T, K) and its start in seconds to its lattice and its words, placed in time.
FinalWords = Callable[[np.ndarray, float], tuple[LatticeSummary, list[Word]]]


@dataclass(frozen=True)
class Heard:
    """What a block of samples has added.

    Attributes:
        lines: The words that stand, those of each piece together, with times since the first sample.
        unfinished: Words after them so far, which may still change.
    """

    lines: tuple[tuple[Word, ...], ...]
    unfinished: tuple[str, ...]

    @property
    def finished(self) -> tuple[Word, ...]:
        """The words that stand, of all pieces."""
        return tuple(chain.from_iterable(self.lines))


class Live:
    """One person's speech as it comes.

    Frames are counted from the start of the piece that is being said.

    Args:
        model: The model.
        decoding: The pass and the person's parameters; its statistics of the features are not used for an unknown one.
        known: Whether the statistics of the person's features are known.
        final_words: The lattice and the words of a piece, as for a transcript.
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
        self._sound = LiveSound(self._features)
        in_space = decoding.plan.in_space and model.space is not None
        reach = model.space.context if in_space and model.space is not None else 0
        # Frames on either side that a frame's differences depend on, and those before and after it that its scores do.
        self._differences = 2 * self._features.delta_order
        context, beside = model.models[decoding.plan.network].context, reach + self._differences
        self._before, self._after = context.left + beside, context.right + beside
        longest = frames_of(model.description.piece_seconds, self.sample_rate)
        self._longest = max(longest, 2 * PAUSE_FRAMES)  # there is room for a pause
        self._searcher = Searcher(model.pool.graph, decoding.plan.search)
        self._search = self._begin()
        self._searched = 0  # frames of the piece that the running search has
        # For an unknown person: sums over the earlier pieces with speech, the same sums with this piece's frames, the
        # number of these, and whether there are enough frames for words.
        self._of_pieces = CmvnAccumulator(self._features.dimension)
        self._statistics = copy.deepcopy(self._of_pieces)
        self._counted, self._enough = 0, known
        self._standing: list[tuple[Word, ...]] = []  # lines that were not handed out yet

    @property
    def sample_rate(self) -> int:
        """The sample rate that ``hear`` expects, hertz."""
        return self._features.sample_rate

    def hear(self, samples: np.ndarray) -> Heard:
        """Take the next samples.

        Args:
            samples: Samples of one channel, shape (N,), of any length: floats in [-1, 1), or integers of 16 or 32 bits.

        Raises:
            AudioError: The samples are of another kind or shape, or not finite; they are not taken.
        """
        self._sound.add(as_samples(samples))
        self._search_on(ending=False)
        spoken = self._searched > 0 and self._sound.spoken(0, self._searched)
        return self._handed_out(self._search.best().words if spoken else ())

    def end(self) -> Heard:
        """The words of what is left. Samples that are heard after it are of a new piece."""
        self._sound.end()
        self._search_on(ending=True)
        self._sound.begin_anew()
        self._begin_piece()
        return self._handed_out(())

    def _handed_out(self, unfinished: tuple[str, ...]) -> Heard:
        lines, self._standing = tuple(self._standing), []
        return Heard(lines, unfinished)

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

    def _search_on(self, ending: bool) -> None:
        """Search on as far as frames are there, and keep the lines that stand.

        A piece that cannot be searched is left out, with a warning.
        """
        while True:
            try:
                more = self._step(ending)
                if not (more or ending):
                    return
                end = self._end_of_piece() if more else self._searched
                if end is not None:
                    self._finish(end)
            except SearchError as error:
                logger.warning("from %.1f s on, what was said is left out: %s", self._sound.seconds, error)
                self._forget(min(self._sound.frames, self._searched + STEP_FRAMES))
                more = self._sound.frames > 0
            if not more:
                return

    def _step(self, ending: bool) -> bool:
        """Search one step on; whether there were frames for it."""
        if not self._enough and not self._may_begin(ending):
            return False
        there = self._sound.frames
        until = min(self._searched + STEP_FRAMES, self._longest)
        if ending:
            until = min(until, there)
        if until <= self._searched or not (ending or self._known_until(until, self._after)):
            return False
        if not self._known and until > self._counted:
            self._count(until)
        first = max(0, self._searched - self._before)
        scores = self._scores(self._speech(first, min(there, until + self._after)))
        self._search.advance(scores[self._searched - first : until - first])
        self._searched = until
        return True

    def _may_begin(self, ending: bool) -> bool:
        """Count an unknown person's frames, and forget silence, until there are enough for words or no more come."""
        while not self._enough:
            until = self._counted + STEP_FRAMES
            if ending:
                until = min(until, self._sound.frames)
                if until == self._counted:
                    return until > 0
            elif not self._known_until(until, self._differences):
                return False
            self._count(until)
            if self._counted >= PAUSE_FRAMES and not self._sound.spoken(0, self._counted):
                self._forget(self._counted - PAUSE_FRAMES // 2)
            self._enough = self._of_pieces.frames + self._counted >= UNKNOWN_FRAMES
        return True

    def _known_until(self, until: int, beside: int) -> bool:
        """Whether frames, so many beside them, and their levels are there, so that nothing depends on the blocks."""
        return until + beside <= self._sound.frames and until <= self._sound.known_frames

    def _count(self, until: int) -> None:
        """Add frames of the piece to the statistics; their differences need the frames beside them."""
        first = max(0, self._counted - self._differences)
        end = min(self._sound.frames, until + self._differences)
        self._statistics.add(self._sound.features(first, end)[self._counted - first : until - first])
        self._counted = until

    def _end_of_piece(self) -> int | None:
        """The frame before which the piece ends, in the middle of a pause if there is any; None if it goes on."""
        if not self._searched:
            return None
        best = self._search.best()
        silent = np.isin(best.pdfs, self._model.topology.silence_pdfs)
        pauses = runs(silent)
        trailing = pauses[-1][1] - pauses[-1][0] if pauses and pauses[-1][1] == len(silent) else 0
        if best.words and trailing >= PAUSE_FRAMES:
            return self._searched - trailing // 2
        # A piece without words; or the best path has stretched a word over a pause.
        quiet = self._searched > PAUSE_FRAMES and not self._sound.spoken(self._searched - PAUSE_FRAMES, self._searched)
        if quiet or PAUSE_FRAMES <= trailing == len(silent):
            return self._searched - PAUSE_FRAMES // 2
        if self._searched < self._longest:
            return None
        # Too long: cut in the middle of the longest pause of its second half, or where that is quietest.
        half = len(silent) // 2
        pauses = runs(silent[half:])
        if not pauses:
            return self._sound.quietest(half, self._searched)
        begin, end = max(pauses, key=lambda pause: pause[1] - pause[0])
        return half + (begin + end) // 2

    def _finish(self, end: int) -> None:
        """Let the piece end before a frame; its words stand, and what comes after it is the next piece."""
        if end > 0 and self._search.best().words:
            if self._sound.spoken(0, end):
                self._keep_words(end)
            else:
                start = self._sound.seconds
                logger.info("%.1f-%.1f s: left out as silence or steady noise", start, start + seconds_of(end))
        self._forget(end)

    def _keep_words(self, end: int) -> None:
        """The words of the frames before ``end`` stand, and are learned from."""
        speech = self._speech(0, end)
        summary, words = self._final_words(self._scores(speech), self._sound.seconds)
        if words:
            self._standing.append(tuple(words))
        if not self._known:
            self._of_pieces.add(self._sound.features(0, end))
        if self._learning is not None:
            self._learning.learn(speech, summary)

    def _forget(self, frames: int) -> None:
        """Let the next piece begin after so many frames of this one."""
        self._sound.forget(frames)
        self._begin_piece()

    def _begin_piece(self) -> None:
        self._searched = self._counted = 0
        self._statistics = copy.deepcopy(self._of_pieces)
        self._enough = self._known or self._of_pieces.frames >= UNKNOWN_FRAMES
        self._search = self._begin()

    def _begin(self) -> RunningSearch:
        return self._searcher.begin(PIECE)

    def _cmvn(self) -> Cmvn:
        """Mean and deviation to normalise the features with."""
        return self._decoding.cmvn if self._known else self._statistics.estimate()

    def _speech(self, first: int, end: int) -> Speech:
        """Frames of the piece, with features as if it were they alone."""
        speaker = self._decoding.speaker
        piece = Utterance(PIECE, speaker, "", Path(PIECE), seconds_of(first), seconds_of(end - first), "")
        table = feature_table({PIECE: self._cmvn().apply(self._sound.features(first, end))}, speaker)
        return Speech((piece,), {PIECE: PIECE}, {self._features: table})

    def _scores(self, speech: Speech) -> np.ndarray:
        """Scores of frames of the piece, shape (T, K)."""
        ((_, scores),) = self._decoding.scores(self._model, speech)
        return scores
