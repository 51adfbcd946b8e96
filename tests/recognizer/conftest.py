"""The tiny experiment, exported to a folder elsewhere, and recordings of a new speaker in a folder of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.speaker import Speaker


@pytest.fixture(scope="session")
def said(finished: Path) -> list[Utterance]:
    """The test utterances of one speaker."""
    return [u for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001"]


@pytest.fixture(scope="session")
def audio(said: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of that speaker's recordings."""
    folder = tmp_path_factory.mktemp("audio")
    for utterance in said:
        shutil.copy(utterance.audio, folder)
    return folder


@pytest.fixture(scope="session")
def known(finished: Path, said: list[Utterance]) -> dict[str, tuple[str, ...]]:
    """The words of each recording that the lexicon of so few voices has."""
    lexicon = read_lexicon_folder(finished / "lang")
    return {u.id: tuple(word for word in u.words if word in lexicon.pronunciations) for u in said}


@pytest.fixture(scope="module")
def recognizer(exported: Path) -> Recognizer:
    return load(exported)


@pytest.fixture(scope="module")
def alice(recognizer: Recognizer, audio: Path) -> Speaker:
    """The speaker, by the name that the experiment has: the order of their data depends on it."""
    return recognizer.adapt(audio, speaker="2001")
