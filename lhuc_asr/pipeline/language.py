"""The stages that write an experiment's lexicon, language models and decoding graphs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, spoken_id
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.fingerprint import InputFiles
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.source import TEST, CorpusSource
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.graph import DESCRIPTION_FILE, GRAPH_FILE, WORDS_FILE, build_graph
from lhuc_asr.lang.arpa import read_arpa, write_arpa
from lhuc_asr.lang.coverage import warn_of_unknown_words
from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.history_store import read_histories, write_histories
from lhuc_asr.lang.language_model import (
    ARPA_FILE,
    LanguageModelConfig,
    estimate_language_model,
    given_language_model,
    select_vocabulary,
)
from lhuc_asr.lang.lexicon import Lexicon, read_lexicon
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE, write_lexicon_folder
from lhuc_asr.lang.lexicon_source import LexiconConfig, make_lexicon
from lhuc_asr.lang.ngram import NgramModel
from lhuc_asr.lang.text_fit import LENGTH, shared_sequences, text_fit
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import RECORDINGS, transcripts_of
from lhuc_asr.pipeline.experiment import TUNING_FOLDER, AlignedExperiment, Experiment, LanguageModelName
from lhuc_asr.pipeline.inputs import own_tags

logger = logging.getLogger(__name__)

# Perplexity and unknown words of the held-out speakers and of each test set.
PERPLEXITY_FILE = "perplexity.json"
# A model that lattices are rescored with, which can be far larger than one that a graph is made of.
HISTORIES_FOLDER = "histories"
# Number, and share, of a test set's sequences of words that a text may have by chance. Of the 35 thousand each of
# dev-clean, test-clean and test-other, ten million words of books that are read in none of them had 3 to 10.
CHANCE_SEQUENCES, CHANCE_SHARE = 3, 0.001

# The files of a graph.
GRAPH_FILES = (GRAPH_FILE, WORDS_FILE, DESCRIPTION_FILE)


@dataclass(frozen=True)
class LexiconOptions:
    """Everything that the lexicon depends on, apart from files.

    Attributes:
        corpus: The recipe's corpus without test sets; it may have a lexicon, and more text than that of its recordings.
        hours: As in the recipe.
        lexicon: Source of the pronunciations.
        vocabulary: ``text``, ``arpa`` and ``vocabulary`` of the recipe's language model; its other options are the
            defaults.
        own_tags: Tags in text that the lexicon lists; None for none.
    """

    corpus: CorpusSource
    hours: float | None
    lexicon: LexiconConfig
    vocabulary: LanguageModelConfig
    own_tags: tuple[str, ...] | None

    @classmethod
    def of(cls, config: ExperimentConfig) -> LexiconOptions:
        """The options of a recipe."""
        taken = {name: getattr(config.lm, name) for name in ("text", "arpa", "vocabulary")}
        vocabulary = LanguageModelConfig().model_copy(update=taken)
        return cls(config.corpus.without_tests(), config.hours, config.lexicon, vocabulary, own_tags(config))

    @property
    def files(self) -> InputFiles:
        """The files that ``vocabulary`` and ``lexicon`` name, and those of the corpus that no manifest stands for."""
        path = self.lexicon.path
        paths = (*self.vocabulary.files, *([path] if path else []), *self.corpus.text_files(self.hours))
        return InputFiles(paths, by_name=RECORDINGS)


@dataclass(frozen=True)
class LanguageModelOptions:
    """Everything that a language model depends on apart from the lexicon.

    Attributes:
        corpus: The recipe's corpus without test sets.
        hours: As in the recipe.
        lm: The n-gram model.
        own_tags: Tags in text that the lexicon lists; None for none.
    """

    corpus: CorpusSource
    hours: float | None
    lm: LanguageModelConfig
    own_tags: tuple[str, ...] | None

    @classmethod
    def of(cls, config: ExperimentConfig, order: int | None) -> LanguageModelOptions:
        """The options of a recipe, with n-grams of another order; None for the recipe's own."""
        lm = config.lm if order is None else config.lm.model_copy(update={"order": order})
        return cls(config.corpus.without_tests(), config.hours, lm, own_tags(config))


def lexicon_stage(stages: Stages, experiment: Experiment, options: LexiconOptions) -> None:
    """Add the stage that writes the lexicon."""
    stages.run(
        "lexicon",
        partial(_write_lexicon, experiment),
        options=options,
        after=[transcripts_of(experiment, (TRAIN, HELDOUT))],
        inputs=options.files,
        outputs=[experiment.folder.lang / name for name in (LEXICON_FILE, PHONES_FILE)],
    )


