"""The language model of a recognizer: its options, its vocabulary, and its estimation from sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from pydantic import Field

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.lang.kneser_ney import HIGHEST_ORDER, estimate
from lhuc_asr.lang.ngram import NgramModel
from lhuc_asr.lang.pruning import prune
from lhuc_asr.lang.sentences import read_sentences, word_counts
from lhuc_asr.lang.tags import SOUNDS
from lhuc_asr.lang.text import UNKNOWN

ARPA_FILE = "lm.arpa"


class LanguageModelConfig(StrictModel):
    """Options of an n-gram model.

    Attributes:
        order: Length of the longest n-grams.
        text: Files of sentences to estimate the model from; empty for the transcripts of the training recordings.
        vocabulary: Maximum number of words. The words of the training transcripts come first, then the most
            frequent words of the text.
        prune: Relative entropy below which an n-gram is dropped (Stolcke 1998); 0 keeps all n-grams.
    """

    order: int = Field(2, ge=1, le=HIGHEST_ORDER)
    text: tuple[InputFile, ...] = ()
    vocabulary: int = Field(20_000, ge=1, le=100_000_000)
    prune: float = Field(0.0, ge=0.0, le=1.0)

    def sentences(self, own_tags: Collection[str] = ()) -> Iterator[tuple[str, ...]]:
        """The sentences of the files that ``text`` names.

        Args:
            own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

        Raises:
            CorpusError: A file is missing, damaged or not UTF-8, is a language model, or has an unknown tag.
        """
        for path in self.text:
            yield from read_sentences(path, own_tags)


def select_vocabulary(
    spoken: Collection[str], config: LanguageModelConfig, own_tags: Collection[str] = ()
) -> list[str]:
    """The words that can be recognised: all spoken words, then the most frequent words of the text.

    Args:
        spoken: Words that belong to the vocabulary in any case, as those of the training transcripts do.
        config: The options.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        LanguageModelError: There is no word.
        CorpusError: A file of text is missing, damaged or not UTF-8, is a language model, or has an unknown tag.
    """
    if not config.text:
        return sorted(spoken)
    counts = word_counts(config.sentences(own_tags))
    if not counts and not spoken:
        raise LanguageModelError(
            f"{', '.join(map(str, config.text))}: expected sentences, found no word; name other files in lm.text"
        )
    # Words of one frequency are in alphabetical order, so that the vocabulary is the same in every run. A sound that no
    # training recording has would get a phone without data.
    ranked = sorted(counts.keys() - set(spoken) - SOUNDS, key=lambda word: (-counts[word], word))
    return sorted(spoken) + ranked[: max(0, config.vocabulary - len(spoken))]


def estimate_language_model(
    sentences: Iterable[Sequence[str]], words: Collection[str], config: LanguageModelConfig
) -> NgramModel:
    """Estimate an n-gram model over the words of a lexicon, and prune it.

    Args:
        sentences: The text, each sentence a sequence of words.
        words: The lexicon's words; with ``<unk>`` among them, the model predicts other words as ``<unk>``.
        config: The options.

    Raises:
        LanguageModelError: The text is empty, or has no n-gram within the words.
    """
    model = estimate(sentences, config.order, words, keep_unknown=UNKNOWN in words)
    return prune(model, config.prune) if config.prune else model
