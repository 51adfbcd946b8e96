"""A finished pass over a split: its network, sets, speakers and search, and the targets that can be made from it.

Lattices, and best paths with another language model, are not stored. For such targets ``EarlierPass`` scores and
searches the earlier pass again. This is not the second pass, which is in ``passes.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, Field

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, adaptation_sets, crossed_sets
from lhuc_asr.adapt.controls import Borrowed, another, others_mean
from lhuc_asr.adapt.method import AdaptedSpeakers, SpeakerScores
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.decode.search import AcousticScale, InsertionPenalty, SearchConfig
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.resolved_pass import Adaptation, Combination, Pass, Preparation, Reuse
from lhuc_asr.pipeline.transcripts import reference_pdfs

WER_FILE, HYPOTHESES_FILE, ALIGNMENT_FILE, SEARCH_FILE = "wer.json", "hypotheses.jsonl", "pdfs.ali", "search.json"
# What the adaptation of a pass cost.
ADAPTATION_FILE = "adaptation.json"


class _Chosen(StrictModel):
    """What is tuned of a search."""

    acoustic_scale: AcousticScale
    insertion_penalty: InsertionPenalty


class _Tuned(BaseModel):
    """Content of a tuned pass's ``search.json``, which records all that was tried too."""

    chosen: _Chosen


_TUNED = DocumentKind(
    _Tuned,
    "a tuned search",
    ExperimentError,
    "delete it and run again",
    missing="the experiment is not finished; finish it with lhuc-asr run",
)


class AdaptationCost(StrictModel):
    """Content of a pass's ``adaptation.json``.

    Attributes:
        seconds: Time that the adaptation of all sets took, the making of the targets included.
        sets: Number of adaptation sets.
    """

    seconds: float = Field(ge=0.0, le=1e9)
    sets: int = Field(ge=0, le=10**9)


ADAPTATIONS = DocumentKind(AdaptationCost, "the cost of an adaptation", ExperimentError, "delete it and run again")


def two_pass(experiment: AlignedExperiment, split: str, plan: Pass | Preparation) -> TwoPass:
    """The two-pass loop of the acoustic model of a pass, or of a preparation, over a split."""
    place = plan.place or ModelPlace()
    recordings = {utterance.id: utterance for utterance in experiment.utterances(split)}
    return TwoPass(
        experiment.model(plan.network, place),
        experiment.features_of(place, split),
        experiment.topology.silence_pdfs,
        recordings,
        experiment.alignment_model,
    )


def sets_of(experiment: AlignedExperiment, split: str, plan: Pass, features: FeatureTable) -> list[AdaptationSet]:
    """The adaptation sets of a pass.

    Each names the utterances that its parameters are estimated on, and those that are decoded with them.
    """
    match plan.adaptation:
        case Adaptation(data=data):
            environments = {utterance.id: utterance.environment for utterance in experiment.utterances(split)}
            return adaptation_sets(features, environments, data, plan.seed)
        case Combination(speaker=speaker, environment=environment):
            return list(crossed_of(experiment, split, speaker, environment, features))
        case Reuse(source=source):
            return sets_of(experiment, split, source, features)
        case None:
            return []


def tuned_search(experiment: AlignedExperiment, plan: Pass) -> SearchConfig:
    """The search of a pass, as tuned on the held-out speakers."""
    path = experiment.folder.decode(HELDOUT, plan.searched_as) / SEARCH_FILE
    chosen = _TUNED.read(path).chosen
    return parse_config(SearchConfig, plan.search.model_dump() | chosen.model_dump(), str(path))


def speakers_of(experiment: AlignedExperiment, split: str, plan: Pass, model: AcousticModel) -> AdaptedSpeakers:
    """The speaker parameters that a pass over a split estimated, attached to its network."""
    return load_speakers(model, experiment.folder.speakers(split, plan.name))


def crossed_of(
    experiment: AlignedExperiment, split: str, speaker: Pass, environment: Pass, features: FeatureTable
) -> Mapping[AdaptationSet, tuple[str, str]]:
    """The sets of a pass that combines two others, each with the names of the two sets that it combines."""
    return crossed_sets(*(sets_of(experiment, split, part, features) for part in (speaker, environment)))


