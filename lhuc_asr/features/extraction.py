"""Extraction of features: from the recordings of a split to its feature store, in parallel processes.

The imports are light: the processes do not load torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.resampling import change_speed
from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.executor import Executor
from lhuc_asr.base.runlog import progress
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.features.store import FeatureStore, write_store

# Places in the folders of a job that extracts: the manifest, and the store.
PART, STORE = "corpus/part.jsonl", "store"


@dataclass(frozen=True)
class _Task:
    utterance: Utterance
    config: FeatureConfig
    speed: float


def extract(
    folder: Path,
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    processes: int,
    speeds: Sequence[float] = (1.0,),
    *,
    by_environment: bool = False,
) -> FeatureStore:
    """Write the features of utterances to a store, normalised for each speaker.

    Args:
        folder: Folder of the store.
        utterances: Utterances of the split.
        config: Kind of features.
        processes: Number of processes; the features do not depend on it.
        speeds: Speeds at which each utterance is used. At another speed than 1 the utterance is called
            ``sp<speed>-<id>``, of the speaker ``sp<speed>-<speaker>`` (Ko et al. 2015).
        by_environment: Whether a speaker's features are normalised in each environment separately.

    Returns:
        The store.

    Raises:
        AudioError: A recording cannot be read.
        FeatureError: A recording has fewer samples than one window.
        CorpusError: An utterance has no environment, and features are normalised in each.
    """
    if by_environment and (nowhere := next((each for each in utterances if not each.environment), None)):
        raise CorpusError(
            f"utterance {nowhere.id}: it has no environment to be normalised in; name the environment of each "
            "utterance in the corpus, or leave out normalised_by: environment"
        )
    tasks = [_Task(utterance, config, speed) for speed in speeds for utterance in utterances]
    environments = {spoken_at(task.speed, task.utterance.id): task.utterance.environment for task in tasks}
    items = _named(tasks, processes)
    return write_store(folder, items, config.dimension, environments=environments if by_environment else None)


def extract_part(inputs: Path, results: Path, options: Mapping[str, Any]) -> None:
    """``extract`` as a job over files: of the utterances in a manifest, to a store in the folder of results.

    Args:
        inputs: Folder of the manifest, at ``PART``, and of its recordings.
        results: Folder for the store, which becomes ``STORE``.
        options: ``features``, ``speeds`` and ``by_environment``.

    Raises:
        AudioError, FeatureError, CorpusError: As from ``extract``.
    """
    config = parse_config(FeatureConfig, options["features"], "features")
    utterances, apart = read_manifest(inputs / PART), options["by_environment"]
    extract(results / STORE, utterances, config, 1, options["speeds"], by_environment=apart)


def spoken_at(speed: float, name: str) -> str:
    """Name of an utterance or a speaker at another speed.

    Example:
        >>> spoken_at(0.9, "alice"), spoken_at(1.0, "alice")
        ('sp0.9-alice', 'alice')
    """
    return name if speed == 1.0 else f"sp{speed:g}-{name}"


def _named(tasks: Sequence[_Task], processes: int) -> Iterator[tuple[str, str, np.ndarray]]:
    with Executor(processes) as executor:
        features: Iterable[np.ndarray] = executor.map(_compute, tasks)
        for task, values in zip(tasks, progress(features, "features", len(tasks)), strict=True):
            yield spoken_at(task.speed, task.utterance.id), spoken_at(task.speed, task.utterance.speaker), values


def _compute(task: _Task) -> np.ndarray:
    samples = read_audio(task.utterance, task.config.sample_rate)
    return compute_features(change_speed(samples, task.speed), task.config)
