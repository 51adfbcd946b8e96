"""Corpora in shards that Lhotse wrote, in a folder and behind a real server that speaks S3; shards that are refused."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.object_store import StoreError, open_store
from lhuc_asr.base.shar import read_field
from lhuc_asr.corpus.shar import SharSource

SECONDS = {"a/1.x": 0.5, "b-2": 0.7, "c-3": 0.4}


def _samples(name: str) -> np.ndarray:
    noise = np.random.default_rng(list(name.encode())).uniform(-0.5, 0.5, round(16000 * SECONDS[name]))
    return (np.round(noise * 32767) / 32768).astype(np.float32)


def _shards(folder: Path, *names: str) -> Path:
    """Cuts of Lhotse in shards of two, written by the library."""
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.shar import SharWriter

    folder.mkdir(parents=True)
    with SharWriter(folder, {"recording": "flac"}, shard_size=2) as shar:
        for name in names:
            path = folder.parent / f"{folder.name}.wav"
            soundfile.write(path, _samples(name), 16000, subtype="PCM_16")
            recording = Recording.from_file(path, recording_id=f"recording of {name}")
            span = {"start": 0, "duration": SECONDS[name], "channel": 0}
            said = SupervisionSegment(name, recording.id, **span, text=f"yes {name[0]}", speaker=f"speaker {name[0]}")
            shar.write(MonoCut(name, **span, recording=recording, supervisions=[said]))
    return folder


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {
        "train": str(_shards(tmp_path / "data" / "train", *SECONDS)),
        "test": str(_shards(tmp_path / "data" / "test", "b-2")),
    }


@pytest.fixture
def stored(places: dict[str, str], bucket: str) -> dict[str, str]:
    """The same places behind S3."""
    for place in places.values():
        for path in Path(place).iterdir():
            open_store(bucket).put(path, f"{Path(place).name}/{path.name}")
    return {name: f"{bucket}/{name}" for name in places}


def _check(utterance: Utterance, name: str, folder: Path) -> None:
    assert utterance.speaker.startswith("speaker")
    assert utterance.text == f"YES {name[0].upper()}"
    assert utterance.seconds == SECONDS[name]
    assert utterance.audio.is_relative_to(folder / "recordings")
    np.testing.assert_array_equal(read_audio(utterance, 16000), _samples(name))


@pytest.mark.parametrize("where", ["places", "stored"])
@pytest.mark.parametrize("processes", [1, 2])
def test_recordings_are_unpacked_as_they_were(request, tmp_path: Path, where: str, processes: int) -> None:
    source = SharSource(**request.getfixturevalue(where))
    (tmp_path / "exp").mkdir()
    reading = source.read(tmp_path / "exp", hours=None, seed=1, processes=processes)
    assert len(reading.train.utterances) == 3
    for utterance, name in zip(reading.train.utterances, SECONDS, strict=True):
        _check(utterance, name, tmp_path / "exp")
    (test,) = reading.tests["test"].utterances
    _check(test, "b-2", tmp_path / "exp")
    files = {path for path in (tmp_path / "exp" / "recordings").rglob("*") if path.is_file()}
    assert reading.recordings == {path for path in files if path.name != "utterances.jsonl"}


def test_shards_are_unpacked_again_only_if_they_have_changed(stored, places, tmp_path, caplog) -> None:
    def unpacked(where: dict[str, str], folder: Path) -> dict[str, float]:
        folder.mkdir(exist_ok=True)
        SharSource(**where).read(folder, hours=None, seed=1, processes=1)
        files = [path for path in (folder / "recordings").rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in files}

    for name, where in (("s3", stored), ("folder", places)):
        before, made = SharSource(**where).versions(), unpacked(where, tmp_path / name)
        assert len(before) == 6
        # Other files in the place do not count.
        note = tmp_path / "README"
        note.write_text("hello")
        open_store(where["train"]).put(note, "README")
        assert SharSource(**where).versions() == before
        assert unpacked(where, tmp_path / name) == made
        with gzip.open(Path(places["train"]) / "cuts.000001.jsonl.gz", "rt") as file:
            cuts = file.read()
        changed = tmp_path / "cuts"
        changed.write_bytes(gzip.compress(cuts.replace("yes c", f"yes {name}").encode()))
        open_store(where["train"]).put(changed, "cuts.000001.jsonl.gz")
        assert SharSource(**where).versions() != before
        again = unpacked(where, tmp_path / name)
        kept = made.keys() & again.keys()
        assert {place.split("/")[2].partition("-")[0] for place in made.keys() - kept} == {"000001"}
        assert {place: made[place] for place in kept} == {place: again[place] for place in kept}
        assert len(again) == len(made)


def test_what_is_gone_is_unpacked_again_and_strangers_are_deleted(places: dict[str, str], tmp_path: Path) -> None:
    source, folder = SharSource(**places), tmp_path / "recordings" / "train"
    before = source.read(tmp_path, hours=None, seed=1, processes=1).train.utterances
    before[0].audio.unlink()
    (folder / ".DS_Store").write_text("")
    (folder / "old").mkdir()
    assert source.read(tmp_path, hours=None, seed=1, processes=1).train.utterances == before
    _check(before[0], "a/1.x", tmp_path)
    assert sorted(path.name[:7] for path in folder.iterdir()) == ["000000-", "000001-"]


def test_recordings_in_their_original_format_are_read(tmp_path: Path) -> None:
    """Lhotse calls their files so, whatever the format is."""
    folder = _shards(tmp_path / "data" / "train", "b-2")
    (_, datum), *_ = read_field(folder / "recording.000000.tar", CorpusError)
    with tarfile.open(folder / "recording.000000.tar", "w") as tar:
        for name, content in (("b-2.original", datum.data), ("b-2.json", json.dumps(datum.manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    test = _shards(tmp_path / "data" / "test", "c-3")
    source = SharSource(train=str(folder), test=str(test))
    (utterance,) = source.read(tmp_path, hours=None, seed=1, processes=1).train.utterances
    _check(utterance, "b-2", tmp_path)


def test_a_supervision_beyond_its_cut_is_refused(tmp_path: Path) -> None:
    """What lies outside the cut is not in the shard, but its words are in the transcript."""
    test = _shards(tmp_path / "other" / "test", "c-3")
    for number, (start, duration) in enumerate([(-0.2, 0.5), (0.3, 0.5)]):
        folder = _shards(tmp_path / f"data{number}" / "train", "b-2")
        path = folder / "cuts.000000.jsonl.gz"
        cut = json.loads(gzip.decompress(path.read_bytes()))
        cut["supervisions"][0] |= {"start": start, "duration": duration}
        path.write_bytes(gzip.compress(json.dumps(cut).encode()))
        source = SharSource(train=str(folder), test=str(test))
        with pytest.raises(CorpusError, match=r"the supervision b-2 lies partly outside its cut.*trim_to_supervisions"):
            source.read(tmp_path, hours=None, seed=1, processes=1)


def test_paths_are_absolute_and_urls_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    source = SharSource(train="a", test="s3://bucket/b/")
    assert (source.train, source.test) == (str(tmp_path / "a"), "s3://bucket/b")
    with pytest.raises(ValidationError, match="train and test are the same"):
        SharSource(train="a", test=str(tmp_path / "a"))


def _lines(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "cuts.000001.jsonl.gz"
    cut = json.loads(gzip.decompress(path.read_bytes()))
    change(cut)
    path.write_bytes(gzip.compress(json.dumps(cut).encode()))


def _recording(folder: Path, *files: tuple[str, bytes]) -> None:
    with tarfile.open(folder / "recording.000001.tar", "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


SOUND = b'{"id": "r", "sources": [{"type": "shar", "channels": [0], "source": ""}]}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "train: no such folder"),
        (lambda folder: folder.rename(f"{folder}2") and folder.write_text(""), "train: is a file, expected a folder"),
        (
            lambda folder: [path.unlink() for path in folder.iterdir()],
            r"no shards of Lhotse Shar there, such as cuts\.000000\.jsonl\.gz, which have numbers",
        ),
        (
            lambda folder: (folder / "recording.000001.tar").unlink(),
            r"the shard 000001 has cuts\.000001\.jsonl\.gz and no recording",
        ),
        (
            lambda folder: (folder / "cuts.000001.jsonl.gz").unlink(),
            r"the shard 000001 has recording\.000001\.tar and no cuts",
        ),
        (
            lambda folder: (folder / "recording.000001.tar").rename(folder / "recording.000001.tar.gz"),
            r"recording\.000001\.tar\.gz: is compressed; unpack it with gunzip",
        ),
        (lambda folder: _lines(folder, lambda cut: cut.update(id="d")), "the cut d has the recording of c-3"),
        (lambda folder: _lines(folder, lambda cut: cut.pop("type")), "not a cut of Lhotse"),
        (
            lambda folder: _lines(folder, lambda cut: cut["supervisions"][0].pop("speaker")),
            r"cuts\.000001\.jsonl\.gz:1: the supervision c-3 has no speaker",
        ),
        (lambda folder: _recording(folder), r"cuts\.000001\.jsonl\.gz has more than 0 cuts, unlike its shard"),
        (
            lambda folder: _recording(folder, *((f"{n}{e}", SOUND) for n in ("c-3", "d") for e in (".wav", ".json"))),
            r"recording\.000001\.tar has more than 1 cuts",
        ),
        (
            lambda folder: _recording(folder, ("c-3.nodata", b""), ("c-3.nometa", b"")),
            "the cut c-3 has no recording; leave it out",
        ),
        (lambda folder: _recording(folder, ("c-3.sh sh", SOUND), ("c-3.json", SOUND)), "is a file '.sh sh'"),
        (
            lambda folder: _recording(folder, ("c-3.wav", b""), ("c-3.json", b"{}")),
            "the recording of c-3 .id: Field required",
        ),
        (lambda folder: _recording(folder, ("c-3.wav", b"")), "'c-3' has no manifest after it"),
        (lambda folder: (folder / "recording.000001.tar").write_bytes(b""), "recording.000001.tar"),
    ],
)
def test_what_is_refused_leaves_whole_shards_alone(places, tmp_path: Path, change: Any, message: str) -> None:
    source = SharSource(**places)
    change(Path(places["train"]))
    (tmp_path / "exp").mkdir()
    with pytest.raises(CorpusError, match=message):
        source.read(tmp_path / "exp", hours=None, seed=1, processes=1)
    # What is there is whole: the first shard.
    files = [path.relative_to(tmp_path / "exp").parts for path in (tmp_path / "exp").rglob("*") if path.is_file()]
    assert all(parts[2].startswith("000000-") for parts in files)
    assert len(files) in (0, 3)


def test_a_bucket_that_is_not_there_is_named(s3_server: None) -> None:
    with pytest.raises(StoreError, match=r"^s3://nowhere/a: cannot be listed .*; check the bucket"):
        SharSource(train="s3://nowhere/a", test="s3://nowhere/b").versions()
