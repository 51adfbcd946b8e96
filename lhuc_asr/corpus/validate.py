"""The check of a corpus before anything uses it.

A fault that would silently corrupt results (a repeated id, a name that cannot be a file name) stops the run. A few bad
recordings do not: they are left out, listed and counted. Every sample is decoded, because a header shows neither NaN
nor a truncated FLAC.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.audio.channels import mix_down
from lhuc_asr.audio.recording import is_silent, read_channels
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, samples_of
from lhuc_asr.corpus.reading import Reading, Skip

logger = logging.getLogger(__name__)

# File systems allow 255 bytes per name; the rest is for endings and for the names of temporary files.
LONGEST_NAME_BYTES = 200

SKIPS_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class Validated:
    """Utterances that every stage can rely on, and those left out.

    Attributes:
        utterances: Utterances that can be decoded and have at least one window, sorted by speaker and id.
        skipped: Utterances left out by the reader or by the check, sorted by id.
    """

    utterances: list[Utterance]
    skipped: list[Skip]


def validate(
    reading: Reading, *, require_text: bool = True, max_skipped: float = 0.05, threads: int | None = None
) -> Validated:
    """Check names, transcripts and every sample of a corpus.

    Args:
        reading: Result of reading a corpus.
        require_text: Whether utterances without a transcript are skipped.
        max_skipped: Maximum fraction of the corpus that may be skipped, 0 to 1.
        threads: Number of decoding threads, by default one per processor. Threads suffice, since decoding runs
            outside Python's lock, and unlike processes they do not import the caller's main module.

    Raises:
        CorpusError: There are no utterances, an id is repeated, a name cannot be a file name, or more than
            ``max_skipped`` of the corpus is skipped.
    """
    if not reading.utterances and not reading.skipped:
        raise CorpusError("the corpus has no utterance; check its folder and the subset's name")
    utterances = sorted(reading.utterances, key=lambda u: (u.speaker, u.id))
    _refuse_duplicates(utterances)
    _refuse_unsafe_names(utterances)

    def check(utterance: Utterance) -> _Check:
        return _check(utterance, require_text)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        checks = list(progress(pool.map(check, utterances), "checking recordings", total=len(utterances)))
    faults = [check.fault for check in checks]
    _warn_of_channels([utterance for utterance, check in zip(utterances, checks, strict=True) if check.cancelled])
    kept = [utterance for utterance, reason in zip(utterances, faults, strict=True) if reason is None]
    unusable = [Skip(u.id, reason, u.audio) for u, reason in zip(utterances, faults, strict=True) if reason is not None]
    skipped = sorted([*reading.skipped, *unusable], key=lambda skip: (skip.id, skip.reason))
    _judge(len(kept), skipped, max_skipped)
    return Validated(kept, skipped)


def unsafe_name(name: str) -> str | None:
    """Why a name cannot be used as a file name and in tables; None where it can.

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


@dataclass(frozen=True, slots=True)
class _Check:
    """Why an utterance is left out, None where it is not; and whether its channels cancel when they are mixed."""

    fault: str | None
    cancelled: bool = False


def _check(utterance: Utterance, require_text: bool) -> _Check:
    if require_text and not utterance.words:
        return _Check("no transcript")
    if not _is_utf8(utterance.audio):
        return _Check(
            f"{str(utterance.audio)!r}: the name is not UTF-8, which manifests are; rename the file or folder"
        )
    try:
        channels, info = read_channels(utterance)
    except AudioError as error:
        return _Check(str(error))
    samples, taken = mix_down(channels, info.sample_rate, utterance.channel)
    if len(samples) < samples_of(FRAME_LENGTH_SECONDS, info.sample_rate):
        return _Check(f"{utterance.audio}: shorter than one window of {1000 * FRAME_LENGTH_SECONDS:.0f} ms")
    if is_silent(samples):
        return _Check(f"{utterance.audio}: digital silence: all samples are the same; record it again, or leave it out")
    return _Check(None, cancelled=taken != utterance.channel)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _warn_of_channels(utterances: list[Utterance]) -> None:
    if utterances:
        logger.warning(
            "%d recordings, such as %s, lose their sound when their channels are mixed, so the loudest is taken; "
            "perhaps a wire was swapped",
            len(utterances),
            utterances[0].audio,
        )


def _refuse_duplicates(utterances: list[Utterance]) -> None:
    repeated = sorted(id for id, count in Counter(u.id for u in utterances).items() if count > 1)
    if repeated:
        first = [str(u.audio) for u in utterances if u.id == repeated[0]]
        raise CorpusError(
            f"{len(repeated)} utterance ids appear more than once; {repeated[0]!r} names {' and '.join(first)}; "
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
    """Log the skipped utterances; refuse too many."""
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
