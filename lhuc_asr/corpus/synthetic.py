"""The corpus of synthetic voices: made in the experiment's folder, then read like LibriSpeech."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.librispeech import read_librispeech
from lhuc_asr.corpus.source import TEST, CorpusReading, CorpusSource
from lhuc_asr.corpus.voices import VoicesConfig, check, generate

logger = logging.getLogger(__name__)

CONTROL = "control"


class SyntheticSource(CorpusSource):
    """Voices of espeak-ng.

    Attributes:
        voices: Number of voices, what they say, and what they are drawn from.
    """

    kind: Literal["synthetic"] = "synthetic"
    voices: VoicesConfig = VoicesConfig()

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Test speakers, who differ from the training speakers, and control speakers, who do not."""
        return (TEST, CONTROL)

    @property
    def has_own_test_speakers(self) -> bool:
        """They have timbres, accents and vocal tracts that no training speaker has."""
        return True

    @property
    def training_speakers(self) -> int:
        """As many as are asked for."""
        return self.voices.training_speakers

    def paths(self) -> list[Path]:
        """None: the voices are made."""
        return []

    def made_folders(self, experiment: Path) -> list[Path]:
        """Folder of the voices; other options give other voices, in another folder."""
        options = hashlib.sha256(self.voices.model_dump_json().encode()).hexdigest()[:8]
        return [experiment / f"voices-{options}"]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Make the voices, all of them where a file is missing or is not as it was made, and read them."""
        (folder,) = self.made_folders(experiment)
        try:
            check(folder)
        except CorpusError as error:
            if folder.exists():
                logger.warning("%s; all voices are made again", str(error).partition(";")[0])
            generate(self.voices, folder, processes)
        tests = {name: read_librispeech(folder, [name]) for name in self.test_sets}
        return CorpusReading(read_librispeech(folder, ["train"]), tests)
