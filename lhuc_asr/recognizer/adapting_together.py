"""Adaptation to very many speakers on the machines of a Ray cluster, into a folder of archives.

The speakers of each archive (``archive_folder.py``) are cut into banks, and a bank is a job (``base/file_jobs.py``):
the model's files and the recordings go to a machine, and an archive of the bank comes back. A process loads the frozen
network once, for all jobs that it gets. What speakers get does not depend on their company: on processors of one kind,
they are those of ``adapt`` to the bit.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.base.atomic import atomic_folder, write_json
from lhuc_asr.base.cluster import Cluster
from lhuc_asr.base.documents import DocumentKind
from lhuc_asr.base.errors import AudioError, LhucError, OutputError, SpeakerError
from lhuc_asr.base.file_jobs import Job, link, run_jobs
from lhuc_asr.base.object_store import StoreError, open_store
from lhuc_asr.base.outputs import named
from lhuc_asr.base.runlog import progress
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.recognizer.archive_folder import SPEAKERS_A_FILE, archive_name, archives_in, number_of
from lhuc_asr.recognizer.installed import model_folder
from lhuc_asr.recognizer.model_folder import MODEL_JSON, read_model
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.recordings import OnBad, Recording, usable
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus
from lhuc_asr.recognizer.speaker_files import pack
from lhuc_asr.recognizer.transcript import Span

# A bank has speakers with half an hour of speech together, and at most so many. A corpus of less than eight hours is
# cut into about 16 banks, of a minute at least. How many machines there are does not count: banks that are finished
# stay finished on another cluster.
BANK_SECONDS, SHORTEST_BANK_SECONDS, BANKS, BANK_SPEAKERS = 1800.0, 60.0, 16, 256
# Places in the folders of a job.
MODEL, RECORDINGS, ARCHIVE, LEFT_OUT = "model", "recordings", "bank.archive", "left_out.json"
# Folder of the banks in that of the archives, until these are written.
BANKS_FOLDER = "banks"
# Why recordings, and speakers, were left out.
_LEFT_OUT: DocumentKind[dict[str, list[str]]] = DocumentKind(
    cast(Any, dict[str, list[str]]),
    "a job's list of what it left out",
    StoreError,
    "empty the store and run again",
)
# The model that this process loaded last, by the content of its description, and the folder with its files.
_loaded: dict[bytes, tuple[Recognizer, tempfile.TemporaryDirectory[str]]] = {}


@dataclass(frozen=True)
class Machines:
    """Where to work.

    Attributes:
        address: ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT`` of its head.
        store: Where the machines leave files for each other: ``s3://BUCKET/PREFIX``, or a folder that all of them see.
    """

    address: str
    store: str


@dataclass(frozen=True)
class Ways:
    """How to adapt; as for ``Recognizer.adapt_corpus``.

    Attributes:
        channel: Number of the recordings' channel to take, from 1; None for the mean of all.
        vad: Whether a detector of voice activity finds pauses.
        judged: Whether a speaker whom adaptation hurts is kept unadapted.
    """

    channel: int | None = None
    vad: bool = False
    judged: bool = False


def adapt_together(
    model: str | Path,
    corpus: SpeakerCorpus,
    folder: Path,
    machines: Machines,
    ways: Ways = Ways(),
    *,
    overwrite: bool = False,
    on_bad: OnBad = None,
    on_bad_speaker: OnBad = None,
) -> int:
    """Adapt to all speakers of a corpus, on a cluster.

    Args:
        model: The model's folder, or the name of an installed one.
        corpus: The speakers and their recordings; transcripts are not used.
        folder: Folder of the archives; it appears, or is replaced, when all speakers are done.
        machines: The cluster and its store.
        ways: How to adapt.
        overwrite: Whether archives that are in the folder may be replaced.
        on_bad: What happens to recordings that cannot be used; None raises the first problem.
        on_bad_speaker: The same for speakers.

    Returns:
        The number of speakers in the archives.

    Raises:
        ClusterError, StoreError: The cluster or its store cannot be reached, or failed.
        ModelMismatchError: The model needs more of a speaker than amplitudes.
        OutputError: The folder holds something already.
        SpeakerError: An archive would have no speaker.
        LhucError: As from ``Recognizer.adapt_corpus``.
    """
    check_output(folder, overwrite=overwrite)
    place = model_folder(model)
    load(place).check_archive(folder)
    files = _model_files(place)
    speakers = corpus.named_speakers()
    count = max(1, math.ceil(len(speakers) / SPEAKERS_A_FILE))
    banks = list(_banks(speakers, count))
    parts: dict[int, dict[str, Path]] = {number: {} for number in range(count)}
    # Begun before the work, so that a place that cannot be written to is an error now, and not hours later.
    with atomic_folder(folder) as filling, Cluster(machines.address) as cluster:
        jobs = (_job(title, bank, files, asdict(ways)) for title, _, bank in banks)
        made = run_jobs(cluster, open_store(machines.store), jobs, filling / BANKS_FOLDER)
        number_of_bank = {title: number for title, number, _ in banks}
        for job, results in progress(made, "banks of speakers", len(banks)):
            left_out = _LEFT_OUT.read(results / LEFT_OUT)
            _tell(left_out["recordings"], on_bad)
            _tell(left_out["speakers"], on_bad_speaker)
            if (results / ARCHIVE).exists():
                parts[number_of_bank[job.title]][job.title] = results / ARCHIVE
        written = 0
        for number, own in parts.items():
            # In the order of the banks, whichever was ready first.
            ordered = [own[title] for title, _, _ in banks if title in own]
            written += _write(filling / archive_name(number, count), ordered)
        shutil.rmtree(filling / BANKS_FOLDER)
        check_output(folder, overwrite=overwrite)  # again: somebody may have put something there meanwhile
    return written


def check_output(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds something, other than archives that may be replaced.

    Raises:
        OutputError: It does, or cannot be read.
    """
    with named(folder):
        there = sorted(each.name for each in folder.iterdir()) if os.path.lexists(folder) else []
        archives = set(archives_in(folder)) if there else set()
    strangers = [name for name in there if name not in archives]
    if strangers:
        raise OutputError(f"{folder}: holds {strangers[0]}, and the archives would take its place; name a new folder")
    if there and not overwrite:
        raise OutputError(
            f"{folder}: holds archives of speakers already; name another folder, or give --overwrite, which replaces "
            "all speakers in it"
        )