def scores_of(experiment: AlignedExperiment, split: str, plan: Pass, loop: TwoPass) -> Iterator[Scores]:
    """The scores of a pass that does not estimate speakers, or whose speakers are estimated already."""
    if plan.adaptation is None:
        return loop.first_pass()
    sets = sets_of(experiment, split, plan, loop.features)
    return loop.second_pass(_parameters(experiment, split, plan, sets, loop.model), sets)


def _parameters(
    experiment: AlignedExperiment, split: str, plan: Pass, sets: Sequence[AdaptationSet], model: AcousticModel
) -> SpeakerScores:
    """The parameters that a pass decodes with: those that it estimated, or another's."""
    match plan.adaptation:
        case Reuse(source=source, whose="own"):
            return speakers_of(experiment, split, source, model)
        case Reuse() as reuse:
            return borrowed_by(experiment, split, plan, reuse, sets, model)
    return speakers_of(experiment, split, plan, model)


def borrowed_by(
    experiment: AlignedExperiment,
    split: str,
    plan: Pass,
    reuse: Reuse,
    sets: Sequence[AdaptationSet],
    model: AcousticModel,
) -> Borrowed:
    """The parameters of other speakers that a control decodes its sets with; ``reuse`` is its adaptation."""
    speakers = speakers_of(experiment, split, reuse.source, model)
    if reuse.whose == "another":
        return another(speakers, sets, plan.by_environment, plan.seed)
    if reuse.whose == "others_mean_of_both":
        if not isinstance(speakers, Stacked):
            raise ValueError(f"{plan.name}: the pass is not on top of another's transforms or vectors")
        speakers = replace(speakers, pools_below=True)
    return others_mean(speakers, sets, plan.by_environment)


@dataclass(frozen=True)
class EarlierPass:
    """A ``FirstPass``: an earlier pass over a split, as the source of a later pass's targets.

    Attributes:
        experiment: The experiment.
        split: The split.
        plan: The earlier pass.
        later: The later pass; its seed chooses which reference words are replaced, and by what.
        adaptation: How the later pass adapts.
        model: The acoustic model of the later pass, which aligns references.
    """

    experiment: AlignedExperiment
    split: str
    plan: Pass
    later: Pass
    adaptation: Adaptation
    model: AcousticModel

    def best_paths(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame on the best path: of the earlier pass, or of a search with another language model."""
        order = self.adaptation.targets.lm_order
        if order is None:
            features = self.experiment.features_of(self.plan.place or ModelPlace(), self.split)
            path = self.experiment.folder.decode(self.split, self.plan.name) / ALIGNMENT_FILE
            aligned = Alignment(path, features, self.model.pdf_count)
            return {utterance.id: aligned[utterance.id] for utterance in features.utterances}
        scores, count = self._scores()
        title = f"{self.plan.name} over {self.split} with a language model of order {order}"
        with self._searches() as searches:
            hypotheses = searches.search_all(scores, tuned_search(self.experiment, self.plan))
            return {best.utterance: best.pdfs for best in progress(hypotheses, title, count)}

    def lattices(self) -> Iterator[LatticeSummary]:
        """Lattices of the earlier pass, or of a search with another language model.

        Raises:
            ValueError: The later pass's targets are not made from lattices.
        """
        lattice = self.adaptation.lattice
        if lattice is None:
            raise ValueError(
                f"the later pass, with targets from {self.plan.name}, has targets of kind "
                f"{self.adaptation.targets.kind}, which are not made from lattices"
            )
        scores, count = self._scores()
        with self._searches() as searches:
            summaries = searches.lattices_all(scores, tuned_search(self.experiment, self.plan), lattice)
            yield from progress(summaries, f"lattices of {self.plan.name} over {self.split}", count)

    def references(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame along the reference transcripts; a fraction of their words may be replaced."""
        limit, corrupted = self.adaptation.max_unaligned or 0.0, self.adaptation.targets.corrupted or 0.0
        place = self.later.place or ModelPlace()
        return reference_pdfs(self.experiment, self.split, place, self.model, limit, corrupted, self.later.seed)

    def _searches(self) -> SearchPool:
        folder = self.experiment.graph(self.split, self.adaptation.targets.lm_order)
        return SearchPool(folder, self.experiment.processes)

    def _scores(self) -> tuple[Iterator[Scores], int]:
        """The earlier pass's scores for all utterances, and the number of utterances."""
        loop = two_pass(self.experiment, self.split, self.plan)
        return scores_of(self.experiment, self.split, self.plan, loop), len(loop.features.utterances)
