"""Jobs over files on the machines of a cluster that share no disk: files in, files out, all of them through a store.

A job is a named function of a folder with its inputs, an empty folder for its results, and plain options. Its key is
the hash of all of these, and of the versions of the libraries whose numbers depend on theirs. The results lie in the
store under this key, with a list of them that is written last: a job is finished when its list is there, whoever did
it, and a run that was ended does not do it again.

    files/<sha256>                 an input that several jobs have
    jobs/<key>.tar                 the inputs that no other job has, by their places
    jobs/<key>/<place>             a result
    jobs/<key>.json                the list: the SHA-256 of each result, by its place

A machine keeps the inputs of several jobs that it has fetched, by their hashes, and checks them then. So a model or a
graph that all jobs of a stage read comes to each machine once. The recordings of a job, which are hundreds of small
files, are one object of the store: a request takes it tens of milliseconds, however small the object is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lhuc_asr.base.atomic import atomic_folder, sha256_of, write_json
from lhuc_asr.base.cluster import COMPARED, Cluster, function_of_name, name_of_function, versions_here
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.base.foreign import HOST, reason_of
from lhuc_asr.base.hashed_folder import is_inside
from lhuc_asr.base.object_store import ObjectStore, StoreError, open_store

logger = logging.getLogger(__name__)

# What a job's function is given: the folder of its inputs, that of its results, and its options.
JobFunction = Callable[[Path, Path, Any], None]
# Name of the folder, in that of temporary files, in which a machine keeps inputs.
KEPT_FOLDER = "lhuc_asr-kept"
# Name of a list of results while it is read and written.
LIST = "list.json"
_LISTS: DocumentKind[dict[str, str]] = DocumentKind(
    cast(Any, dict[str, str]), "the list of a job's results", StoreError, "delete it from the store and run again"
)


@dataclass(frozen=True)
class Job:
    """A job over files.

    Attributes:
        title: What messages call it.
        function: A function at the top of a module of this package.
        options: Plain values that it is given.
        inputs: Its inputs, by their places in the folder of inputs.
        alone: Places of inputs that no other job has, such as recordings: they are stored together, and machines do
            not keep them.
    """

    title: str
    function: JobFunction
    options: Mapping[str, Any]
    inputs: Mapping[str, Path]
    alone: frozenset[str] = frozenset()


def run_jobs(cluster: Cluster, store: ObjectStore, jobs: Iterable[Job], folder: Path) -> Iterator[tuple[Job, Path]]:
    """Run jobs, or find them finished; each comes with the folder of its results as soon as it has them.

    Args:
        cluster: The cluster.
        store: A store that all machines reach by the same URL.
        jobs: The jobs; their inputs are files of this machine, and are stored when the next job is asked for.
        folder: A folder for the results, which are read from there and may be deleted then.

    Raises:
        StoreError: The store cannot be reached, or what is in it was changed.
        ClusterError, LhucError: As from ``Cluster.run``.
    """
    stored: set[str] = set()
    versions = versions_here(COMPARED)
    hashes: dict[Path, str] = {}  # many jobs have the same model and graph
    waiting: dict[str, Job] = {}
    done: list[tuple[str, Job]] = []

    def tasks() -> Iterator[tuple[str, Mapping[str, Any]]]:
        for job in jobs:
            with _readable(job):
                hashes.update({path: sha256_of(path) for path in job.inputs.values() if path not in hashes})
            inputs = {place: hashes[path] for place, path in job.inputs.items()}
            function = name_of_function(job.function)
            task = {"versions": versions, "function": function, "options": job.options, "inputs": inputs}
            key = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()
            if store.has(f"jobs/{key}.json"):
                done.append((key, job))
                continue
            for place, sha256 in inputs.items():
                if place not in job.alone and sha256 not in stored:
                    if not store.has(f"files/{sha256}"):
                        store.put(job.inputs[place], f"files/{sha256}")
                    stored.add(sha256)
            if job.alone and not store.has(_packed(key)):
                _put_packed(store, job, key, folder)
            waiting[key] = job
            yield job.title, task | {"key": key, "store": store.url, "alone": sorted(job.alone)}

    for answer in cluster.run(_run_job, tasks()):
        key = answer.value["key"]
        yield waiting.pop(key), _fetched(store, key, folder / key)
    for key, job in done:
        logger.info("%s: finished before", job.title)
        yield job, _fetched(store, key, folder / key)


def _packed(key: str) -> str:
    """Key of the inputs that a job alone has."""
    return f"jobs/{key}.tar"


def _put_packed(store: ObjectStore, job: Job, key: str, folder: Path) -> None:
    """Store the inputs that a job alone has; ``folder`` has room for the file that is stored, until it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tar") as file:
        with _readable(job), tarfile.open(fileobj=file, mode="w", dereference=True) as tar:
            for place in sorted(job.alone):
                tar.add(job.inputs[place], place, recursive=False)
        file.flush()
        store.put(Path(file.name), _packed(key))


