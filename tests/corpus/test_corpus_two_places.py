"""Corpora of two places: both are read, by any of the kinds, with the user's own tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.sources import SOURCES
from lhuc_asr.corpus.two_places import TwoPlaces

# Writes a place in which a speaker says a text in a recording; returns its path.
Write = Callable[[Path, str, str], Path]


def table(audio: Path, speaker: str, text: str) -> Path:
    path = audio.parent / "table.csv"
    path.write_text(f"audio,speaker,text\n{audio.name},{speaker},{text}\n", encoding="utf-8")
    return path


def folder(audio: Path, speaker: str, text: str) -> Path:
    home = audio.parent / speaker
    home.mkdir()
    audio.rename(home / audio.name)
    (home / audio.name).with_suffix(".txt").write_text(text, encoding="utf-8")
    return audio.parent


def kaldi(audio: Path, speaker: str, text: str) -> Path:
    for name, value in (("wav.scp", audio), ("utt2spk", speaker), ("text", text)):
        (audio.parent / name).write_text(f"a-1 {value}\n", encoding="utf-8")
    return audio.parent


def lhotse(audio: Path, speaker: str, text: str) -> Path:
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": str(audio)}]}
    supervision = {"id": "a-1", "start": 0.0, "duration": 0.5, "channel": 0, "text": text, "speaker": speaker}
    cut = {"id": "c", "type": "MonoCut", "start": 0.0, "supervisions": [supervision], "recording": recording}
    path = audio.parent / "cuts.jsonl"
    path.write_text(json.dumps(cut) + "\n", encoding="utf-8")
    return path


WRITERS: dict[str, Write] = {"csv": table, "folder": folder, "kaldi": kaldi, "lhotse": lhotse}
# Kinds whose places may name environments: a column, utt2env.
WITH_ENVIRONMENTS = {"csv", "kaldi"}


@pytest.fixture(params=sorted(WRITERS))
def source(request: pytest.FixtureRequest, tmp_path: Path, record: Callable[..., Path]) -> TwoPlaces:
    """A corpus in which ann trains and bob tests."""
    places = {}
    for split, speaker, text in (("train", "ann", "yes <door>"), ("test", "bob", "no")):
        audio = record(tmp_path / split / "one.wav", seconds=0.5)
        places[split] = WRITERS[request.param](audio, speaker, text)
    return SOURCES[request.param](**places)


def test_every_corpus_of_two_places_is_tried_here() -> None:
    assert {kind for kind, source in SOURCES.items() if issubclass(source, TwoPlaces)} == set(WRITERS)


def test_both_places_are_read(source: TwoPlaces, tmp_path: Path) -> None:
    reading = source.read(tmp_path, hours=None, seed=1, processes=1, own_tags={"<DOOR>"})
    said = [(u.speaker, u.words, u.seconds) for u in (*reading.train.utterances, *reading.tests["test"].utterances)]
    assert said == [("ann", ("YES", "<DOOR>"), 0.5), ("bob", ("NO",), 0.5)]
    assert set(reading.tests) == set(source.test_sets)
    with pytest.raises(CorpusError, match="unknown tag '<DOOR>'"):
        source.read(tmp_path, hours=None, seed=1, processes=1)


def test_what_is_known_before_reading(source: TwoPlaces) -> None:
    assert source.paths() == [source.train, source.test]
    assert source.environments == (None if source.kind in WITH_ENVIRONMENTS else ())


def test_one_place_for_both_is_refused(source: TwoPlaces) -> None:
    with pytest.raises(ValidationError, match=f"train and test are the same, {source.train}; test on other speakers"):
        type(source)(train=source.train, test=source.train.parent / "." / source.train.name)
