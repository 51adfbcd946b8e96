"""The protocol of every adaptation technique.

``estimate`` looks at speakers' data and returns a state; ``applied`` is a context in which the model is that
speaker's; ``save`` and ``load`` keep the state, a file a speaker. The model's own weights never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from lhuc_asr.adapt.targets import SpeakerData
from lhuc_asr.nnet.dnn import Dnn


class AdaptedSpeakers(Protocol):
    """What a technique has learned about some speakers."""

    def applied(self, model: Dnn, speaker: str) -> AbstractContextManager[None]:
        """A context in which ``model`` is adapted to ``speaker``."""
        ...

    def save(self, folder: Path) -> None:
        """Write one file a speaker."""
        ...


class AdaptationMethod(Protocol):
    """A technique."""

    def estimate(self, model: Dnn, speakers: Mapping[str, SpeakerData], seed: int) -> AdaptedSpeakers:
        """Learn about all of these speakers together; each as if it were alone."""
        ...

    def load(self, model: Dnn, folder: Path) -> AdaptedSpeakers:
        """Read what ``AdaptedSpeakers.save`` wrote."""
        ...


@runtime_checkable
class PreparedMethod(AdaptationMethod, Protocol):
    """A technique that learns from the training speakers before it adapts to others."""

    def prepare(self, model: Dnn, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write what ``estimate`` will need, learned from the training speakers and their reference alignment."""
        ...
