"""Jobs over files on the machines of a cluster that share no disk: files in, files out, all of them through a store.

A job is a named function of a folder with its inputs, an empty folder for its results, and plain options. Its key is
the hash of all of these, and of the versions of the libraries whose numbers depend on theirs. The results lie in the
store under this key, with a list of them that is written last: a job is finished when its list is there, whoever did
it, and a run that was ended does not do it again.

    files/<sha256>                 an input
    jobs/<key>/<place>             a result
    jobs/<key>.json                the list: the SHA-256 of each result, by its place

A machine keeps the inputs that it has fetched, by their hashes, and checks them then. So a model or a graph that all
jobs of a stage read comes to each machine once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lhuc_asr.base.atomic import atomic_folder, sha256_of, write_json
from lhuc_asr.base.cluster import COMPARED, Cluster, function_of_name, name_of_function, versions_here
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.fingerprint import files_below
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
        alone: Places of inputs that no other job has, such as recordings: machines do not keep them.
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
            hashes.update(_hashes(job, hashes.keys()))
            inputs = {place: hashes[path] for place, path in job.inputs.items()}
            function = name_of_function(job.function)
            task = {"versions": versions, "function": function, "options": job.options, "inputs": inputs}
            key = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()
            if store.has(f"jobs/{key}.json"):
                done.append((key, job))
                continue
            for place, sha256 in inputs.items():
                if sha256 not in stored and not store.has(f"files/{sha256}"):
                    store.put(job.inputs[place], f"files/{sha256}")
                stored.add(sha256)
            waiting[key] = job
            yield job.title, task | {"key": key, "store": store.url, "alone": sorted(job.alone)}

    for answer in cluster.run(_run_job, tasks()):
        key = answer.value["key"]
        yield waiting.pop(key), _fetched(store, key, folder / key)
    for key, job in done:
        logger.info("%s: finished before", job.title)
        yield job, _fetched(store, key, folder / key)


def _hashes(job: Job, known: Collection[Path]) -> dict[Path, str]:
    """The hashes of the inputs of a job that are not known yet."""
    try:
        return {path: sha256_of(path) for path in job.inputs.values() if path not in known}
    except OSError as error:
        raise StoreError(
            f"{job.title}: {error.filename} cannot be read any more ({error.strerror}); put it back, and run again: "
            "what is finished stays"
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
        raise StoreError(f"{store.url}: {key} is not what was stored; delete it and run again")


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
        alone = set(task["alone"])
        for place, sha256 in task["inputs"].items():
            path = _inside(inputs, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            if place in alone:
                _fetch_checked(store, f"files/{sha256}", path, sha256)
            else:
                link(_kept(store, sha256), path)
        function_of_name(task["function"])(inputs, results, task["options"])
        places = {path.relative_to(results).as_posix(): path for path in files_below(results)}
        for place, path in places.items():
            store.put(path, f"jobs/{task['key']}/{place}")
        listed = Path(temporary) / LIST
        write_json(listed, {place: sha256_of(path) for place, path in places.items()})
        store.put(listed, f"jobs/{task['key']}.json")
    return {"key": task["key"]}


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
