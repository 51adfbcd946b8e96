"""The check of a recipe before anything is made: its corpus and its lexicon, read as a run reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.corpus.splits import HELDOUT, TRAIN, choose_heldout, fold_splits, read_splits
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.tags import without_tags
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import CorpusOptions
from lhuc_asr.pipeline.experiment import fold_configs, seed_configs
from lhuc_asr.pipeline.inputs import check_files, language_lines, with_language
from lhuc_asr.pipeline.language import LexiconOptions, lexicon_of

# Unknown words that a line names, the most frequent ones.
WORDS_SHOWN = 8


@dataclass(frozen=True)
class CheckedSplit:
    """A split of a corpus against the lexicon.

    Attributes:
        name: Name of the split.
        utterances: Number of usable utterances.
        speakers: Number of speakers.
        seconds: Seconds of speech.
        words: Number of words, without tags.
        unknown: Number of occurrences of each word that cannot be recognised.
    """

    name: str
    utterances: int
    speakers: int
    seconds: float
    words: int
    unknown: Counter[str]

    @classmethod
    def of(cls, name: str, utterances: Sequence[Utterance], lexicon: Lexicon) -> CheckedSplit:
        """The figures of a split's utterances."""
        words = [word for utterance in utterances for word in without_tags(utterance.words)]
        return cls(
            name=name,
            utterances=len(utterances),
            speakers=len({utterance.speaker for utterance in utterances}),
            seconds=sum(utterance.seconds for utterance in utterances),
            words=len(words),
            unknown=Counter(word for word in words if word not in lexicon.pronunciations),
        )


@dataclass(frozen=True)
class Check:
    """What a recipe's files hold.

    Attributes:
        splits: Training and held-out speakers, and each test set.
        rates: Number of recordings of each sample rate, hertz.
        lexicon: The words that can be recognised.
        sources: Lines that name the lexicon and the language model.
    """

    splits: Sequence[CheckedSplit]
    rates: Mapping[int, int]
    lexicon: Lexicon
    sources: Sequence[str]

    def lines(self) -> list[str]:
        """The check as text."""
        width = max(len("split"), *(len(split.name) for split in self.splits))
        lines = [f"{'split':{width}}  utterances  speakers   minutes     words  out of vocabulary"]
        for split in self.splits:
            share = 100 * split.unknown.total() / max(split.words, 1)
            lines.append(
                f"{split.name:{width}}{split.utterances:12}{split.speakers:10}{split.seconds / 60:10.1f}"
                f"{split.words:10}{share:17.2f} %"
            )
        for split in self.splits:
            if split.unknown:
                some = ", ".join(f"{word} ({count})" for word, count in split.unknown.most_common(WORDS_SHOWN))
                lines.append(f"{split.name}: {len(split.unknown)} words out of vocabulary, most often {some}")
        rates = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(self.rates.items()))
        lines.append(f"sample rates of the recordings: {rates}")
        lines.append(f"lexicon: {len(self.lexicon.words)} words, {len(self.lexicon.phones.names)} phones")
        return [*lines, *self.sources]


def check_recipe(config: ExperimentConfig) -> Check:
    """Read a recipe's corpus and lexicon, every sample of its recordings included; nothing is written.

    Raises:
        ConfigError: A file that the recipe names is missing, or its corpus is made by the run.
        CorpusError, LexiconError, LanguageModelError: As a run would raise them.
    """
    config = with_language(seed_configs(config)[0])
    if config.corpus.made_folders(config.folder):
        raise ConfigError(
            f"--check: the recordings of the corpus {config.corpus.kind} are made or unpacked by the run, there are "
            "none to check before it; leave --check out"
        )
    check_files(config)
    fold = None if config.folds == 1 else 1
    options = CorpusOptions.of(fold_configs(config)[0], fold).splits
    splits = read_splits(options, config.folder, config.workers)
    if fold is not None:
        splits = fold_splits(splits, config.folds, fold, config.seed)
    heldout = choose_heldout(splits.train, options)
    parts = {
        TRAIN: [utterance for utterance in splits.train if utterance.speaker not in heldout],
        HELDOUT: [utterance for utterance in splits.train if utterance.speaker in heldout],
        **splits.tests,
    }
    lexicon = lexicon_of(splits.train, LexiconOptions.of(config))
    recordings = {utterance.audio for part in parts.values() for utterance in part}
    return Check(
        [CheckedSplit.of(name, part, lexicon) for name, part in parts.items()],
        Counter(probe(path).sample_rate for path in recordings),
        lexicon,
        language_lines(config),
    )