def language_model_stage(
    stages: Stages,
    experiment: Experiment,
    options: LanguageModelOptions,
    tests: Sequence[str],
    name: LanguageModelName = None,
    inputs: InputFiles | None = None,
) -> None:
    """Add the stages that write a language model, for tests and for tuning if that differs, and measure its perplexity.

    Args:
        stages: The stages; that of the lexicon comes before, which reads the files of the recipe's language model too.
        experiment: The experiment.
        options: Options of the language model.
        tests: Names of the test sets.
        name: Its name; None for the recipe's own.
        inputs: Files that it is made of and that are not those of the recipe's own; None where there are none.
    """
    stages.run(
        language_model_stage_name(name),
        partial(_write_language_models, experiment, name),
        options=options,
        after=["lexicon"],
        inputs=inputs,
        outputs=[folder / _model_file(name) for folder in _lang_folders(experiment, name, options.lm.from_transcripts)],
    )
    measured = (HELDOUT, *tests)
    stages.run(
        _named("perplexity", name),
        partial(_measure_perplexity, experiment, name, measured),
        options=options,
        after=[language_model_stage_name(name), transcripts_of(experiment, measured)],
        outputs=[experiment.lang(name) / PERPLEXITY_FILE],
    )


def graph_stage(
    stages: Stages,
    experiment: AlignedExperiment,
    transition_scale: float,
    aligner: str,
    order: int | None = None,
) -> None:
    """Add the stage that builds the decoding graphs of an aligner's topology and one order."""
    splits = (HELDOUT, TEST) if experiment.separate_tuning_lm else (TEST,)  # all test sets have one
    folders = {experiment.graph(split, order): experiment.language_model(split, order) for split in splits}
    stages.run(
        graph_stage_name(experiment.graphs, order),
        partial(_build_graphs, experiment, folders),
        options=transition_scale,
        after=[language_model_stage_name(order), aligner],
        outputs=[folder / name for folder in folders for name in GRAPH_FILES],
    )


def graph_stage_name(rung: str | None, order: int | None = None) -> str:
    """Name of the stage that builds the graphs of a rung's topology, None for the last aligner's, and one order."""
    return _named("graph" if rung is None else f"graph of {rung}", order)


def language_model_stage_name(name: LanguageModelName = None) -> str:
    """Name of the stage that writes a language model."""
    return _named("language model", name)


def _named(stage: str, name: LanguageModelName) -> str:
    if name is None:
        return stage
    return f"{stage} {name}" if isinstance(name, str) else f"{stage} of order {name}"


def _model_file(name: LanguageModelName) -> str:
    """Name of the file or folder of a language model: of one that lattices are rescored with, its histories."""
    return HISTORIES_FOLDER if isinstance(name, str) else ARPA_FILE


def _lang_folders(experiment: Experiment, name: LanguageModelName, separate_tuning_lm: bool) -> list[Path]:
    """The folders of a language model: one for tests, and one for tuning if it differs."""
    folder = experiment.lang(name)
    return [folder, folder / TUNING_FOLDER] if separate_tuning_lm else [folder]


def lexicon_of(heard: Sequence[Utterance], options: LexiconOptions) -> Lexicon:
    """The lexicon of a recipe: the words that can be recognised, with their pronunciations.

    They are those of the training transcripts, of the corpus's own lexicon, and the most frequent ones of the language
    model's text, or the likeliest of a given language model; nothing is taken from test transcripts.

    Args:
        heard: Utterances of the training speakers.
        options: The options.

    Raises:
        LexiconError: The lexicon is damaged, or a word cannot be pronounced.
        MissingExtraError: espeak-ng is needed and not installed.
    """
    transcripts = _training_text(heard, options.corpus, options.hours, options.own_tags)
    spoken = {word for _, words in transcripts for word in words}
    own = options.corpus.lexicon_path()
    known = spoken if own is None else spoken | set(read_lexicon(own).words)
    vocabulary = select_vocabulary(known, options.vocabulary, options.own_tags or ())
    return make_lexicon(vocabulary, spoken, options.lexicon, dictionary=own)


def _write_lexicon(experiment: Experiment, options: LexiconOptions) -> None:
    """Write the lexicon, and log how many words of each split it has."""
    lexicon = lexicon_of(_heard(experiment), options)
    write_lexicon_folder(experiment.folder.lang, lexicon)
    logger.info("lexicon: %d words, %d phones", len(lexicon.words), len(lexicon.phones.names))
    for split in (TRAIN, HELDOUT):
        warn_of_unknown_words(split, (u.words for u in experiment.utterances(split)), lexicon)


