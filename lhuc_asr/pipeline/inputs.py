"""The files that a recipe names: their check before hours of work, and the tags in its lexicon."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lhuc_asr.base.errors import ConfigError, CorpusError, LanguageModelError
from lhuc_asr.base.fingerprint import FileState, file_state
from lhuc_asr.base.local_path import check_inputs
from lhuc_asr.corpus.noise import check_clips
from lhuc_asr.lang.arpa import arpa_order
from lhuc_asr.lang.kneser_ney import HIGHEST_ORDER
from lhuc_asr.lang.language_model import LanguageModelConfig
from lhuc_asr.lang.lexicon import read_lexicon
from lhuc_asr.lang.sentences import check_sentences
from lhuc_asr.lang.tags import tags_of
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.output_config import OutputConfig, check_rescored


def check_files(config: ExperimentConfig) -> None:
    """Refuse missing files and folders; no recording is opened.

    Raises:
        ConfigError: A path of the recipe does not exist.
        CorpusError: The corpus lacks the pronunciations that come with it, or the noise a class or a clip; or a text
            does not begin with sentences.
        LexiconError: The lexicon is damaged.
        LanguageModelError: A language model does not begin like an ARPA file.
    """
    check_inputs(config)
    config.corpus.lexicon_path()
    if config.noise is not None:
        check_clips(config.noise)
    for path in config.lm.text:
        check_sentences(path, own_tags(config) or ())
    others = (output.lm.arpa for output in config.outputs.values() if output.lm is not None)
    for arpa in (config.lm.arpa, *others):
        if arpa is not None:
            arpa_order(arpa)


def with_language(config: ExperimentConfig) -> ExperimentConfig:
    """The recipe with the lexicon and language model that its corpus comes with, where it names none.

    The orders of language models are then those of their files.

    Raises:
        LanguageModelError: A file is missing or not a language model, its n-grams are too long, or shorter than an
            output asks for.
        ConfigError: The language model of an output is the recipe's own.
    """
    beside, lexicon, lm = config.corpus.language_files(), config.lexicon, config.lm
    if lexicon.path is None:
        lexicon = lexicon.model_copy(update={"path": beside.lexicon})
    if lm.from_transcripts:
        lm = lm.model_copy(update={"arpa": beside.arpa})
    if lm.arpa is not None:
        lm = lm.model_copy(update={"order": _checked_order(lm.arpa)})
    outputs = {name: _with_order(name, output, lm) for name, output in config.outputs.items()}
    try:
        check_rescored(outputs, lm)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config.model_copy(update={"lexicon": lexicon, "lm": lm, "outputs": outputs})


def _with_order(name: str, output: OutputConfig, lm: LanguageModelConfig) -> OutputConfig:
    """An output with the order of its own language model's file; one that names an order is checked."""
    asked = output.lm
    if asked is None:
        return output
    arpa = asked.of(lm).arpa
    if arpa is None:
        return output
    if asked.order is None:
        # Without a file of its own, it is cut to as many words as the recipe's.
        order = None if asked.arpa is None else _checked_order(arpa)
        return output.model_copy(update={"lm": asked.model_copy(update={"order": order})})
    if asked.order > (longest := arpa_order(arpa)):
        raise LanguageModelError(
            f"outputs: {name!r} asks for order {asked.order}, but {arpa} is a model of order {longest}; lower it, or "
            "give lm.arpa of the output a larger model"
        )
    return output


def language_lines(config: ExperimentConfig) -> list[str]:
    """Two lines for the log: which lexicon and which language model a recipe takes."""
    own = config.lexicon.path or config.corpus.lexicon_path()
    texts = "the training transcripts" if config.lm.from_transcripts else ", ".join(map(str, config.lm.files))
    return [
        f"pronunciations: {own or f'espeak-ng, {config.lexicon.language}'}",
        f"language model: of order {config.lm.order}, from {texts}",
    ]


def _checked_order(path: Path) -> int:
    order = arpa_order(path)
    if order > HIGHEST_ORDER:
        raise LanguageModelError(
            f"{path}: a model of order {order}, expected at most {HIGHEST_ORDER}, as longer ones do not fit "
            f"into memory; cut it: ngram -order {HIGHEST_ORDER} -lm IN -write-lm OUT (SRILM), or lmplz -o "
            f"{HIGHEST_ORDER} (KenLM)"
        )
    return order


def own_tags(config: ExperimentConfig) -> tuple[str, ...] | None:
    """Tags that the recipe's lexicon lists, sorted; they stay words with the lexicon's phones.

    Returns:
        None where there are none, so that the keys of stages do not name them.

    Raises:
        LexiconError: The lexicon is damaged.
    """
    try:
        path = config.lexicon.path or config.corpus.lexicon_path()
    except CorpusError:  # the corpus is gone from here; a stage that reads it says so
        return None
    return _tags_in(path, file_state(path)) if path is not None and path.exists() else None


@lru_cache(maxsize=4)  # the options of several stages need them, and a lexicon may have 200 000 words
def _tags_in(path: Path, state: FileState) -> tuple[str, ...] | None:
    return tuple(sorted(tags_of(read_lexicon(path).words))) or None
