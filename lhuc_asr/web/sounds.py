"""Which recordings of a report can be listened to."""

from __future__ import annotations

from enum import StrEnum


class Sounds(StrEnum):
    """Recordings whose sound is in the page."""

    NONE = "none"
    CHANGED = "changed"  # those whose words adaptation has changed
    ALL = "all"
