"""The stages that write training frames in shards, for networks that are trained from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import sha256_of, write_json_lines
from lhuc_asr.base.object_store import ObjectStore
from lhuc_asr.base.runlog import progress
from lhuc_asr.base.shar import CUTS, ShardWriter, array_bytes
from lhuc_asr.base.stages import Stages
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.corpus.splits import TRAIN
from lhuc_asr.features.extraction import spoken_at
from lhuc_asr.features.store import StoredUtterance, blocks_of
from lhuc_asr.nnet.frame_shards import FEATURES, PDFS, FrameShard, ShardedFrames, read_index
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.pipeline.cluster_config import ShardsConfig
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.pass_config import Rung

# A stage opens its store when it begins; where it is, no result depends on.
OpenStore = Callable[[], ObjectStore]
# In a placeholder of Shar, for what its tar file has.
IN_SHARD = {"storage_type": "shar", "storage_path": "", "storage_key": ""}


@dataclass(frozen=True)
class ShardOptions:
    """Everything that shards depend on.

    Attributes:
        minutes: Speech in a shard, at least.
        seed: Seed of which utterances are together.
        speeds: Speeds of the recordings.
        sample_rate: Sample rate of the features' recordings, hertz.
        features: The rung whose features they are; None for the networks' own.
    """

    minutes: float
    seed: int
    speeds: tuple[float, ...]
    sample_rate: int
    features: Rung | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, shards: ShardsConfig, kind: Rung | None) -> ShardOptions:
        """The options of a recipe whose sample rates are known, for a kind of features."""
        features = config.alignment_features if kind else config.features
        return cls(shards.minutes, config.seed, config.speeds, features.resolved.sample_rate, kind)


def shards_stage_name(kind: Rung | None) -> str:
    """Name of the stage that writes training frames with a kind of features in shards."""
    return f"shards of {kind or 'features'}"


def shards_stage(
    stages: Stages, experiment: Experiment, options: ShardOptions, store: OpenStore, aligned: Aligned
) -> None:
    """Add the stage that writes training frames and their pdfs to a store.

    Args:
        stages: The stages; those of the features and the alignment come before.
        experiment: The experiment.
        options: The shards.
        store: Opens the store that they are written to.
        aligned: The alignment.
    """
    stage = shards_stage_name(options.features)
    stages.run(
        stage,
        partial(_write, experiment, store, aligned.alignment, partial(stages.key, stage)),
        options=options,
        after=[aligned.stage],
        outputs=[experiment.folder.shards(options.features or "")],
    )


def sharded(source: FrameSource, experiment: Experiment, kind: Rung | None, store: ObjectStore) -> ShardedFrames:
    """The training frames as they lie in their shards.

    Raises:
        FeatureError: The file that names the shards is damaged.
    """
    index = experiment.folder.shards(kind or "")
    return ShardedFrames(
        source.features,
        source.targets,
        source.utterances,
        source.context,
        source.vectors,
        store=store,
        index=index,
        shards=read_index(index),
    )


def _write(
    experiment: Experiment, store: OpenStore, alignment: str, stage_key: Callable[[], str], options: ShardOptions
) -> None:
    features, pdfs = experiment.features(TRAIN, options.features or ""), experiment.aligned(alignment, TRAIN)
    # Shards are read one after another, so each is a sample of the corpus.
    order = np.random.default_rng(options.seed).permutation(len(features.utterances)).tolist()
    frames = round(options.minutes * 60 / FRAME_SHIFT_SECONDS)
    blocks = list(blocks_of((features.utterances[number] for number in order), frames))
    spoken = {
        spoken_at(speed, utterance.id): utterance
        for speed in options.speeds
        for utterance in experiment.utterances(TRAIN)
    }
    prefix, place = f"{experiment.name}/{options.features or 'features'}-{stage_key()[:16]}", store()

    def written() -> Iterator[FrameShard]:
        for number, utterances in enumerate(progress(blocks, shards_stage_name(options.features), len(blocks))):
            with TemporaryDirectory() as folder:
                with ShardWriter(Path(folder), number, (FEATURES, PDFS)) as shard:
                    for each in utterances:
                        data = features[each.id], pdfs[each.id]
                        shard.write(*_cut(each, spoken[each.id], options.sample_rate, *data))
                yield _stored(place, prefix, shard, utterances)

    write_json_lines(experiment.folder.shards(options.features or ""), map(asdict, written()))


def _stored(store: ObjectStore, prefix: str, shard: ShardWriter, utterances: Sequence[StoredUtterance]) -> FrameShard:
    """Put the files of a shard into the store."""
    keys = {field: f"{prefix}/{path.name}" for field, path in shard.files.items()}
    for field, path in shard.files.items():
        store.put(path, keys[field])
    hashes = {field: sha256_of(path) for field, path in shard.files.items() if field != CUTS}
    return FrameShard(tuple(each.id for each in utterances), {field: keys[field] for field in hashes}, hashes)


def _cut(
    stored: StoredUtterance, spoken: Utterance, sample_rate: int, features: np.ndarray, pdfs: np.ndarray
) -> tuple[dict[str, Any], dict[str, tuple[str, bytes, dict[str, Any]]]]:
    """A cut of Lhotse and its data, for ``ShardWriter.write``."""
    span = {"start": 0, "duration": round(stored.frames * FRAME_SHIFT_SECONDS, 2)}
    name = {"recording_id": stored.id, "channel": 0}
    matrix = {
        "type": "lhuc_asr",
        "num_frames": stored.frames,
        "num_features": features.shape[1],
        "frame_shift": FRAME_SHIFT_SECONDS,
        "sampling_rate": sample_rate,
        **span,
        **IN_SHARD,
        "recording_id": stored.id,
        "channels": 0,
    }
    array = {
        "array": {**IN_SHARD, "shape": [stored.frames]},
        "temporal_dim": 0,
        "frame_shift": FRAME_SHIFT_SECONDS,
        "start": 0,
    }
    said = {"id": stored.id, **name, **span, "text": spoken.text, "speaker": stored.speaker}
    cut = {"id": stored.id, **span, "channel": 0, "supervisions": [said], FEATURES: matrix, "custom": {PDFS: array}}
    data = {FEATURES: (".npy", array_bytes(features), matrix), PDFS: (".npy", array_bytes(pdfs), array)}
    return {**cut, "type": "MonoCut"}, data
