"""AN4 (the CMU census database): letters, digits and commands by 74 training and 10 test speakers.

Two layouts can be read:

    CMU's:          etc/an4_train.fileids, etc/an4_train.transcription, wav/an4_clstk/<speaker>/<utterance>.wav
    a packed copy:  utts.tsv, audio/<split>/<speaker>/<utterance>.flac

Source: Acero, "Acoustical and environmental robustness in automatic speech recognition", Kluwer 1993.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.corpus.reading import Reading, Skip, gather, measure
from lhuc_asr.corpus.source import TEST, CorpusReading, CorpusSource
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.tags import spoken_words

Split = Literal["train", "test"]

AUDIO_ENDINGS = (".wav", ".sph", ".flac")
COLUMNS = ("utt_id", "speaker", "split", "path", "n_samples", "sample_rate", "text")

TRANSCRIPTION = re.compile(r"(?P<words>.*)\((?P<id>[^()\s]+)\)")


class An4Source(CorpusSource):
    """AN4 in either layout, with its own pronunciations.

    Attributes:
        dir: Folder with ``etc/`` and ``wav/``, or with ``utts.tsv`` and ``audio/``.
    """

    kind: Literal["an4"] = "an4"
    dir: InputFolder

    def paths(self) -> list[Path]:
        """The folder."""
        return [self.dir]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Read the official training and test sets."""
        return CorpusReading(read_an4(self.dir, "train", own_tags), {TEST: read_an4(self.dir, "test", own_tags)})

    def text_files(self, hours: float | None) -> list[Path]:
        """The dictionary."""
        return [_dictionary(self.dir)]

    def lexicon_path(self) -> Path:
        """``etc/an4.dic``."""
        return an4_lexicon(self.dir)


def read_an4(root: Path, split: Split, own_tags: Collection[str] = ()) -> Reading:
    """Read one split in either layout.

    Args:
        root: Folder of the corpus.
        split: ``train`` or ``test``.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: The folder has neither layout, one of the files is malformed, or a transcript has an unknown tag.
    """
    if split not in get_args(Split):
        raise CorpusError(f"AN4 has the splits train and test, not {split!r}")
    root = root.absolute()
    if (root / "utts.tsv").is_file():
        return gather(_read_packed(root, split, own_tags))
    if (root / "etc" / f"an4_{split}.fileids").is_file():
        return gather(measure(_read_cmu(root, split, own_tags)))
    raise CorpusError(f"{root}: no AN4 here; expected etc/an4_{split}.fileids (with wav/) or utts.tsv (with audio/)")


def _dictionary(root: Path) -> Path:
    return root / "etc" / "an4.dic"


def an4_lexicon(root: Path) -> Path:
    """File of the pronunciations that come with AN4.

    Raises:
        CorpusError: The file is missing.
    """
    path = _dictionary(root)
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; AN4's pronunciations are expected there")
    return path


def _read_cmu(root: Path, split: Split, own_tags: Collection[str]) -> Iterator[Utterance | Skip]:
    fileids, transcription = (root / "etc" / f"an4_{split}.{kind}" for kind in ("fileids", "transcription"))
    texts = _read_transcription(transcription, own_tags)
    seen = set()
    for number, fileid in read_lines(fileids):
        path = PurePosixPath(fileid)
        if len(path.parts) < 2:
            raise CorpusError(f"{fileids}:{number}: expected <folder>/<speaker>/<utterance>, found {quoted(fileid)}")
        id, speaker = path.name, path.parent.name
        seen.add(id)
        audio = _recording(root / "wav" / path)
        if audio is None:
            yield Skip(id, f"{root / 'wav' / path}: no such recording (.wav, .sph or .flac)")
        elif id not in texts:
            yield Skip(id, f"{audio}: no transcript in {transcription}", audio)
        else:
            yield Utterance(id, speaker, "", audio, 0.0, 0.0, texts[id])
    for id in sorted(texts.keys() - seen):
        yield Skip(id, f"in {transcription}, but not in {fileids}")


def _recording(stem: Path) -> Path | None:
    candidates = (stem.with_name(stem.name + ending) for ending in AUDIO_ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def _read_transcription(path: Path, own_tags: Collection[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in read_lines(path):
        match = TRANSCRIPTION.fullmatch(line)
        if match is None:
            raise CorpusError(f"{path}:{number}: expected 'WORDS (utterance-id)', found {quoted(line)}")
        if match["id"] in texts:
            raise CorpusError(f"{path}:{number}: {match['id']} appears twice")
        texts[match["id"]] = " ".join(spoken_words(match["words"], f"{path}:{number}", own_tags))
    return texts


def _read_packed(root: Path, split: Split, own_tags: Collection[str]) -> Iterator[Utterance]:
    path = root / "utts.tsv"
    for number, line in read_lines(path):
        fields = tuple(line.split("\t"))
        if number == 1:
            if fields != COLUMNS:
                raise CorpusError(f"{path}:1: expected the columns {', '.join(COLUMNS)}, found {quoted(line)}")
            continue
        if len(fields) == len(COLUMNS) - 1:
            fields += ("",)  # a row without transcript has lost its last tab to stripping
        try:
            id, speaker, where, audio, samples, sample_rate, text = fields
            seconds = int(samples) / int(sample_rate)
        except (ValueError, ZeroDivisionError) as error:
            raise CorpusError(f"{path}:{number}: expected {', '.join(COLUMNS)}, found {quoted(line)}") from error
        if where == split:
            words = spoken_words(text, f"{path}:{number}", own_tags)
            yield Utterance(id, speaker, "", root / audio, 0.0, seconds, " ".join(words))
