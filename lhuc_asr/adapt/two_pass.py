"""The two-pass loop: first pass, targets, adaptation, second pass (Swietojanski et al. 2016, sec. III).

1. decode with the speaker-independent network              -> words, pdf of each frame
2. the first pass' pdfs are the targets, silence weighted down
3. estimate each speaker's amplitudes, the network frozen
4. decode again, each speaker with his amplitudes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers
from lhuc_asr.adapt.targets import (
    FrameTargets,
    SpeakerData,
    TargetsConfig,
    no_targets,
    targets_from_alignment,
    targets_from_confidence,
    targets_from_lattice,
)
from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.features.store import FeatureTable, StoredUtterance
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.nnet.scoring import score_utterance


@dataclass(frozen=True)
class TwoPass:
    """What both passes over a split share.

    Attributes:
        model: The speaker-independent network; it is never changed.
        store: Features of the split.
        silence_pdfs: Pdfs that are weighted down in adaptation.
    """

    model: Dnn
    store: FeatureTable
    silence_pdfs: np.ndarray

    def decode(
        self,
        pool: SearchPool,
        search: SearchConfig,
        speakers: AdaptedSpeakers | None = None,
        shares: Sequence[AdaptationSet] = (),
        title: str = "search",
    ) -> list[Hypothesis]:
        """Decode with the speaker-independent network, or each utterance with what was learned about its speaker."""
        found = pool.search_all(self.likelihoods(speakers, shares), search)
        return list(progress(found, title, len(self.store.utterances)))

    def alignment_targets(self, pdfs: Mapping[str, np.ndarray], silence_weight: float) -> dict[str, FrameTargets]:
        """One pdf a frame (T,), of a best path or of the reference."""
        return {
            utterance: targets_from_alignment(found, self.silence_pdfs, silence_weight)
            for utterance, found in pdfs.items()
        }

    def lattice_targets(self, summaries: Iterable[LatticeSummary], options: TargetsConfig) -> dict[str, FrameTargets]:
        """What lattices make of each frame: all that it may have been, or a best path with confidences."""
        targets = {}
        for summary in summaries:
            best = summary.hypothesis
            if options.kind == "lattice":
                targets[best.utterance] = targets_from_lattice(
                    summary.frames, self.silence_pdfs, options.silence_weight, options.power, options.min_confidence
                )
            else:
                targets[best.utterance] = targets_from_confidence(
                    best.pdfs,
                    best.frame_confidences(),
                    self.silence_pdfs,
                    options.silence_weight,
                    options.min_confidence,
                    weighted=True,
                )
        return targets

    def adapt(
        self, method: AdaptationMethod, targets: Mapping[str, FrameTargets], shares: Sequence[AdaptationSet], seed: int
    ) -> AdaptedSpeakers:
        """Estimate what belongs to every share, all together.

        Args:
            method: How.
            targets: Of the frames of each utterance. Utterances that are not among them teach nothing.
            shares: Which utterances are whose.
            seed: Of the order of frames.
        """
        frames = {share.name: speaker_frames(self.store, targets, share.estimated_on) for share in shares}
        return method.estimate(self.model, frames, seed)

    def likelihoods(
        self, speakers: AdaptedSpeakers | None = None, shares: Sequence[AdaptationSet] = ()
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Each utterance and its log-likelihoods (T, K): of the network as it is, or adapted, share after share."""
        if speakers is None:
            yield from ((u.id, score_utterance(self.model, self.store[u.id])) for u in self.store.utterances)
            return
        for share in shares:
            with speakers.applied(self.model, share.name):
                scores = [(u.id, score_utterance(self.model, self.store[u.id])) for u in share.used_for]
            yield from scores


def speaker_frames(
    store: FeatureTable, targets: Mapping[str, FrameTargets], utterances: Sequence[tuple[StoredUtterance, int]]
) -> SpeakerData:
    """The data of one speaker.

    Args:
        store: Features.
        targets: Of the frames of each utterance; those of an utterance without targets count for nothing.
        utterances: The speaker's, each with the number of its first frames that are used.
    """
    parts = [(np.zeros((0, store.dimension), np.float32), no_targets(0))]  # a speaker may have no data at all
    for utterance, frames in utterances:
        found = targets.get(utterance.id) or no_targets(utterance.frames)
        parts.append((store[utterance.id][:frames], found.first(frames)))
    return SpeakerData.of(parts)


def transcripts_of(hypotheses: Sequence[Hypothesis]) -> dict[str, str]:
    """The words of each utterance, as one string."""
    return {hypothesis.utterance: hypothesis.text for hypothesis in hypotheses}


def targets_of(hypotheses: Sequence[Hypothesis]) -> dict[str, np.ndarray]:
    """The pdf of each frame of each utterance."""
    return {hypothesis.utterance: hypothesis.pdfs for hypothesis in hypotheses}
