"""Features of a split from the machines of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.file_jobs import Job
from lhuc_asr.features.extraction import PART, STORE, extract_part, spoken_at
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.store import FeatureStore, gather
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.parts import part_results


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

    def job(title: str, home: Path, part: Sequence[Utterance]) -> Job:
        recordings = sorted({utterance.audio for utterance in part})
        places = {path: f"recordings/{number}{path.suffix}" for number, path in enumerate(recordings)}
        write_manifest(home / PART, [replace(each, audio=home / places[each.audio]) for each in part])
        inputs = {PART: home / PART} | {place: path for path, place in places.items()}
        return Job(title, extract_part, options, inputs, alone=frozenset(inputs))

    with part_results(settings, folder.parent, f"features of {folder.name}", utterances, job) as results:
        return gather(folder, [FeatureStore(each / STORE) for _, each in results], order)
