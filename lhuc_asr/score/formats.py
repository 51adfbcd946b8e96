"""The formats of figures."""

from __future__ import annotations

from collections.abc import Iterable

from lhuc_asr.base.errors import ScoreError
from lhuc_asr.base.extras import extra

# For each, the entries that would name the program's version or the time.
FORMATS = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}


def check_formats(formats: Iterable[str]) -> None:
    """Refuse formats that figures cannot be drawn in; before hours of work, not after.

    Raises:
        ScoreError: A format is not one of ``FORMATS``.
        MissingExtraError: There is nothing to draw with.
    """
    formats = list(formats)
    if unknown := [format for format in formats if format not in FORMATS]:
        raise ScoreError(f"figures cannot be drawn as {', '.join(unknown)}; choose from {', '.join(FORMATS)}")
    if formats:
        with extra("figures"):
            import matplotlib  # noqa: F401
