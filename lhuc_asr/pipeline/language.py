"""Lexicon, language model and decoding graph of an experiment."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, spoken_id
from lhuc_asr.base.atomic import read_json, write_json
from lhuc_asr.base.errors import ConfigError, LanguageModelError, LexiconError
from lhuc_asr.lang.arpa import write_arpa
from lhuc_asr.lang.kneser_ney import estimate
from lhuc_asr.lang.lexicon import Lexicon, cover, read_lexicon, write_lexicon
from lhuc_asr.lang.phones import SILENCE, PhoneSet
from lhuc_asr.lang.pronounce import pronounce, pronounce_native
from lhuc_asr.lang.pruning import prune
from lhuc_asr.lang.text import UNKNOWN, read_sentences, word_counts
from lhuc_asr.pipeline.config import ExperimentConfig, LexiconConfig

logger = logging.getLogger(__name__)

LEXICON_FILE, PHONES_FILE, ARPA_FILE = "lexicon.txt", "phones.json", "lm.arpa"
# Where the language model lies that has not seen the held-out speakers' transcripts, and its graph.
TUNING_FOLDER = "tuning"


def write_experiment_lexicon(
    config: ExperimentConfig, train: Sequence[Utterance], heldout: Sequence[Utterance], folder: Path
) -> None:
    """Write the lexicon: the words that can be recognised.

    They are those of the training transcripts, of AN4's own dictionary, and the most frequent ones of the language
    model's text; nothing is taken from test transcripts.

    Args:
        config: The recipe.
        train: Utterances of the training speakers.
        heldout: Utterances of those kept back for tuning.
        folder: ``lang/``.
    """
    spoken = {word for _, words in _training_text(config, [*train, *heldout]) for word in words}
    lexicon = _lexicon(config, spoken, _vocabulary(config, spoken))
    write_lexicon(folder / LEXICON_FILE, lexicon)
    write_json(
        folder / PHONES_FILE,
        {
            "silence": lexicon.phones.silence,
            "speech": lexicon.phones.speech,
            "silence_probability": lexicon.silence_probability,
        },
    )
    logger.info("lexicon: %d words, %d phones", len(lexicon.words), len(lexicon.phones.names))


def write_language_models(
    config: ExperimentConfig, train: Sequence[Utterance], heldout: Sequence[Utterance], lexicon: Lexicon, folder: Path
) -> None:
    """Write the language models over the lexicon's words.

    Scales are tuned with a language model that has not seen the held-out speakers' transcripts: with one that has,
    tuning would lean on it.

    Args:
        config: The recipe.
        train: Utterances of the training speakers.
        heldout: Utterances of those kept back for tuning.
        lexicon: The words.
        folder: ``lang/``.
    """
    transcripts = _training_text(config, [*train, *heldout])
    kept_back = {utterance.speaker for utterance in heldout}
    texts = {
        folder: [words for _, words in transcripts],
        folder / TUNING_FOLDER: [words for speaker, words in transcripts if speaker not in kept_back],
    }
    for place, text in texts.items():
        if config.lm.text and place != folder:
            continue  # text of its own has seen no held-out speaker
        model = estimate(
            _sentences(config) if config.lm.text else text,
            config.lm.order,
            lexicon.words,
            keep_unknown=UNKNOWN in lexicon.words,
        )
        write_arpa(place / ARPA_FILE, prune(model, config.lm.prune) if config.lm.prune else model)


def tuning_folder(config: ExperimentConfig, folder: Path) -> Path:
    """Where the language model and graph lie that scales are tuned with."""
    return folder if config.lm.text else folder / TUNING_FOLDER


def other_orders(config: ExperimentConfig) -> list[int]:
    """Orders of language models that some pass' targets are found with, and that are not the recipe's."""
    asked = {plan.targets.lm_order for plan in config.passes.values()}
    return sorted(order for order in asked if order not in (None, config.lm.order))


def order_folder(config: ExperimentConfig, folder: Path, order: int | None) -> Path:
    """Where the language models and graphs of an order lie, in ``lang/``; the recipe's own in it itself."""
    return folder if order in (None, config.lm.order) else folder / f"order{order}"


def check_language_files(config: ExperimentConfig) -> None:
    """Refuse missing files of words or text, before hours of recordings are read.

    Raises:
        ConfigError: ``lexicon.path`` or a file of ``lm.text`` does not exist.
    """
    named = [("lm.text", path) for path in config.lm.text] + [("lexicon.path", config.lexicon.path)]
    for key, path in named:
        if path is not None and not path.exists():
            raise ConfigError(f"{key}: {path}: no such file; correct the path in the recipe")


def lexicon_sources(config: ExperimentConfig) -> list[Path]:
    """The files that the lexicon is made from."""
    return [*config.lm.text, *([config.lexicon.path] if config.lexicon.path else [])]


