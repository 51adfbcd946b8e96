"""What an experiment asks of a corpus, whatever its kind: a source is one class in one file.

The class is the configuration ``corpus:`` of a recipe. It names the files that the corpus is read from and its test
sets, and reads its recordings and transcripts. A new corpus is a subclass of ``CorpusSource`` and a line in
``sources.SOURCES``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.config import StrictModel
from lhuc_asr.corpus.reading import Reading

# Name of the test set of a corpus that has only one.
TEST = "test"


@dataclass(frozen=True)
class CorpusReading:
    """The training set of a corpus and its test sets, by name."""

    train: Reading
    tests: Mapping[str, Reading]

    @property
    def recordings(self) -> frozenset[Path]:
        """All recordings that the corpus names, including those that cannot be used."""
        return frozenset().union(*(part.recordings for part in (self.train, *self.tests.values())))


@dataclass(frozen=True)
class LanguageFiles:
    """Files of a corpus's language that a recipe may leave unnamed.

    Attributes:
        lexicon: Lexicon of more words than the vocabulary will have.
        arpa: Language model in the ARPA format.
    """

    lexicon: Path | None = None
    arpa: Path | None = None


class CorpusSource(StrictModel):
    """Base of every corpus: its configuration, and all that an experiment asks of it.

    Attributes:
        kind: Name of the kind of corpus, by which a recipe chooses it.
    """

    kind: str

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets."""
        return (TEST,)

    @property
    def has_own_test_speakers(self) -> bool:
        """Whether test speakers differ from training speakers on purpose, so that folds cannot pool the two."""
        return False

    @property
    def training_speakers(self) -> int | None:
        """Number of training speakers; None where it is known only after reading."""
        return None

    @property
    def chooses_hours(self) -> bool:
        """Whether ``read`` can choose a number of hours from its training speech."""
        return False

    @property
    def environments(self) -> tuple[str, ...] | None:
        """Names of the acoustic environments of its recordings; None where they are known only after reading."""
        return ()

    @abstractmethod
    def paths(self) -> list[Path]:
        """Files and folders that the corpus is read from.

        When a file among them or below them changes, the corpus is read again. Recordings elsewhere that these files
        name need not be listed.
        """

    def versions(self) -> tuple[str, ...]:
        """What changes when files change that the corpus is read from, and that ``paths`` cannot list.

        Raises:
            StoreError: The files are in a store that cannot be reached.
        """
        return ()

    def made_folders(self, experiment: Path) -> list[Path]:
        """Folders of recordings that ``read`` makes.

        Args:
            experiment: Folder of the experiment.
        """
        return []

    @abstractmethod
    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Read recordings and transcripts; the words of transcripts are those of ``tags.spoken_words``.

        Args:
            experiment: Folder of the experiment, for recordings that the source makes.
            hours: Hours of training speech to read; None reads all, as does a source without ``chooses_hours``.
            seed: Seed of that choice.
            processes: Number of processes for making recordings; the result does not depend on it.
            own_tags: Tags that the user's lexicon lists, which stay as they are.

        Raises:
            CorpusError: The corpus is missing or malformed, or a transcript has an unknown tag.
        """

    def lexicon_path(self) -> Path | None:
        """File of pronunciations that comes with the corpus, among or below ``paths``; None where there is none.

        Raises:
            CorpusError: The corpus should have one, but it is missing.
        """
        return None

    def language_files(self) -> LanguageFiles:
        """Lexicon and language model for a recipe that names none; those that are published with the corpus."""
        return LanguageFiles()

    def without_tests(self) -> Self:
        """The corpus without its test sets, as the training text depends on it: equal for all test sets."""
        return self

    def text_files(self, hours: float | None) -> list[Path]:
        """Files and folders that ``lexicon_path`` and ``text_utterances`` read, among or below ``paths``.

        Args:
            hours: As of ``text_utterances``.
        """
        return []

    def text_utterances(
        self, training: Sequence[Utterance], *, hours: float | None, own_tags: Collection[str] = ()
    ) -> Sequence[Utterance]:
        """Utterances whose transcripts are the training text of the language model.

        Args:
            training: Utterances of the training speakers.
            hours: Hours of training speech that the recipe asks for; None is all.
            own_tags: As in ``read``.
        """
        return training
