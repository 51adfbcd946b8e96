"""The language model of a recognizer: its options, its vocabulary, and where it comes from: sentences, or a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.lang.given_model import likeliest_words, read_given_model, restricted
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
        order: Length of the longest n-grams; a run sets it to that of the file ``arpa``.
        text: Files of sentences to estimate the model from; empty for the transcripts of the training recordings.
        arpa: File of a model in the ARPA format, to take instead; None to estimate one.
        vocabulary: Maximum number of words. The words of the training transcripts come first, then the most
            frequent words of the text, or the likeliest of the file.
        prune: Relative entropy below which an n-gram is dropped (Stolcke 1998); 0 keeps all n-grams.
    """

    order: int = Field(2, ge=1, le=HIGHEST_ORDER)
    text: tuple[InputFile, ...] = ()
    arpa: InputFile | None = None
    vocabulary: int = Field(20_000, ge=1, le=100_000_000)
    prune: float = Field(0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _text_or_model(self) -> Self:
        if self.text and self.arpa is not None:
            raise ValueError("arpa is a finished model, and none is estimated from text; leave one of the two out")
        return self

    @property
    def from_transcripts(self) -> bool:
        """Whether the model is estimated from the transcripts of the training recordings."""
        return not self.text and self.arpa is None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the model is made of."""
        return self.text if self.arpa is None else (self.arpa,)

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
    """The words that can be recognised: all spoken words, then the most frequent of the text or the given model.

    Args:
        spoken: Words that belong to the vocabulary in any case, as those of the training transcripts do.
        config: The options.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        LanguageModelError: The vocabulary would be empty, or the given model is damaged.
        CorpusError: A file of text is missing, damaged or not UTF-8, is a language model, or has an unknown tag.
    """
    if config.arpa is not None:
        likeliest = [word for word in likeliest_words(config.arpa) if word not in spoken]
        return sorted(spoken) + likeliest[: max(0, config.vocabulary - len(spoken))]
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


def given_language_model(words: Collection[str], config: LanguageModelConfig) -> NgramModel:
    """The model of the file ``config.arpa`` over the words of a lexicon, pruned.

    Probabilities stay those of the file: what it gives to words that the lexicon lacks is not shared out.

    Args:
        words: The lexicon's words.
        config: The options, with ``arpa``.

    Raises:
        ValueError: The options name no file.
        LanguageModelError: The file is not a language model, or none of its words is in the lexicon.
    """
    if config.arpa is None:
        raise ValueError("given_language_model: the options have no file in arpa")
    model = restricted(read_given_model(config.arpa, config.order), words, config.arpa)
    return prune(model, config.prune) if config.prune else model