def read_experiment_lexicon(folder: Path) -> Lexicon:
    """Read back what ``write_experiment_lexicon`` wrote, with its phone set and silence probability.

    Raises:
        LexiconError: The files are damaged, or do not fit each other.
    """
    tree = read_json(folder / PHONES_FILE)
    try:
        pronunciations = read_lexicon(folder / LEXICON_FILE, strip_stress=False).pronunciations
        phones = PhoneSet(tuple(tree["silence"]), tuple(tree["speech"]))
        return Lexicon(pronunciations, phones, tree["silence_probability"])
    except (LexiconError, KeyError, TypeError) as error:
        raise LexiconError(
            f"{folder}: {LEXICON_FILE} and {PHONES_FILE} are damaged or not of one run ({error}); "
            "delete both and run again"
        ) from error


def aligned_words(words: Sequence[str], lexicon: Lexicon) -> tuple[str, ...]:
    """A transcript in the lexicon's words: one that it lacks is ``<unk>``, where it has that."""
    if UNKNOWN not in lexicon.pronunciations:
        return tuple(words)
    return tuple(word if word in lexicon.pronunciations else UNKNOWN for word in words)


def _training_text(config: ExperimentConfig, training: Sequence[Utterance]) -> list[tuple[str, tuple[str, ...]]]:
    """Speaker and words of each training transcript; those of the corpus where it has more than the recordings heard.

    An utterance with copies in several environments counts once: repeated, no n-gram would be seen once, and the
    discounts of Kneser-Ney would be wrong.
    """
    training = config.corpus.text_utterances(training, hours=config.hours)
    said = {spoken_id(utterance.id, utterance.environment): utterance for utterance in training}
    return [(utterance.speaker, utterance.words) for utterance in said.values()]


def _vocabulary(config: ExperimentConfig, spoken: set[str]) -> list[str]:
    if (own := config.corpus.lexicon_path()) is not None:
        spoken = spoken | set(read_lexicon(own).words)
    if not config.lm.text:
        return sorted(spoken)
    counts = word_counts(_sentences(config))
    if not counts and not spoken:
        raise LanguageModelError(f"{', '.join(map(str, config.lm.text))}: no words")
    # Ties in frequency are broken by the alphabet, so that the vocabulary is the same on every run.
    ranked = sorted(counts.keys() - spoken, key=lambda word: (-counts[word], word))
    return sorted(spoken) + ranked[: max(0, config.lm.vocabulary - len(spoken))]


def _sentences(config: ExperimentConfig) -> Iterator[tuple[str, ...]]:
    for path in config.lm.text:
        yield from read_sentences(path)


def _lexicon(config: ExperimentConfig, spoken: set[str], vocabulary: Sequence[str]) -> Lexicon:
    options = config.lexicon
    path = options.path or config.corpus.lexicon_path()
    if path is None:
        lexicon = _pronounced(vocabulary, options)
    else:
        # Words of the language model's text that have no pronunciation are left out; those of the training
        # transcripts are dealt with, since the recordings cannot be aligned without them.
        known = read_lexicon(path)
        coverage = cover(
            known, spoken, options.unknown_words, partial(_pronounce_like, lexicon=known, language=options.language)
        )
        wanted = [word for word in vocabulary if word in coverage.lexicon.pronunciations]
        extra = [UNKNOWN] if UNKNOWN in coverage.lexicon.pronunciations else []
        logger.info("lexicon: %d of %d words have a pronunciation", len(wanted), len(vocabulary))
        lexicon = _trimmed(coverage.lexicon.restricted_to([*wanted, *extra]))
    lexicon = replace(lexicon, silence_probability=options.silence_probability)
    return lexicon.with_word_positions() if options.word_positions else lexicon


def _pronounced(words: Sequence[str], options: LexiconConfig) -> Lexicon:
    """Every word as espeak-ng says it: English in CMUdict's phones, other languages in their own."""
    english = options.language.partition("-")[0] == "en"
    spelt = pronounce(words, options.language) if english else pronounce_native(words, options.language)
    phones = PhoneSet.of({phone for spelling in spelt.values() for phone in spelling}, (SILENCE,))
    return Lexicon({word: (spelling,) for word, spelling in spelt.items()}, phones)


def _pronounce_like(words: list[str], lexicon: Lexicon, language: str) -> Mapping[str, tuple[str, ...]]:
    return pronounce(words, language, lexicon.phones)


def _trimmed(lexicon: Lexicon) -> Lexicon:
    """Without phones that no word uses: nothing could train them."""
    used = {phone for variants in lexicon.pronunciations.values() for phones in variants for phone in phones}
    return replace(lexicon, phones=PhoneSet.of(used, lexicon.phones.silence))
