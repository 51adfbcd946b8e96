"""Sentences of text files, for language models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words

# Number of lines at the beginning of a text that show that it is one.
_LINES_CHECKED = 1000


def read_sentences(path: Path, own_tags: Collection[str] = ()) -> Iterator[tuple[str, ...]]:
    r"""Read the words of each line of a text file; lines without words are left out.

    Args:
        path: UTF-8 text, one sentence on each line, plain or compressed.
        own_tags: Tags that the user's lexicon lists, as in ``spoken_words``.

    Raises:
        CorpusError: The file is missing, damaged or not UTF-8, is a language model, or has an unknown tag.
    """
    for number, line in read_lines(path):
        if line == "\\data\\":
            raise CorpusError(
                f"{path}:{number}: a language model in the ARPA format, expected sentences; name the text that it was "
                "estimated from"
            )
        if words := spoken_words(line, f"{path}:{number}", own_tags):
            yield words


def check_sentences(path: Path, own_tags: Collection[str] = ()) -> None:
    """Refuse a file that does not begin with sentences, without reading all of it.

    Raises:
        CorpusError: As from ``read_sentences``.
    """
    for _ in islice(read_sentences(path, own_tags), _LINES_CHECKED):
        pass


def word_counts(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """The number of occurrences of each word.

    Args:
        sentences: Sequences of words, as ``read_sentences`` gives them.
    """
    counts: Counter[str] = Counter()
    for words in sentences:
        counts.update(words)
    return counts
