"""The two-pass loop: first pass, targets, adaptation, second pass (Swietojanski et al. 2016, sec. III).

1. decode with the speaker-independent network              -> words, pdf of each frame
2. the first pass' pdfs are the targets, silence weighted down
3. estimate each speaker's amplitudes, the network frozen
4. decode again, each speaker with his amplitudes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers
from lhuc_asr.adapt.targets import FrameTargets, SpeakerFrames, targets_from_alignment
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.store import FeatureStore, StoredUtterance
from lhuc_asr.hmm.alignment import UNALIGNED
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.pipeline.acoustics import score_utterance

Applied = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class TwoPass:
    """What both passes over a split share.

    Attributes:
        model: The speaker-independent network; it is never changed.
        store: Features of the split.
        silence_pdfs: Pdfs that are weighted down in adaptation.
    """

    model: Dnn
    store: FeatureStore
    silence_pdfs: np.ndarray

    def first_pass(self, pool: SearchPool, search: SearchConfig) -> list[Hypothesis]:
        """Decode with the speaker-independent network."""
        return self._decode(pool, search, self._unadapted, "first pass")

    def adapt(
        self,
        method: AdaptationMethod,
        pdfs: Mapping[str, np.ndarray],
        silence_weight: float,
        seed: int,
    ) -> AdaptedSpeakers:
        """Adapt to every speaker of the split, all together.

        Args:
            method: How.
            pdfs: Target of each frame, shape (T,) an utterance: of the first pass, or of the reference. Utterances
                that are not among them teach nothing.
            silence_weight: Weight of frames whose target is silence.
            seed: Of the order of frames.
        """

        def targets(utterance: StoredUtterance) -> FrameTargets:
            found = pdfs.get(utterance.id, np.full(utterance.frames, UNALIGNED))
            return targets_from_alignment(found, self.silence_pdfs, silence_weight)

        frames = {
            speaker: SpeakerFrames.of([(self.store[u.id], targets(u)) for u in utterances])
            for speaker, utterances in self.store.speakers.items()
        }
        return method.estimate(self.model, frames, seed)

    def second_pass(self, pool: SearchPool, search: SearchConfig, speakers: AdaptedSpeakers) -> list[Hypothesis]:
        """Decode each speaker with what was learned about him."""
        return self._decode(pool, search, lambda name: speakers.applied(self.model, name), "second pass")

    def likelihoods(self, speakers: AdaptedSpeakers | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Each utterance and its log-likelihoods (T, K), unadapted or adapted, speaker after speaker."""
        applied = self._unadapted if speakers is None else lambda name: speakers.applied(self.model, name)
        return self._scores(applied)

    def _decode(self, pool: SearchPool, search: SearchConfig, applied: Applied, title: str) -> list[Hypothesis]:
        found = pool.search_all(self._scores(applied), search)
        return list(progress(found, title, len(self.store.utterances)))

    def _scores(self, applied: Applied) -> Iterator[tuple[str, np.ndarray]]:
        for speaker, utterances in self.store.speakers.items():
            with applied(speaker):
                scores = [(u.id, score_utterance(self.model, self.store[u.id])) for u in utterances]
            yield from scores

    @staticmethod
    def _unadapted(_speaker: str) -> AbstractContextManager[None]:
        return nullcontext()


def transcripts_of(hypotheses: Sequence[Hypothesis]) -> dict[str, str]:
    """The words of each utterance, as one string."""
    return {hypothesis.utterance: hypothesis.text for hypothesis in hypotheses}


def targets_of(hypotheses: Sequence[Hypothesis]) -> dict[str, np.ndarray]:
    """The pdf of each frame of each utterance."""
    return {hypothesis.utterance: hypothesis.pdfs for hypothesis in hypotheses}
