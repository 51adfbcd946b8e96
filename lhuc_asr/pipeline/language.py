"""The stage that writes an experiment's lexicon and language models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, spoken_id
from lhuc_asr.corpus.an4 import an4_lexicon
from lhuc_asr.corpus.librispeech import read_librispeech
from lhuc_asr.lang.arpa import write_arpa
from lhuc_asr.lang.language_model import ARPA_FILE, estimate_language_model, select_vocabulary
from lhuc_asr.lang.lexicon import Lexicon, read_lexicon
from lhuc_asr.lang.lexicon_folder import write_lexicon_folder
from lhuc_asr.lang.lexicon_source import make_lexicon
from lhuc_asr.pipeline.config import An4Source, ExperimentConfig, LibriSpeechSource

logger = logging.getLogger(__name__)

# The subfolder with the language model and graph that scales are tuned with.
TUNING_FOLDER = "tuning"


def write_experiment_lexicon(
    config: ExperimentConfig, train: Sequence[Utterance], heldout: Sequence[Utterance], folder: Path
) -> None:
    """Write the lexicon: the words that can be recognised, with their pronunciations.

    The words are those of the training transcripts, those of the corpus' own dictionary, and the most frequent ones of
    the language model's text. No word is taken from the test transcripts.

    Args:
        config: The recipe.
        train: Utterances of the training speakers.
        heldout: Utterances of the training speakers kept back for tuning.
        folder: The experiment's ``lang/``.
    """
    spoken = {word for _, words in _training_text(config, [*train, *heldout]) for word in words}
    lexicon = _lexicon(config, spoken, _vocabulary(config, spoken))
    write_lexicon_folder(folder, lexicon)
    logger.info("lexicon: %d words, %d phones", len(lexicon.words), len(lexicon.phones.names))


def write_language_models(
    config: ExperimentConfig, train: Sequence[Utterance], heldout: Sequence[Utterance], lexicon: Lexicon, folder: Path
) -> None:
    """Write the language models over the lexicon's words.

    Scales are tuned with a language model that has not seen the held-out speakers' transcripts. With one that has, the
    tuned scales would rely too much on the language model.

    Args:
        config: The recipe.
        train: Utterances of the training speakers.
        heldout: Utterances of the training speakers kept back for tuning.
        lexicon: The lexicon.
        folder: The experiment's ``lang/``.
    """
    transcripts = _training_text(config, [*train, *heldout])
    kept_back = {utterance.speaker for utterance in heldout}
    texts = {
        folder: [words for _, words in transcripts],
        folder / TUNING_FOLDER: [words for speaker, words in transcripts if speaker not in kept_back],
    }
    for place, text in texts.items():
        if config.lm.text and place != folder:
            continue  # a text of its own does not contain the held-out speakers' transcripts
        model = estimate_language_model(config.lm.sentences() if config.lm.text else text, lexicon.words, config.lm)
        write_arpa(place / ARPA_FILE, model)


def tuning_folder(config: ExperimentConfig, folder: Path) -> Path:
    """The folder of the language model and graph that scales are tuned with."""
    return folder if config.lm.text else folder / TUNING_FOLDER


def other_orders(config: ExperimentConfig) -> list[int]:
    """Orders of language models that the targets of some pass need, other than the recipe's own order."""
    needed = {plan.targets.lm_order for plan in config.passes.values()}
    return sorted(order for order in needed if order not in (None, config.lm.order))


def order_folder(config: ExperimentConfig, folder: Path, order: int | None) -> Path:
    """The folder of the language models and graphs of an order: ``lang/`` itself for the recipe's own order."""
    return folder if order in (None, config.lm.order) else folder / f"order{order}"


def lexicon_sources(config: ExperimentConfig) -> list[Path]:
    """The files that the lexicon is made from."""
    return [*config.lm.text, *([config.lexicon.path] if config.lexicon.path else [])]


def _training_text(config: ExperimentConfig, training: Sequence[Utterance]) -> list[tuple[str, tuple[str, ...]]]:
    """Speaker and words of the training transcripts; of LibriSpeech all of them, however few hours are heard.

    What was put into several environments was said once: repeated, no n-gram would be seen once, and Kneser-Ney's
    discounts would be wrong.
    """
    if isinstance(config.corpus, LibriSpeechSource) and config.hours is not None:
        training = read_librispeech(config.corpus.dir, config.corpus.train).utterances
    said = {spoken_id(utterance.id, utterance.environment): utterance for utterance in training}
    return [(utterance.speaker, utterance.words) for utterance in said.values()]


def _vocabulary(config: ExperimentConfig, spoken: set[str]) -> list[str]:
    if isinstance(config.corpus, An4Source):
        spoken = spoken | set(read_lexicon(an4_lexicon(config.corpus.dir)).words)
    return select_vocabulary(spoken, config.lm)


def _lexicon(config: ExperimentConfig, spoken: set[str], vocabulary: Sequence[str]) -> Lexicon:
    path = config.lexicon.path
    if path is None and isinstance(config.corpus, An4Source):
        path = an4_lexicon(config.corpus.dir)
    return make_lexicon(vocabulary, spoken, config.lexicon, dictionary=path)