@contextmanager
def _readable(job: Job) -> Iterator[None]:
    """A block that reads inputs of a job.

    Raises:
        StoreError: One cannot be read.
    """
    try:
        yield
    except OSError as error:
        if error.errno in HOST:
            raise
        raise StoreError(
            f"{job.title}: {error.filename or 'an input'} cannot be read any more ({reason_of(error)}); put it back, "
            "and run again: what is finished stays"
        ) from error


def _fetched(store: ObjectStore, key: str, folder: Path) -> Path:
    """The results of a finished job, fetched into a folder and checked."""
    with atomic_folder(folder) as temporary:
        store.fetch(f"jobs/{key}.json", temporary / LIST)
        places = _LISTS.read(temporary / LIST)
        (temporary / LIST).unlink()
        for place, sha256 in places.items():
            _fetch_checked(store, f"jobs/{key}/{place}", _inside(temporary, place), sha256)
    return folder


def _fetch_checked(store: ObjectStore, key: str, path: Path, sha256: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    store.fetch(key, path)
    if sha256_of(path) != sha256:
        path.unlink()
        raise _changed(store, key)


def _changed(store: ObjectStore, key: str) -> StoreError:
    return StoreError(f"{store.url}: {key} is not what was stored; delete it and run again")


def _inside(folder: Path, place: str) -> Path:
    if not is_inside(place):
        raise StoreError(f"{place!r}: leads out of the folder of a job; is the store yours?")
    return folder / place


# On a machine of the cluster.


def _run_job(task: Mapping[str, Any]) -> dict[str, str]:
    """Fetch the inputs of a job, run it, and store its results."""
    store = open_store(task["store"])
    with tempfile.TemporaryDirectory(prefix="lhuc_asr-job-") as temporary:
        inputs, results = Path(temporary) / "inputs", Path(temporary) / "results"
        for each in (inputs, results):
            each.mkdir()
        alone = {place: task["inputs"][place] for place in task["alone"]}
        for place, sha256 in task["inputs"].items():
            if place not in alone:
                path = _inside(inputs, place)
                path.parent.mkdir(parents=True, exist_ok=True)
                link(_kept(store, sha256), path)
        if alone:
            _fetch_packed(store, task["key"], alone, inputs)
        function_of_name(task["function"])(inputs, results, task["options"])
        places = {path.relative_to(results).as_posix(): path for path in files_below(results)}
        for place, path in places.items():
            store.put(path, f"jobs/{task['key']}/{place}")
        listed = Path(temporary) / LIST
        write_json(listed, {place: sha256_of(path) for place, path in places.items()})
        store.put(listed, f"jobs/{task['key']}.json")
    return {"key": task["key"]}


def _fetch_packed(store: ObjectStore, key: str, sha256: Mapping[str, str], folder: Path) -> None:
    """Fetch the inputs that a job alone has into a folder; nothing else that the object may hold.

    Args:
        store: The store.
        key: Key of the job.
        sha256: Their hashes, by their places.
        folder: The folder.

    Raises:
        StoreError: They are missing, or not what was stored.
    """
    with store.reading(_packed(key)) as path:
        try:
            with tarfile.open(path, "r:") as tar:
                for place, expected in sha256.items():
                    target = _inside(folder, place)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _unpack(tar, place, target)
                    if sha256_of(target) != expected:
                        raise _changed(store, _packed(key))
        except (tarfile.TarError, KeyError) as error:
            raise _changed(store, _packed(key)) from error


def _unpack(tar: tarfile.TarFile, place: str, target: Path) -> None:
    source = tar.extractfile(place)
    if source is None:
        raise tarfile.TarError(f"{place} is not a file")
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file)


def _kept(store: ObjectStore, sha256: str) -> Path:
    """An input among those that this machine keeps; it is fetched if it is not there."""
    folder = Path(tempfile.gettempdir()) / f"{KEPT_FOLDER}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():  # a name that anybody could have taken
        raise StoreError(f"{folder}: belongs to somebody else; delete it, or set TMPDIR on this machine")
    path = _inside(folder, sha256)
    if not path.exists():
        _fetch_checked(store, f"files/{sha256}", path, sha256)
        path.chmod(0o400)  # jobs read it under other names
    return path


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
