"""The one check between a corpus and everything that uses it.

What would corrupt results silently (one id twice, a name that is no file name) stops the run. A few bad
recordings do not: they are left out, listed and counted. Every sample is decoded, since neither NaN nor a cut
FLAC shows in a header.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lhuc_asr.audio.recording import read_native
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, samples_of
from lhuc_asr.corpus.reading import Reading, Skip

logger = logging.getLogger(__name__)

# A file system takes 255 bytes a name; the rest is for endings and for the names of temporary files.
LONGEST_NAME_BYTES = 200

SKIPS_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class Validated:
    """Utterances that every stage may trust, and those left out.

    Attributes:
        utterances: Sorted by speaker and id; every one can be decoded and holds at least one window.
        skipped: What was left out, by the reader or here, sorted by id.
    """

    utterances: list[Utterance]
    skipped: list[Skip]


def validate(
    reading: Reading, *, require_text: bool = True, max_skipped: float = 0.05, threads: int | None = None
) -> Validated:
    """Check names, transcripts and every sample of a corpus.

    Args:
        reading: What a reader of a corpus returned.
        require_text: Whether an utterance without transcript is skipped.
        max_skipped: Largest share of the corpus, 0 to 1, that may be skipped.
        threads: Number of threads that decode, by default one a processor. Decoding runs outside Python's lock, and
            threads ask nothing of the caller's main module, as processes would.

    Raises:
        CorpusError: There is no utterance, an id comes twice, a name cannot be a file name, or more than
            ``max_skipped`` of the corpus is skipped.
    """
    if not reading.utterances and not reading.skipped:
        raise CorpusError("the corpus has no utterance; check its folder and the subset's name")
    utterances = sorted(reading.utterances, key=lambda u: (u.speaker, u.id))
    _refuse_duplicates(utterances)
    _refuse_unsafe_names(utterances)

    def fault(utterance: Utterance) -> str | None:
        return _fault(utterance, require_text)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        faults = list(progress(pool.map(fault, utterances), "checking recordings", total=len(utterances)))
    kept = [utterance for utterance, reason in zip(utterances, faults, strict=True) if reason is None]
    unusable = [Skip(u.id, reason, u.audio) for u, reason in zip(utterances, faults, strict=True) if reason is not None]
    skipped = sorted([*reading.skipped, *unusable], key=lambda skip: (skip.id, skip.reason))
    _judge(len(kept), skipped, max_skipped)
    return Validated(kept, skipped)


def unsafe_name(name: str) -> str | None:
    """Why a name cannot become a file name and a table's cell, or None where it can.

    Example:
        >>> unsafe_name("fash-an251")
        >>> unsafe_name("../fash")
        "it contains '/'"
    """
    if not name:
        return "it is empty"
    if any(character.isspace() for character in name):
        return "it contains white space"
    if not name.isprintable():
        return "it contains a character that cannot be printed"
    for forbidden in ("/", "\\", "|", "..", ":", "*", "?", '"', "<", ">"):
        if forbidden in name:
            return f"it contains {forbidden!r}"
    if name[0] in ".-":
        return f"it begins with {name[0]!r}"
    if len(name.encode()) > LONGEST_NAME_BYTES:
        return f"it is longer than {LONGEST_NAME_BYTES} bytes"
    return None


def _fault(utterance: Utterance, require_text: bool) -> str | None:
    """Why one utterance is left out, or None."""
    if require_text and not utterance.words:
        return "no transcript"
    try:
        samples, sample_rate = read_native(utterance)
    except AudioError as error:
        return str(error)
    if len(samples) < samples_of(FRAME_LENGTH_SECONDS, sample_rate):
        return f"{utterance.audio}: shorter than one window of {1000 * FRAME_LENGTH_SECONDS:.0f} ms"
    return None


def _refuse_duplicates(utterances: list[Utterance]) -> None:
    repeated = sorted(id for id, count in Counter(u.id for u in utterances).items() if count > 1)
    if repeated:
        first = [str(u.audio) for u in utterances if u.id == repeated[0]]
        raise CorpusError(
            f"{len(repeated)} utterance ids come twice or more; {repeated[0]!r} names {' and '.join(first)}; "
            "give every utterance an id of its own"
        )


def _refuse_unsafe_names(utterances: list[Utterance]) -> None:
    for utterance in utterances:
        names = {"utterance id": utterance.id, "speaker": utterance.speaker}
        if utterance.environment:
            names["environment"] = utterance.environment
        for kind, name in names.items():
            if reason := unsafe_name(name):
                raise CorpusError(f"{utterance.audio}: {kind} {name!r} cannot become a file name: {reason}; rename it")


def _judge(kept: int, skipped: list[Skip], max_skipped: float) -> None:
    """Log what is skipped; stop where it is too much."""
    if not skipped:
        return
    total = kept + len(skipped)
    if not kept or len(skipped) > max_skipped * total:
        shown = "; ".join(f"{skip.id}: {skip.reason}" for skip in skipped[:SKIPS_IN_MESSAGE])
        more = f"; and {len(skipped) - SKIPS_IN_MESSAGE} more" if len(skipped) > SKIPS_IN_MESSAGE else ""
        raise CorpusError(
            f"{len(skipped)} of {total} utterances cannot be used, more than the {max_skipped:.1%} allowed "
            f"(max_skipped): {shown}{more}"
        )
    logger.warning("skipped %d of %d utterances", len(skipped), total)
    for skip in skipped:
        logger.warning("skipped %s: %s", skip.id, skip.reason)