def _banks(
    speakers: Mapping[str, Sequence[Recording]], count: int
) -> Iterator[tuple[str, int, dict[str, Sequence[Recording]]]]:
    """A title, the number of the archive and the speakers of each bank."""
    together = sum(recording.seconds for theirs in speakers.values() for recording in theirs)
    enough = min(BANK_SECONDS, max(SHORTEST_BANK_SECONDS, together / BANKS))
    of_archive: dict[int, list[str]] = {}
    for name in sorted(speakers):
        of_archive.setdefault(number_of(name, count), []).append(name)
    for number, names in sorted(of_archive.items()):
        bank: dict[str, Sequence[Recording]] = {}
        banks = [bank]
        seconds = 0.0
        for name in names:
            own = sum(recording.seconds for recording in speakers[name])
            if bank and (seconds + own > enough or len(bank) == BANK_SPEAKERS):
                bank, seconds = {}, 0.0
                banks.append(bank)
            bank[name] = speakers[name]
            seconds += own
        for part, each in enumerate(banks, start=1):
            yield f"{archive_name(number, count)}, bank {part}", number, each


def _model_files(folder: Path) -> dict[str, Path]:
    """The files of a model, by their places in a job's folder."""
    description, _ = read_model(folder)
    files = [folder / MODEL_JSON, *(description.path(folder, name) for name in description.sha256)]
    return {f"{MODEL}/{path.relative_to(folder).as_posix()}": path for path in files}


def _job(
    title: str, bank: Mapping[str, Sequence[Recording]], model: Mapping[str, Path], options: Mapping[str, Any]
) -> Job:
    paths = dict.fromkeys(recording.path for theirs in bank.values() for recording in theirs)
    places = {path: f"{RECORDINGS}/{number}{path.suffix}" for number, path in enumerate(paths)}
    described = {
        name: [
            {
                "name": each.name,
                "place": places[each.path],
                "part": None if each.part is None else [each.part.start, each.part.end],
                "channel": each.channel,
            }
            for each in theirs
        ]
        for name, theirs in bank.items()
    }
    inputs = {place: path for path, place in places.items()}
    return Job(title, adapt_bank, {**options, "speakers": described}, {**model, **inputs}, alone=frozenset(inputs))


def _tell(messages: Sequence[str], on_bad: OnBad) -> None:
    for message in messages:
        problem = AudioError(message)
        if on_bad is None:
            raise problem
        on_bad(problem)


def _write(path: Path, parts: Sequence[Path]) -> int:
    """Write an archive from those of its banks."""
    if not parts:
        raise SpeakerError(f"{path.name}: none of its speakers can be adapted to; the log has the reason of each")
    return write_archive(path, chain.from_iterable(SpeakerArchive(part).states() for part in parts))


# On a machine of the cluster.


def adapt_bank(inputs: Path, results: Path, options: Mapping[str, Any]) -> None:
    """Adapt to the speakers of a bank, and write an archive of them; a ``JobFunction``."""
    recognizer = _recognizer(inputs / MODEL)
    recordings: list[LhucError] = []
    speakers: list[LhucError] = []
    bank = {name: list(_recordings(inputs, theirs, recordings.append)) for name, theirs in options["speakers"].items()}
    with tempfile.TemporaryDirectory(dir=results) as temporary:
        files = Path(temporary)
        adapted = recognizer.adapt_corpus(
            SpeakerCorpus(bank, {}),
            channel=options["channel"],
            vad=options["vad"],
            judged=options["judged"],
            on_bad=recordings.append,
            on_bad_speaker=speakers.append,
        )
        for number, each in enumerate(adapted):
            with usable(f"speaker {each.speaker.name!r}", speakers.append):
                each.speaker.save(files / f"{number:05d}.safetensors")
        if any(files.iterdir()):
            pack(results / ARCHIVE, [files])
    write_json(results / LEFT_OUT, {"recordings": list(map(str, recordings)), "speakers": list(map(str, speakers))})


def _recordings(inputs: Path, described: Sequence[Mapping[str, Any]], on_bad: OnBad) -> Iterator[Recording]:
    headers: dict[Path, AudioInfo] = {}  # speakers' turns share a recording
    for each in described:
        path, part = inputs / each["place"], each["part"]
        with usable(each["name"], on_bad, path):
            if path not in headers:
                headers[path] = probe(path)
            span = None if part is None else Span(*part)
            yield Recording(each["name"], path, headers[path], each["name"], span, each["channel"])


def _recognizer(folder: Path) -> Recognizer:
    """The model in a job's folder; a process of the cluster loads it once for all of its jobs."""
    described = (folder / MODEL_JSON).read_bytes()
    if described not in _loaded:
        # The job's folder goes with the job, and a model reads some of its files when they are needed.
        kept = tempfile.TemporaryDirectory(prefix="lhuc_asr-model-")
        shutil.copytree(folder, kept.name, copy_function=lambda a, b: link(Path(a), Path(b)), dirs_exist_ok=True)
        recognizer = load(kept.name)
        _loaded.clear()
        _loaded[described] = recognizer, kept
    return _loaded[described][0]
