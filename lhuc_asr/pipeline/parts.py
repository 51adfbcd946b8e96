"""The parts of a split that the machines of a cluster work on: whole speakers, some minutes of speech."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.cluster import Cluster
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.file_jobs import Job, run_jobs
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.partial import private_folder
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.experiment import AlignedExperiment

# Speech in a part, at least: ten minutes are enough for the start of a job to be cheap, and little enough for a lost
# one to be. A split with less than 160 minutes is cut into at most 16 parts, of a minute at least. How many machines
# there are does not count: jobs that are finished stay finished on another cluster.
PART_SECONDS, SHORTEST_PART_SECONDS, PARTS = 600.0, 60.0, 16
MOST_PDFS = 2**31 - 1

# A title, an empty folder for the job's inputs, and the part's utterances -> the job.
MakeJob = Callable[[str, Path, Sequence[Utterance]], Job]


def parts_of(utterances: Sequence[Utterance], seconds: float) -> Iterator[list[Utterance]]:
    """Utterances in parts of at least some seconds, each with all utterances of its speakers; the last may be shorter.

    Args:
        utterances: The utterances; their speakers come in the order of their first utterances.
        seconds: Least length of a part.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    part: list[Utterance] = []
    for theirs in by_speaker.values():
        part += theirs
        if sum(utterance.seconds for utterance in part) >= seconds:
            yield part
            part = []
    if part:
        yield part


def part_seconds(utterances: Sequence[Utterance]) -> float:
    """Least length of the parts of a split.

    Args:
        utterances: All utterances of the split.
    """
    together = sum(utterance.seconds for utterance in utterances)
    return min(PART_SECONDS, max(SHORTEST_PART_SECONDS, together / PARTS))


@contextmanager
def connected(settings: RayConfig | None) -> Iterator[None]:
    """A connection to a cluster for the stages of an experiment; nothing for None.

    Raises:
        ClusterError, StoreError: The cluster or its store cannot be reached.
    """
    if settings is None:
        yield
        return
    open_store(settings.store).has("reached")  # whatever it says
    with Cluster(settings.address):
        yield


@contextmanager
def part_results(
    settings: RayConfig, folder: Path, title: str, utterances: Sequence[Utterance], make_job: MakeJob
) -> Iterator[Iterator[tuple[Sequence[Utterance], Path]]]:
    """Parts of some utterances, each with the folder of the results of its job, in the order in which these end.

    Args:
        settings: The cluster.
        folder: Folder for temporary files, made if it is missing.
        title: What messages call the work.
        utterances: The utterances.
        make_job: Makes the job of a part. Its inputs may be deleted when the next one's are made.

    Raises:
        ClusterError, StoreError: The cluster or its store cannot be reached, or failed.
        LhucError: What a job raised.
    """
    seconds = part_seconds(utterances)
    parts = {f"{title}, part {n}": part for n, part in enumerate(parts_of(utterances, seconds), start=1)}
    folder.mkdir(parents=True, exist_ok=True)
    with private_folder(folder) as temporary, Cluster(settings.address) as cluster:

        def jobs() -> Iterator[Job]:
            for name, part in parts.items():
                home = temporary / name
                home.mkdir()
                yield make_job(name, home, part)
                shutil.rmtree(home)

        made = run_jobs(cluster, open_store(settings.store), jobs(), temporary / "results")
        yield ((parts[job.title], results) for job, results in progress(made, title, len(parts)))


def places_in(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files below a folder, by their places in it."""
    return {path.relative_to(folder).as_posix(): path for path in files}


def plain_experiment(experiment: AlignedExperiment) -> dict[str, Any]:
    """The attributes of an experiment that do not depend on the machine, as plain values for a job."""
    return {name: getattr(experiment, name) for name in ("last_rung", "graphs", "alignment", "separate_tuning_lm")}


def experiment_of(inputs: Path, options: Mapping[str, Any]) -> AlignedExperiment:
    """The experiment of a job: its folder of inputs, and what ``plain_experiment`` gave it; for one processor."""
    return AlignedExperiment(
        folder=ExperimentFolder(inputs),
        name=inputs.name,
        processes=1,
        device="cpu",
        last_rung=options["last_rung"],
        graphs=options["graphs"],
        alignment=options["alignment"],
        separate_tuning_lm=options["separate_tuning_lm"],
    )


def pdfs_in(path: Path, names: Sequence[str], features: FeatureTable) -> Iterator[tuple[str, np.ndarray]]:
    """The pdfs (T,) of each utterance in an alignment that a job wrote.

    Args:
        path: The alignment.
        names: Ids of its utterances, in its order.
        features: Features of the whole split.
    """
    stored, first = [], 0
    for name in names:
        stored.append(replace(features.by_id[name], first=first))
        first += stored[-1].frames
    # What reads the pdfs with a model checks that they are the model's.
    aligned = Alignment(path, FeatureTable(stored, np.empty((first, 0), np.float32)), MOST_PDFS)
    return ((name, aligned[name]) for name in names)
