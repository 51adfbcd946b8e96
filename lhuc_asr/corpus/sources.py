"""The table of corpora: a new one is a file in this room, and a line here."""

from __future__ import annotations

from typing import Annotated

from lhuc_asr.base.config import ChosenByKind
from lhuc_asr.corpus.an4 import An4Source
from lhuc_asr.corpus.csv_table import CsvSource
from lhuc_asr.corpus.folder import FolderSource
from lhuc_asr.corpus.kaldi_dir import KaldiSource
from lhuc_asr.corpus.lhotse import LhotseSource
from lhuc_asr.corpus.librispeech import LibriSpeechSource
from lhuc_asr.corpus.shar import SharSource
from lhuc_asr.corpus.source import CorpusSource
from lhuc_asr.corpus.synthetic import SyntheticSource

# Classes by the ``kind`` that a recipe gives.
SOURCES: dict[str, type[CorpusSource]] = {
    "an4": An4Source,
    "librispeech": LibriSpeechSource,
    "kaldi": KaldiSource,
    "folder": FolderSource,
    "csv": CsvSource,
    "lhotse": LhotseSource,
    "shar": SharSource,
    "synthetic": SyntheticSource,
}

# A field of a configuration that holds one of them.
AnySource = Annotated[CorpusSource, ChosenByKind(SOURCES)]
