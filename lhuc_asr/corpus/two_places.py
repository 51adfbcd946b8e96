"""Corpora of two places that are read alike: a folder or a file to train on, and another to test on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Self

from pydantic import model_validator

from lhuc_asr.base.local_path import LocalPath
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.source import TEST, CorpusReading, CorpusSource


class TwoPlaces(CorpusSource):
    """Base of such corpora; a subclass says what its places are, and reads one.

    Attributes:
        train: Place to train on.
        test: Place to test on.
        names_environments: Whether a place can name the acoustic environments of its recordings.
    """

    train: LocalPath
    test: LocalPath
    names_environments: ClassVar[bool] = False

    @abstractmethod
    def read_place(self, place: Path, own_tags: Collection[str]) -> Reading:
        """Read a place.

        Args:
            place: ``train`` or ``test``.
            own_tags: Tags that the user's lexicon lists, as in ``read``.

        Raises:
            CorpusError: As in ``read``.
        """

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.train == self.test:
            raise ValueError(f"train and test are the same, {self.train}; test on other speakers")
        return self

    @property
    def environments(self) -> tuple[str, ...] | None:
        """None where the places name them, because they are known only after reading."""
        return None if self.names_environments else ()

    def without_tests(self) -> Self:
        """The corpus with its training place in both, whatever the other one is."""
        return self.model_copy(update={"test": self.train})

    def paths(self) -> list[Path]:
        """The two places."""
        return [self.train, self.test]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Read both places."""
        return CorpusReading(self.read_place(self.train, own_tags), {TEST: self.read_place(self.test, own_tags)})
