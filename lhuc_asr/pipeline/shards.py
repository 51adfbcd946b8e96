"""The parts of a split that the machines of a cluster work on: whole speakers, some minutes of speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.cluster import Cluster
from lhuc_asr.base.file_jobs import Job, run_jobs
from lhuc_asr.base.object_store import open_store
from lhuc_asr.base.partial import private_folder
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.extraction import SHARD, STORE, extract_shard, spoken_at
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.store import FeatureStore, gather
from lhuc_asr.pipeline.cluster_config import RayConfig

# Speech in a shard, at least: enough for the start of a process to be cheap, little enough for a lost one to be.
SHARD_SECONDS = 600.0


def shards_of(utterances: Sequence[Utterance], seconds: float) -> Iterator[list[Utterance]]:
    """Utterances in parts of at least some seconds, each with all utterances of its speakers; the last may be shorter.

    Args:
        utterances: The utterances; their speakers come in the order of their first utterances.
        seconds: Least length of a part.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    shard: list[Utterance] = []
    for theirs in by_speaker.values():
        shard += theirs
        if sum(utterance.seconds for utterance in shard) >= seconds:
            yield shard
            shard = []
    if shard:
        yield shard


def extract_on_cluster(
    settings: RayConfig,
    folder: Path,
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    speeds: Sequence[float],
    *,
    by_environment: bool,
) -> FeatureStore:
    """``extract`` on the machines of a cluster: the same store, to the bit.

    Args:
        settings: The cluster.
        folder: Folder of the store.
        utterances: Utterances of the split.
        config: Kind of features.
        speeds: As of ``extract``.
        by_environment: As of ``extract``.

    Raises:
        ClusterError, StoreError: The cluster or its store cannot be reached, or failed.
        AudioError, FeatureError, CorpusError: As from ``extract``.
    """
    options = {"features": config.model_dump(mode="json"), "speeds": list(speeds), "by_environment": by_environment}
    order = [spoken_at(speed, utterance.id) for speed in speeds for utterance in utterances]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with private_folder(folder.parent) as temporary, Cluster(settings.address) as cluster:

        def jobs() -> Iterator[Job]:
            for number, shard in enumerate(shards_of(utterances, SHARD_SECONDS)):
                home = temporary / str(number)
                recordings = sorted({utterance.audio for utterance in shard})
                places = {path: f"recordings/{n}{path.suffix}" for n, path in enumerate(recordings)}
                moved = [replace(utterance, audio=home / places[utterance.audio]) for utterance in shard]
                write_manifest(home / SHARD, moved)
                inputs = {SHARD: home / SHARD} | {place: path for path, place in places.items()}
                yield Job(f"features of {folder.name}, part {number + 1}", extract_shard, options, inputs)

        count = sum(1 for _ in shards_of(utterances, SHARD_SECONDS))
        made = run_jobs(cluster, open_store(settings.store), jobs(), temporary / "results")
        stores = [FeatureStore(results / STORE) for _, results in progress(made, f"features of {folder.name}", count)]
        return gather(folder, stores, order)
