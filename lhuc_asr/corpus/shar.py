"""Corpora in shards: Lhotse Shar with recordings, in a folder or in storage that speaks S3.

A shard is a manifest of cuts and a tar file of their recordings (``base/shar.py``). The recordings are unpacked into
the folder of the experiment, so that they can be heard and read again as those of any corpus; the store is read once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.documents import first_mistake
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.local_path import local_path
from lhuc_asr.base.object_store import SCHEME, open_store
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.shar import CUTS, RECORDING, read_field, shards_in
from lhuc_asr.corpus.lhotse import Cut, Recording, parse_cut, spoken_in
from lhuc_asr.corpus.reading import Reading, gather
from lhuc_asr.corpus.source import TEST, CorpusReading, CorpusSource
from lhuc_asr.lang.lines import read_lines

# In the folder of the experiment.
FOLDER = "recordings"
WRITE = "write it with SharWriter, with a field recording"
_ENDING = re.compile(r"\.[a-z0-9]{1,5}")


def _place(value: Any) -> Any:
    """A URL as it is, and a folder as an absolute path."""
    if isinstance(value, str) and value.startswith(f"{SCHEME}://"):
        return value.rstrip("/")
    path = local_path(value)
    return str(path) if isinstance(path, Path) else path


Place = Annotated[str, BeforeValidator(_place)]


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
        """Name, size and time, or tag, of each file of both places."""
        return tuple(
            f"{part} {name} {version}"
            for part, place in (("train", self.train), (TEST, self.test))
            for name, version in open_store(place).versions().items()
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
        with atomic_folder(folder) as temporary:
            train, test = (
                _unpack(place, temporary, name, processes, tuple(own_tags))
                for name, place in (("train", self.train), (TEST, self.test))
            )
        return CorpusReading(_moved(train, temporary, folder), {TEST: _moved(test, temporary, folder)})


@dataclass(frozen=True)
class _Task:
    """A shard to unpack.

    Attributes:
        place: Its place.
        files: Key of the file of each field.
        folder: Folder for its recordings.
        own_tags: As in ``CorpusSource.read``.
    """

    place: str
    files: dict[str, str]
    folder: Path
    own_tags: tuple[str, ...]


def _unpack(place: str, folder: Path, name: str, processes: int, own_tags: tuple[str, ...]) -> Reading:
    shards = shards_in(open_store(place).versions())
    if not shards:
        raise CorpusError(f"{place}: no shards of Lhotse Shar there, such as {CUTS}.000000.jsonl.gz; {WRITE}")
    for number, files in shards.items():
        if missing := {CUTS, RECORDING} - files.keys():
            raise CorpusError(f"{place}: the shard {number} has no {min(missing)}; {WRITE}")
    tasks = [_Task(place, files, folder / name / number, own_tags) for number, files in shards.items()]
    with Executor(processes) as executor:
        parts = list(progress(executor.map(_unpack_shard, tasks), f"shards of {name}", len(tasks)))
    return gather(utterance for part in parts for utterance in part)


def _unpack_shard(task: _Task) -> list[Utterance]:
    store = open_store(task.place)
    task.folder.mkdir(parents=True)
    with store.reading(task.files[CUTS]) as cuts, store.reading(task.files[RECORDING]) as recordings:
        return list(_utterances(task, cuts, recordings))


def _utterances(task: _Task, cuts: Path, recordings: Path) -> Iterator[Utterance]:
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
        audio = task.folder / f"{count:06d}{datum.ending}"
        audio.write_bytes(datum.data)
        yield from _spoken(cut, datum.manifest, audio, place, task.own_tags)


def _spoken(cut: Cut, manifest: Any, audio: Path, place: str, own_tags: tuple[str, ...]) -> Iterator[Utterance]:
    try:
        recording = Recording.model_validate(manifest)
    except ValidationError as error:
        raise CorpusError(f"{place}: the recording of {cut.id} ({first_mistake(error)}); {WRITE}") from error
    yield from spoken_in(cut, recording, lambda source: audio, place, own_tags)


def _moved(reading: Reading, before: Path, now: Path) -> Reading:
    """A reading whose recordings were moved with their folder."""
    utterances = [replace(each, audio=now / each.audio.relative_to(before)) for each in reading.utterances]
    return Reading(utterances, reading.skipped)
