"""A person's parameters that go on with each piece of speech that was decoded: adaptation while one listens.

Each piece is learned from once, on the words that the parameters before it have found (``adapt/incremental.py``). The
work on a piece stays the same however long the person speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lhuc_asr.adapt.incremental import IncrementalMethod
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.targets import TargetsConfig, make_targets
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speech import Speech


class Learning:
    """Parameters of one person, which go on with each piece of speech.

    Args:
        model: The model.
        name: Name of the person.
        person: The person's parameters to start from; None to start unadapted.

    Attributes:
        name: Name of the person.
        seconds: Length of the pieces that were learned from.

    Raises:
        ConfigError: The parameters that the model adapts cannot go on, or cannot start from a person's.
    """

    def __init__(self, model: LoadedModel, name: str, person: Speaker | None = None) -> None:
        plan = model.description.with_speaker
        method = None if plan.method is None else plan.method.make(model.files.prepared(plan.name))
        if plan.method is None or not plan.method.goes_on or not isinstance(method, IncrementalMethod):
            kind = "nothing" if plan.method is None else plan.method.kind
            raise ConfigError(
                f"this model adapts by {kind}, whose parameters do not go on from piece to piece; export a model whose "
                "pass adapts by lhuc, or by moments without a descent"
            )
        if plan.method.on is not None:
            raise ConfigError(
                f"this model adapts by {plan.method.kind} on {plan.method.on}, whose vectors or transforms need all "
                "that is said; export a model whose pass is not on another"
            )
        self._model, self._plan, self.name = model, plan, name
        self.seconds = 0.0
        self._increments = method.begin(model.network, [name], None if person is None else person.adapted)

    @property
    def adapted(self) -> AdaptedSpeakers:
        """The parameters as they are now."""
        return self._increments.speakers

    def learn(self, speech: Speech, summary: LatticeSummary) -> None:
        """Go on with a piece of speech.

        Args:
            speech: The piece.
            summary: What was found in it.
        """
        loop = self._model.loop(self._plan, speech)
        targets = make_targets(_FirstPass(summary), self._plan.targets or TargetsConfig(), loop.silence_pdfs)
        pieces = [(stored, stored.frames) for stored in loop.features.utterances]
        heard = {self.name: loop.speaker_data(targets, pieces)}
        self.seconds += sum(piece.seconds for piece in speech.pieces)
        self._increments.go_on(heard, {self.name: self.name}, self._model.description.seed)


@dataclass(frozen=True)
class _FirstPass:
    """What was found in one piece; a ``FirstPass``."""

    summary: LatticeSummary

    def best_paths(self) -> Mapping[str, np.ndarray]:
        """The pdf of each frame on the best path."""
        best = self.summary.hypothesis
        return {best.utterance: best.pdfs}

    def lattices(self) -> Iterable[LatticeSummary]:
        """The summary itself."""
        return [self.summary]

    def references(self) -> Mapping[str, np.ndarray]:
        """Refuse: what is being said has no transcript.

        Raises:
            CorpusError: Always.
        """
        raise CorpusError("speech that comes as a stream has no transcripts; adapt to recordings with them first")
