"""The stages that write an experiment's lexicon, language models and decoding graphs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, spoken_id
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.source import CorpusSource
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE, build_graph
from lhuc_asr.lang.arpa import write_arpa
from lhuc_asr.lang.language_model import ARPA_FILE, LanguageModelConfig, estimate_language_model, select_vocabulary
from lhuc_asr.lang.lexicon import read_lexicon
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE, write_lexicon_folder
from lhuc_asr.lang.lexicon_source import LexiconConfig, make_lexicon
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import HELDOUT, TRAIN, Experiment

logger = logging.getLogger(__name__)

# The files of a graph.
GRAPH_FILES = (GRAPH_FILE, WORDS_FILE, DESCRIPTION_FILE)


@dataclass(frozen=True)
class LanguageOptions:
    """Everything that the words and their models depend on, beside the corpus stage.

    Attributes:
        corpus: The corpus: it may have a lexicon and text of its own.
        hours: Hours of training speech that the recipe asks for.
        lexicon: Where pronunciations come from.
        lm: The n-gram model.
    """

    corpus: CorpusSource
    hours: float | None
    lexicon: LexiconConfig
    lm: LanguageModelConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> LanguageOptions:
        """The options of a recipe."""
        return cls(config.corpus, config.hours, config.lexicon, config.lm)

    def with_order(self, order: int | None) -> LanguageOptions:
        """The same with n-grams of another order; None for the recipe's own."""
        if order is None:
            return self
        lm = self.lm.model_copy(update={"order": order})
        return LanguageOptions(self.corpus, self.hours, self.lexicon, lm)


def check_language_files(config: ExperimentConfig) -> None:
    """Refuse missing files of words or text, before hours of recordings are read.

    Raises:
        ConfigError: ``lexicon.path`` or a file of ``lm.text`` does not exist.
    """
    named = [("lm.text", path) for path in config.lm.text] + [("lexicon.path", config.lexicon.path)]
    for key, path in named:
        if path is not None and not path.exists():
            raise ConfigError(f"{key}: {path}: no such file; correct the path in the recipe")


def language_stages(stages: Stages, experiment: Experiment, options: LanguageOptions) -> None:
    """Add the stages of the lexicon and of the language models."""
    lexicon, lang = options.lexicon, experiment.folder.lang
    sources = fingerprint([*options.lm.text, *([lexicon.path] if lexicon.path else [])])
    stages.run(
        "lexicon",
        lambda: _write_lexicon(experiment, options),
        after=["corpus"],
        # Of the language model, the vocabulary alone.
        options=[options.corpus, options.hours, lexicon, options.lm.text, options.lm.vocabulary, sources],
        outputs=[lang / name for name in (LEXICON_FILE, PHONES_FILE)],
    )
    stages.run(
        "language model",
        lambda: _write_language_models(experiment, options, None),
        after=["lexicon"],
        options=[options.corpus, options.hours, options.lm],
        outputs=[folder / ARPA_FILE for folder in _lang_folders(experiment, None)],
    )


def graph_stage(stages: Stages, experiment: Experiment, transition_scale: float, aligner: str) -> None:
    """Add the stage of the decoding graphs, with the topology that a stage left."""
    folders = _lang_folders(experiment, None)
    stages.run(
        "graph",
        lambda: _build_graphs(experiment, folders, transition_scale),
        after=["language model", aligner],
        options=[transition_scale],
        outputs=[folder / name for folder in folders for name in GRAPH_FILES],
    )


def other_graph_stage(
    stages: Stages, experiment: Experiment, options: LanguageOptions, order: int, transition_scale: float
) -> None:
    """Add the stage of language models and graphs whose order is not the recipe's."""
    folders = _lang_folders(experiment, order)

    def make() -> None:
        _write_language_models(experiment, options, order)
        _build_graphs(experiment, folders, transition_scale)

    stages.run(
        f"graph of order {order}",
        make,
        after=["graph"],
        options=[options.with_order(order).lm, transition_scale],
        outputs=[folder / name for folder in folders for name in GRAPH_FILES],
    )


def _lang_folders(experiment: Experiment, order: int | None) -> list[Path]:
    """The folders of the models of an order: the one for tests, and the one for tuning."""
    return list(dict.fromkeys((experiment.lang(order), experiment.tuning_lang(order))))


def _write_lexicon(experiment: Experiment, options: LanguageOptions) -> None:
    """Write the lexicon: the words that can be recognised.

    They are those of the training transcripts, of the corpus's own lexicon, and the most frequent ones of the language
    model's text; nothing is taken from test transcripts.
    """
    spoken = {word for _, words in _training_text(experiment, options) for word in words}
    own = options.corpus.lexicon_path()
    known = spoken if own is None else spoken | set(read_lexicon(own).words)
    vocabulary = select_vocabulary(known, options.lm)
    lexicon = make_lexicon(vocabulary, spoken, options.lexicon, dictionary=options.lexicon.path or own)
    write_lexicon_folder(experiment.folder.lang, lexicon)
    logger.info("lexicon: %d words, %d phones", len(lexicon.words), len(lexicon.phones.names))


def _write_language_models(experiment: Experiment, options: LanguageOptions, order: int | None) -> None:
    """Write the language models over the lexicon's words.

    Scales are tuned with a language model that has not seen the held-out speakers' transcripts: with one that has,
    tuning would lean on it. Text of its own has seen no held-out speaker.
    """
    lm, words = options.with_order(order).lm, experiment.lexicon.words
    kept_back = {utterance.speaker for utterance in experiment.utterances(HELDOUT)}
    transcripts = [] if lm.text else _training_text(experiment, options)
    texts = {
        experiment.tuning_lang(order): [words for speaker, words in transcripts if speaker not in kept_back],
        experiment.lang(order): [words for _, words in transcripts],
    }
    for folder, text in texts.items():
        write_arpa(folder / ARPA_FILE, estimate_language_model(lm.sentences() if lm.text else text, words, lm))


def _build_graphs(experiment: Experiment, folders: Sequence[Path], transition_scale: float) -> None:
    for folder in folders:
        build_graph(experiment.lexicon, folder / ARPA_FILE, experiment.topology, folder, transition_scale)


def _training_text(experiment: Experiment, options: LanguageOptions) -> list[tuple[str, tuple[str, ...]]]:
    """Speaker and words of each training transcript; those of the corpus where it has more than the recordings heard.

    An utterance with copies in several environments counts once: repeated, no n-gram would be seen once, and the
    discounts of Kneser-Ney would be wrong.
    """
    heard: list[Utterance] = [*experiment.utterances(TRAIN), *experiment.utterances(HELDOUT)]
    training = options.corpus.text_utterances(heard, hours=options.hours)
    said = {spoken_id(utterance.id, utterance.environment): utterance for utterance in training}
    return [(utterance.speaker, utterance.words) for utterance in said.values()]
