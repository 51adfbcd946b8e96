"""Incremental adaptation: parameters that go on with each new recording, so that none is gone over a second time.

The cost of a recording stays the same however much was heard before it, so that a stream can be adapted to while it
comes. What a speaker's parameters have become is kept under a name; the next estimate starts from a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.nnet.acoustic_model import AcousticModel


class Increments(Protocol):
    """Parameters under names, each of which may go on from another."""

    @property
    def speakers(self) -> AdaptedSpeakers:
        """The parameters of all names as they are now; unadapted where nothing was heard."""
        ...

    def go_on(self, heard: Mapping[str, SpeakerData], after: Mapping[str, str], seed: int) -> None:
        """Estimate the parameters of some names, each from where those of another are.

        Args:
            heard: What is new, by name.
            after: For each of these names, the name to start from, which may be the same.
            seed: Seeds everything random.

        Raises:
            SpeakerError: A name is unknown.
            AlignmentError: Targets or features do not fit the network.
        """
        ...


@runtime_checkable
class IncrementalMethod(AdaptationMethod, Protocol):
    """A method whose parameters can go on with each recording."""

    def begin(self, model: AcousticModel, names: Iterable[str], start: AdaptedSpeakers | None = None) -> Increments:
        """Parameters under some names, for now unadapted.

        Args:
            model: The network; it does not change.
            names: The names.
            start: Speakers whose parameters those of the same name start from; None for none.

        Raises:
            ConfigError: The method's parameters cannot start from a speaker's.
        """
        ...


def estimate_in_order(
    method: IncrementalMethod,
    model: AcousticModel,
    heard: Mapping[str, SpeakerData],
    after: Mapping[str, str],
    seed: int,
) -> AdaptedSpeakers:
    """Parameters of names that go on from each other, as many at a time as do not depend on each other.

    Args:
        method: The method.
        model: The network; it comes back unchanged.
        heard: What is new for each name.
        after: The name that a name starts from. Names that start unadapted are left out, and learn nothing.
        seed: Seed of the method.

    Raises:
        SpeakerError: A name starts from one that is unknown, or from itself over others.
        AlignmentError: Targets or features do not fit the network.
    """
    increments = method.begin(model, heard)
    ready = heard.keys() - after.keys()
    left = dict(after)
    while next_ones := [name for name, before in left.items() if before in ready]:
        increments.go_on({name: heard[name] for name in next_ones}, {name: left.pop(name) for name in next_ones}, seed)
        ready = set(next_ones)
    if left:
        name, before = next(iter(left.items()))
        raise SpeakerError(f"{name!r} goes on from {before!r}, which no chain of names leads to")
    return increments.speakers
