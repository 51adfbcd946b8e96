"""A method whose speakers are not amplitudes, for tests of what is refused before anything is estimated."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, MethodConfig, ReadableSpeakers


class ShiftConfig(MethodConfig):
    """No options.

    Attributes:
        kind: Name of the method.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = AdaptedSpeakers

    kind: Literal["shift"] = "shift"

    def make(self, folder: Path | None) -> AdaptationMethod:
        """Not needed: no test estimates."""
        raise NotImplementedError
