"""The tiny experiment's recognizer, and what one of its test voices says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from enrol_server import RATE, Server, serving

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.recognizer.recognizer import Recognizer, load


@pytest.fixture(scope="session")
def said(finished: Path) -> list[Utterance]:
    """The test utterances of one speaker."""
    return [each for each in read_manifest(finished / "corpus" / "test.jsonl") if each.speaker == "2001"]


@pytest.fixture(scope="session")
def voices(said: list[Utterance]) -> list[np.ndarray]:
    """Their samples, each with a second of the recordings' own noise around it."""
    read = [soundfile.read(each.audio, dtype="float32")[0] for each in said]
    noise = np.random.default_rng(0).normal(0.0, 5e-3, RATE)
    return [np.concatenate([noise, samples, noise]).astype(np.float32) for samples in read]


@pytest.fixture(scope="session")
def recognizer(finished: Path) -> Recognizer:
    return load(finished)


@pytest.fixture(scope="session")
def server(
    finished: Path, said: list[Utterance], recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The enrolment page's server, with what the voice says as the sentences that are read."""
    known = [" ".join(word for word in each.words if word in recognizer.vocabulary) for each in said]
    with serving(finished, known, tmp_path_factory.mktemp("enrol")) as running:
        yield running