def _write_language_models(experiment: Experiment, name: LanguageModelName, options: LanguageModelOptions) -> None:
    """Write the language models over the lexicon's words.

    Scales are tuned with a language model that has not seen the held-out speakers' transcripts: with one that has,
    tuning would rely too much on the language model. If the recipe names a text, the language model is estimated on
    that alone and has not seen them anyway; nor has a model that it names.
    """
    folder = experiment.lang(name)
    models = _language_models(experiment, options)
    for place, model in models.items():
        if isinstance(name, str):
            write_histories(folder / place / HISTORIES_FOLDER, HistoryModel.of(model))
        else:
            write_arpa(folder / place / ARPA_FILE, model)


def _measure_perplexity(
    experiment: Experiment, name: LanguageModelName, splits: Sequence[str], options: LanguageModelOptions
) -> None:
    """Write how well a language model fits splits, and warn of unknown words, and of text that it has seen.

    The held-out speakers' model is that for tuning.
    """
    folder = experiment.lang(name)
    *_, tuning = _lang_folders(experiment, name, options.lm.from_transcripts)
    places = {split: tuning if split == HELDOUT else folder for split in splits}
    models = {place: _read_model(place / _model_file(name)) for place in set(places.values())}
    fits = {}
    for split, place in places.items():
        fits[split] = text_fit(models[place], (utterance.words for utterance in experiment.utterances(split)))
        logger.info("%s: %s", split, fits[split])
    write_json(folder / PERPLEXITY_FILE, {split: asdict(fit) for split, fit in fits.items()})
    if name is not None:
        return
    tests = [split for split in splits if split != HELDOUT]
    for split in tests:
        warn_of_unknown_words(split, (u.words for u in experiment.utterances(split)), experiment.lexicon)
    if options.lm.text:
        _warn_of_test_text(experiment, tests, options)


def _read_model(path: Path) -> NgramModel | HistoryModel:
    return read_histories(path) if path.is_dir() else read_arpa(path)


def _language_models(experiment: Experiment, options: LanguageModelOptions) -> dict[str, NgramModel]:
    """The language model for tests, under "", and the one for tuning if it differs, by their folders."""
    lm, vocabulary = options.lm, experiment.lexicon.words
    if lm.arpa is not None:
        return {"": given_language_model(vocabulary, lm)}
    if lm.text:
        return {"": estimate_language_model(lm.sentences(options.own_tags or ()), vocabulary, lm)}
    heldout = {utterance.speaker for utterance in experiment.utterances(HELDOUT)}
    transcripts = _training_text(_heard(experiment), options.corpus, options.hours, options.own_tags)
    texts = {
        place: [words for speaker, words in transcripts if speaker not in left_out]
        for place, left_out in ((TUNING_FOLDER, heldout), ("", frozenset[str]()))
    }
    return {place: estimate_language_model(text, vocabulary, lm) for place, text in texts.items()}


def _warn_of_test_text(experiment: Experiment, tests: Iterable[str], options: LanguageModelOptions) -> None:
    """Warn if the text of the language model has that of a test set, which makes its word error rates too low."""
    for split in tests:
        transcripts = (utterance.words for utterance in experiment.utterances(split))
        shared, all_of_them = shared_sequences(options.lm.sentences(options.own_tags or ()), transcripts)
        if shared > max(CHANCE_SEQUENCES, CHANCE_SHARE * all_of_them):
            logger.warning(
                "lm.text has %d of the %d sequences of %d words of the test set %s: its word error rates will be too "
                "low; take the works that are read there out of the text",
                *(shared, all_of_them, LENGTH, split),
            )


def _build_graphs(experiment: AlignedExperiment, folders: Mapping[Path, Path], transition_scale: float) -> None:
    """Build the graphs in folders, each with the language model of another."""
    for folder, model in folders.items():
        build_graph(experiment.lexicon, model / ARPA_FILE, experiment.topology, folder, transition_scale)


def _heard(experiment: Experiment) -> list[Utterance]:
    """Utterances of the training speakers."""
    return [*experiment.utterances(TRAIN), *experiment.utterances(HELDOUT)]


def _training_text(
    heard: Sequence[Utterance], corpus: CorpusSource, hours: float | None, own_tags: tuple[str, ...] | None
) -> list[tuple[str, tuple[str, ...]]]:
    """Speaker and words of each training transcript; the corpus may have transcripts of recordings that are not used.

    An utterance with copies in several environments counts once. If it were repeated, no n-gram would occur only once,
    and the Kneser-Ney discounts would be wrong.
    """
    training = corpus.text_utterances(heard, hours=hours, own_tags=own_tags or ())
    said = {spoken_id(utterance.id, utterance.environment): utterance for utterance in training}
    return [(utterance.speaker, utterance.words) for utterance in said.values()]
