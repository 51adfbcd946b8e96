"""What several tests of recipes share."""

from __future__ import annotations

import pytest

from lhuc_asr.pipeline import parts


@pytest.fixture
def a_part_for_each_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A split is cut into parts of one speaker each, however short they are."""
    monkeypatch.setattr(parts, "part_seconds", lambda utterances: 0.1)
