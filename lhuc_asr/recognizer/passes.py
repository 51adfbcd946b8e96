"""The passes of a model over a person's speech: on the words, and transforms or vectors, that earlier passes give.

A pass is made when a later one asks for it. Its targets, method and search are those of the experiment's pass, so that
the last one gives the experiment's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lhuc_asr.adapt.adaptation_sets import AdaptationSet
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers
from lhuc_asr.adapt.stacked import StackedMethod
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.recognizer.first_pass import KnownTranscripts, SearchedFirstPass
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.pass_description import PassDescription
from lhuc_asr.recognizer.recordings import OnBad
from lhuc_asr.recognizer.speech import Speech

SetsOf = Callable[[FeatureTable], Sequence[AdaptationSet]]


@dataclass(frozen=True)
class Passes:
    """All passes of a model over the speech of some persons.

    Attributes:
        model: The model.
        speech: The speech.
        pool: Pool that searches the decoding graph.
        transcripts: Words of each recording as the lexicon spells them; None for those of searches.
        on_bad: What happens to recordings that do not fit their transcripts.
    """

    model: LoadedModel
    speech: Speech
    pool: SearchPool
    transcripts: Mapping[str, Sequence[str]] | None = None
    on_bad: OnBad = None
    _made: dict[str, Pass] = field(default_factory=dict)
    _unfit: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Pass:
        """The pass of a name."""
        if name not in self._made:
            self._made[name] = Pass(self, self.model.description.named(name))
        return self._made[name]

    def words(self, made: Pass) -> SearchedFirstPass | KnownTranscripts:
        """The words that a pass gives: those of its search, or the known ones where its scores place them."""
        model = self.model
        if self.transcripts is not None:
            known = self.speech.recording_of, self.transcripts, model.lexicon, model.topology
            return KnownTranscripts(made.scores, *known, self.on_bad, self._unfit)
        plan, count = made.plan, len(self.speech.pieces)
        title = "first pass" if plan.method is None else f"pass {plan.name}"
        return SearchedFirstPass(made.scores, count, self.pool, plan.search, model.description.lattice, title)


@dataclass(frozen=True)
class Pass:
    """A pass over the speech of some persons.

    Attributes:
        passes: All passes over it.
        plan: Description of the pass.
    """

    passes: Passes
    plan: PassDescription

    @cached_property
    def loop(self) -> TwoPass:
        """The acoustic model and the features of the pass."""
        return self.passes.model.loop(self.plan, self.passes.speech)

    @cached_property
    def words(self) -> SearchedFirstPass | KnownTranscripts:
        """The words of the pass, as the source of a later pass's targets."""
        return self.passes.words(self)

    @cached_property
    def adapted(self) -> AdaptedSpeakers:
        """The persons' parameters, of all their pieces; see ``estimated``."""
        return self.estimated(self.passes.model.sets)

    def estimated(self, sets_of: SetsOf) -> AdaptedSpeakers:
        """Parameters of adaptation sets, and of the transforms or vectors below them, on the same words.

        Args:
            sets_of: Makes the adaptation sets from the features of the pieces.

        Raises:
            ExperimentError: The pass does not estimate any, or is on one that estimates neither transforms nor vectors.
        """
        plan, options, loop = self.plan, self.passes.model.description, self.loop
        if plan.method is None or self.source is None:
            raise ExperimentError(f"the pass {plan.name!r} of the model does not adapt; export the model again")
        method: AdaptationMethod = plan.method.make(self.passes.model.files.prepared(plan.name))
        if plan.method.on is not None:
            under = self.passes[plan.method.on]
            below = under.adapted if sets_of == self.passes.model.sets else under.estimated(sets_of)
            if not isinstance(below, ChangedFeatures):
                raise ExperimentError(
                    f"the pass {plan.method.on!r} of the model does not change features; export the model again"
                )
            method = StackedMethod(below, method)
        return loop.adapt(method, self.source.words, self.targets, sets_of(loop.features), options.seed)

    @property
    def source(self) -> Pass | None:
        """The earlier pass that targets are made from; None for a first pass."""
        source = None if self.plan.targets is None else self.plan.targets.source
        return None if source is None else self.passes[source]

    @property
    def targets(self) -> TargetsConfig:
        """Options of the targets, which are references where the words are known."""
        targets = self.plan.targets or TargetsConfig()
        known = self.passes.transcripts is not None
        return TargetsConfig(kind="reference", silence_weight=targets.silence_weight) if known else targets

    def scores(self) -> Iterator[Scores]:
        """The scores of all utterances."""
        if self.plan.method is None:
            return self.loop.first_pass()
        return self.loop.second_pass(self.adapted, self.passes.model.sets(self.loop.features))
