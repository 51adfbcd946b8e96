"""The sample rates of an experiment's recordings, and those of its features."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import DocumentKind, Positive
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.features.filterbank import LOWEST_RATE, USUAL_RATE

logger = logging.getLogger(__name__)

# Recordings of a rate that a message names.
NAMES_IN_MESSAGE = 5


class _Group(StrictModel):
    """The recordings of one rate."""

    recordings: Positive
    names: tuple[str, ...]


_Rate = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
_RATES: DocumentKind[int | dict[str, _Group]] = DocumentKind(
    cast(Any, Positive | Annotated[dict[_Rate, _Group], Field(min_length=1)]),
    "sample rates of recordings",
    CorpusError,
    "delete it and run again",
    missing="run the recipe",
)


@dataclass(frozen=True)
class SampleRates:
    """The recordings of a corpus by sample rate.

    Attributes:
        counts: Number of recordings of each rate, in hertz; 0 where an earlier version wrote the rate alone.
        names: Some of these recordings.
    """

    counts: Mapping[int, int]
    names: Mapping[int, tuple[str, ...]]

    @classmethod
    def of(cls, utterances: Iterable[Utterance]) -> SampleRates:
        """The sample rates of the utterances' recordings.

        Raises:
            AudioError: A recording cannot be opened.
            CorpusError: There are no utterances.
        """
        by_rate: dict[int, list[str]] = {}
        for path in sorted({utterance.audio for utterance in utterances}):
            by_rate.setdefault(probe(path).sample_rate, []).append(str(path))
        if not by_rate:
            raise CorpusError("no utterances, so the sample rate is unknown; give at least one recording")
        return cls(
            {rate: len(paths) for rate, paths in sorted(by_rate.items())},
            {rate: tuple(paths[:NAMES_IN_MESSAGE]) for rate, paths in by_rate.items()},
        )

    @property
    def lowest(self) -> int:
        """The lowest rate, hertz."""
        return min(self.counts)

    @property
    def counted(self) -> bool:
        """Whether the recordings of each rate are known, and not the lowest rate alone."""
        return all(self.counts.values())

    def write(self, path: Path) -> None:
        """Write the rates as JSON: an object with ``recordings`` and ``names`` for each rate.

        The file is the same wherever the experiment's folder is: recordings made in it have their paths in the folder.
        """
        home = f"{path.absolute().parent.parent}/"
        names = {rate: [name.removeprefix(home) for name in names] for rate, names in self.names.items()}
        write_json(path, {str(rate): {"recordings": n, "names": names[rate]} for rate, n in self.counts.items()})

    @classmethod
    def read(cls, path: Path) -> SampleRates:
        """Read the rates; a file with one number is that of an earlier version.

        Raises:
            CorpusError: The file is damaged.
        """
        content = _RATES.read(path)
        if isinstance(content, int):
            return cls({content: 0}, {content: ()})
        counts = {int(rate): group.recordings for rate, group in content.items()}
        names = {int(rate): group.names for rate, group in content.items()}
        return cls(counts, names)

    def of_features(self, wished: int | None, wished_for_alignment: int | None) -> tuple[int, int]:
        """The sample rates of the networks' features, and of the Gaussian mixtures' features.

        Args:
            wished: Rate that the recipe names for the networks' features; None for the lowest of the recordings, and
                at most 16,000.
            wished_for_alignment: The same for the Gaussian mixtures' features.

        Raises:
            CorpusError: Recordings have a lower rate than features can have, and the recipe does not name one.
        """
        if not self.counted:
            # An earlier version wrote the defaults to ``config.yaml``, and lowered both rates to the recordings'.
            rate, other = wished or USUAL_RATE, wished_for_alignment or USUAL_RATE
            return (self.lowest, self.lowest) if self.lowest < rate else (rate, other)
        rate = wished or min(USUAL_RATE, self.lowest)
        if rate < LOWEST_RATE:
            raise CorpusError(
                f"{self._below(LOWEST_RATE)}; features have {LOWEST_RATE} Hz or more: take these recordings out, or "
                f"name a rate, features.sample_rate={USUAL_RATE}, to use them with an empty upper band"
            )
        return rate, wished_for_alignment or min(USUAL_RATE, max(self.lowest, rate))

    def log_for(self, rate: int) -> None:
        """Log what the features' rate means for the recordings, as a warning where some differ from the others."""
        if self.lowest < rate and self.counted:
            logger.warning("%s; the features are at %d Hz: their upper band is empty", self._below(rate), rate)
        elif self.lowest == rate < USUAL_RATE and len(self.counts) > 1:
            next_rate = sorted(self.counts)[1]
            logger.warning(
                "%s; the features of all are at %d Hz: take these recordings out, or name another rate, "
                "features.sample_rate=%d",
                self._below(next_rate), rate, min(USUAL_RATE, max(self.counts)),
            )  # fmt: skip
        elif self.lowest == rate < USUAL_RATE:
            logger.info("recordings at %d Hz: features at that rate", rate)

    def _below(self, limit: int) -> str:
        """Number and names of the recordings with a rate below a limit."""
        low = {rate: count for rate, count in self.counts.items() if rate < limit}
        named = [f"{name} ({rate} Hz)" for rate in low for name in self.names[rate]][:NAMES_IN_MESSAGE]
        left = sum(low.values()) - len(named)
        more = f" and {left} more" if left else ""
        total = sum(self.counts.values())
        return f"{sum(low.values())} of {total} recordings have less than {limit} Hz: {', '.join(named)}{more}"
