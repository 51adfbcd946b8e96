"""Small recordings, made on the spot, and a server of a small corpus."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from openslr_site import Site, serving

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.corpus import http_file


@pytest.fixture
def record() -> Callable[..., Path]:
    """Write noise to a recording: ``record(path, seconds=0.5, sample_rate=16000)``."""

    def write(path: Path, seconds: float = 0.5, sample_rate: int = 16000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * sample_rate))
        soundfile.write(path, noise, sample_rate)
        return path

    return write


@pytest.fixture
def spoken(tmp_path: Path, record: Callable[..., Path]) -> Callable[..., Utterance]:
    """A recording and the utterance that is all of it: ``spoken("a-1", speaker="a", text="YES")``."""

    def make(id: str, speaker: str = "a", text: str = "YES", seconds: float = 0.5) -> Utterance:
        return Utterance(id, speaker, "", record(tmp_path / f"{id}.wav", seconds), 0.0, seconds, text)

    return make


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of openslr_site.FILES; a busy one is asked again almost at once."""
    monkeypatch.setattr(http_file, "FIRST_WAIT_SECONDS", 0.001)
    with serving() as site:
        yield site
