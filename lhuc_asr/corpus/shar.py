"""Corpora in shards: Lhotse Shar with recordings, in a folder or in storage that speaks S3.

A shard is a manifest of cuts and a tar file of their recordings (``base/shar.py``). The recordings are unpacked into
the folder of the experiment, so that they can be heard and read again as those of any corpus. Each shard appears there
whole, and is unpacked again only if its files have changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from lhuc_asr.audio.recording import TOLERANCE_SECONDS
from lhuc_asr.audio.utterance import Utterance, read_manifest, write_manifest
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.documents import first_mistake
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.local_path import Place
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.shar import CUTS, RECORDING, read_field, shards_in
from lhuc_asr.corpus.lhotse import Cut, Recording, parse_cut, spoken_in
from lhuc_asr.corpus.reading import Reading, gather
from lhuc_asr.corpus.source import TEST, CorpusReading, CorpusSource
from lhuc_asr.lang.lines import read_lines

# In the folder of the experiment.
FOLDER = "recordings"
WRITE = "write it with CutSet.to_shar(..., {'recording': 'flac'})"
# In the folder of a shard.
UTTERANCES = "utterances.jsonl"
TRAIN = "train"
_ENDING = re.compile(r"\.[a-z0-9]{1,8}")
_COMPRESSED = re.compile(r"\w+\.\d+\.tar\.gz")


class SharSource(CorpusSource):
    """Two places with shards of recordings.

    Attributes:
        train: Place to train on: a folder, or ``s3://BUCKET/PREFIX``.
        test: Place to test on.
    """

    kind: Literal["shar"] = "shar"
    train: Place
    test: Place

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.train == self.test:
            raise ValueError(f"train and test are the same, {self.train}; test on other speakers")
        return self

    def without_tests(self) -> Self:
        """The corpus with its training place in both, whatever the other one is."""
        return self.model_copy(update={"test": self.train})

    def paths(self) -> list[Path]:
        """None: ``versions`` lists the files."""
        return []

    def versions(self) -> tuple[str, ...]:
        """Name, size and time, or tag, of each file of the shards of both places."""
        return tuple(
            f"{part} {name} {version}"
            for part, place in ((TRAIN, self.train), (TEST, self.test))
            for name, version in _shard_files(place).items()
        )

    def made_folders(self, experiment: Path) -> list[Path]:
        """Folder of the unpacked recordings."""
        return [experiment / FOLDER]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        """Unpack the recordings of both places, and read their cuts.

        Raises:
            StoreError: A place cannot be read.
            CorpusError: A place has no shards, or one is damaged; as from ``lhotse.read_cuts``.
        """
        (folder,) = self.made_folders(experiment)
        # Both are looked at before anything is unpacked.
        tasks = {
            name: _tasks(place, folder / name, tuple(own_tags))
            for name, place in ((TRAIN, self.train), (TEST, self.test))
        }
        readings = {name: _unpack(folder / name, theirs, processes) for name, theirs in tasks.items()}
        return CorpusReading(readings[TRAIN], {TEST: readings[TEST]})


@dataclass(frozen=True)
class _Task:
    """A shard to unpack.

    Attributes:
        place: Its place.
        files: Key of the file of each field.
        folder: Folder for its recordings and its utterances; one that is there is whole.
        own_tags: As in ``CorpusSource.read``.
    """

    place: str
    files: dict[str, str]
    folder: Path
    own_tags: tuple[str, ...]


def _shard_files(place: str) -> dict[str, str]:
    """Names and versions of the files of the shards in a place.

    Raises:
        CorpusError: The place is a folder that is not there.
    """
    if "://" not in place and not Path(place).is_dir():
        raise CorpusError(f"{place}: {'is a file, expected a folder' if Path(place).exists() else 'no such folder'}")
    versions = open_store(place).versions()
    return {name: versions[name] for files in shards_in(versions).values() for name in files.values()} | {
        name: version for name, version in versions.items() if _COMPRESSED.fullmatch(name)
    }


def _tasks(place: str, folder: Path, own_tags: tuple[str, ...]) -> list[_Task]:
    """A task for each shard of a place."""
    versions = _shard_files(place)
    if packed := next((name for name in versions if _COMPRESSED.fullmatch(name)), None):
        raise CorpusError(f"{place}/{packed}: is compressed; unpack it with gunzip")
    shards = shards_in(versions)
    if not shards:
        raise CorpusError(
            f"{place}: no shards of Lhotse Shar there, such as {CUTS}.000000.jsonl.gz, which have numbers; {WRITE}"
        )
    tasks = []
    for number, files in shards.items():
        if missing := {CUTS, RECORDING} - files.keys():
            there = ", ".join(sorted(files.values()))
            raise CorpusError(f"{place}: the shard {number} has {there} and no {min(missing)}; {WRITE}")
        state = repr((place, own_tags, [(name, versions[name]) for name in files.values()]))
        home = folder / f"{number}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
        tasks.append(_Task(place, files, home, own_tags))
    return tasks


def _unpack(folder: Path, tasks: Sequence[_Task], processes: int) -> Reading:
    """Unpack new shards, delete those that the place no longer has, and read the utterances of all."""
    new = [task for task in tasks if not _is_whole(task)]
    folder.mkdir(parents=True, exist_ok=True)
    with Executor(processes if new else 1) as executor:
        for _ in progress(executor.map(_unpack_shard, new), f"shards of {folder.name}", len(new)):
            pass
    for stranger in set(folder.iterdir()) - {task.folder for task in tasks}:
        shutil.rmtree(stranger) if stranger.is_dir() else stranger.unlink()
    return gather(utterance for task in tasks for utterance in _unpacked(task))


def _is_whole(task: _Task) -> bool:
    """Whether a shard is unpacked, and no recording of it has been deleted since."""
    return task.folder.exists() and all(utterance.audio.exists() for utterance in _unpacked(task))


def _unpacked(task: _Task) -> list[Utterance]:
    """The utterances of a shard that is unpacked."""
    utterances = read_manifest(task.folder / UTTERANCES)
    return [replace(utterance, audio=task.folder / utterance.audio.name) for utterance in utterances]


def _unpack_shard(task: _Task) -> None:
    store = open_store(task.place)
    with (
        store.reading(task.files[CUTS]) as cuts,
        store.reading(task.files[RECORDING]) as recordings,
        atomic_folder(task.folder) as temporary,
    ):
        write_manifest(temporary / UTTERANCES, list(_utterances(task, temporary, cuts, recordings)))


def _utterances(task: _Task, folder: Path, cuts: Path, recordings: Path) -> Iterator[Utterance]:
    where = f"{task.place}/{task.files[CUTS]}"
    pairs = zip_longest(read_lines(cuts), read_field(recordings, CorpusError))
    for count, (line, stored) in enumerate(pairs, start=1):
        if line is None or stored is None:
            longer = task.files[CUTS if stored is None else RECORDING]
            raise CorpusError(f"{task.place}: {longer} has more than {count - 1} cuts, unlike its shard; {WRITE}")
        place = f"{where}:{line[0]}"
        cut = parse_cut(place, line[1])
        name, datum = stored
        if name != cut.id:
            raise CorpusError(f"{place}: the cut {cut.id} has the recording of {name} in its shard; {WRITE}")
        if datum is None:
            raise CorpusError(f"{place}: the cut {cut.id} has no recording; leave it out, or give it one")
        if not _ENDING.fullmatch(datum.ending):
            raise CorpusError(f"{place}: the recording of {cut.id} is a file {datum.ending!r}; {WRITE}")
        audio = folder / f"{count:06d}{datum.ending}"
        audio.write_bytes(datum.data)
        yield from _spoken(cut, datum.manifest, audio, place, task.own_tags)


def _spoken(cut: Cut, manifest: Any, audio: Path, place: str, own_tags: tuple[str, ...]) -> Iterator[Utterance]:
    try:
        recording = Recording.model_validate(manifest)
    except ValidationError as error:
        raise CorpusError(f"{place}: the recording of {cut.id} ({first_mistake(error)}); {WRITE}") from error
    for said in cut.supervisions:
        # A shard holds only the part of the recording that the cut spans.
        if said.start < -TOLERANCE_SECONDS or said.start + said.duration > cut.duration + TOLERANCE_SECONDS:
            raise CorpusError(
                f"{place}: the supervision {said.id} lies partly outside its cut, and its words with it; use "
                "CutSet.trim_to_supervisions before to_shar"
            )
    yield from spoken_in(cut, recording, lambda source: audio, place, own_tags)
