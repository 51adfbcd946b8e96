"""The stage that learns i-vectors: the space of voices of a network, and its training utterances' vectors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.stages import Stages
from lhuc_asr.base.tensors import check_tensors, load_tensors, save_tensors
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import FeatureStore, StoredUtterance, blocks_of
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.ivector import VoiceSpace, VoiceStatistics, train_space
from lhuc_asr.hmm.training import BLOCK_FRAMES, speech_weights
from lhuc_asr.hmm.ubm import train_background
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.network_config import NetworkConfig, VoicesConfig
from lhuc_asr.pipeline.pass_config import Rung

# In a network's folder: the space, and the vectors of the utterances of a split.
SPACE_FILE = "voices.safetensors"
REMEDY = "delete it and run again"


@dataclass(frozen=True)
class VoicesOptions:
    """Everything that a network's i-vectors depend on, apart from features and alignment.

    Attributes:
        voices: The recipe's options of the network's vectors.
        features: The rung whose features the network takes; None for the networks' own.
        seed: Seed of the background model, of the space, and of the utterances that share a vector.
    """

    voices: VoicesConfig
    features: Rung | None
    seed: int

    @classmethod
    def of(cls, config: ExperimentConfig, name: str) -> VoicesOptions:
        """The options of a recipe's network that takes vectors.

        Raises:
            ValueError: The network does not.
        """
        described = config.networks[name]
        if not isinstance(described, NetworkConfig) or described.ivector is None:
            raise ValueError(f"{name}: the network does not take vectors of speakers")
        return cls(described.ivector, described.features, config.seed)


def voices_stage_name(name: str) -> str:
    """Name of the stage that learns the i-vectors of a network."""
    return f"voices of {name}"


def voices_stage(stages: Stages, experiment: Experiment, name: str, options: VoicesOptions, aligned: Aligned) -> None:
    """Add the stage that learns the i-vectors of a network on an alignment."""
    folder = experiment.folder.network(name).parent
    stages.run(
        voices_stage_name(name),
        partial(_learn_voices, experiment, folder, aligned.alignment),
        options=options,
        after=[aligned.stage],
        outputs=[folder / SPACE_FILE, *(_vectors_file(folder, split) for split in (TRAIN, HELDOUT))],
    )


def read_voices(experiment: Experiment, name: str, features: int) -> VoiceSpace:
    """The space of voices of a network that takes ``features`` features per frame."""
    return VoiceSpace.load(experiment.folder.network(name).parent / SPACE_FILE, features)


def read_vectors(experiment: Experiment, name: str, split: str, store: FeatureStore) -> dict[str, np.ndarray]:
    """The vector of each utterance of a split, by its id, shapes (R,), float32.

    Raises:
        CheckpointError: The file is missing or damaged, or of other utterances.
    """
    path = _vectors_file(experiment.folder.network(name).parent, split)
    tensors, _ = load_tensors(path, REMEDY)
    check_tensors(path, tensors, {"vectors": (len(store.utterances), None)}, REMEDY)
    return {each.id: vector for each, vector in zip(store.utterances, tensors["vectors"].numpy(), strict=True)}


def _vectors_file(folder: Path, split: str) -> Path:
    return folder / f"vectors_{split}.safetensors"


def _learn_voices(experiment: Experiment, folder: Path, alignment: str, options: VoicesOptions) -> None:
    """Learn the space from the training speakers, each speed a speaker of its own, and write all vectors.

    Frames of silence, and those without an alignment, take no part.
    """
    speech = {split: _Speech.of(experiment, alignment, split, options) for split in (TRAIN, HELDOUT)}
    heard = speech[TRAIN]
    background = train_background(heard.blocks, options.voices.background, options.seed)
    nothing = VoiceSpace.random(background, options.voices.space, options.seed)
    statistics = {split: each.statistics(nothing) for split, each in speech.items()}
    speakers = [_summed(statistics[TRAIN], rows) for rows in heard.speakers()]
    space = train_space(background, VoiceStatistics.stacked(speakers), options.voices.space, options.seed)
    for split, each in speech.items():
        vectors = torch.zeros(len(each.store.utterances), space.dimension)
        for rows in each.groups(options.voices.utterances, options.seed):
            vectors[rows] = space.vectors(_summed(statistics[split], rows))
        save_tensors(_vectors_file(folder, split), {"vectors": vectors}, {})
    space.save(folder / SPACE_FILE)


def _summed(statistics: VoiceStatistics, rows: Sequence[int]) -> VoiceStatistics:
    """The sum of the statistics of some utterances, as those of one speaker."""
    chosen = list(rows)
    return VoiceStatistics(statistics.count[chosen].sum(0, keepdim=True), statistics.first[chosen].sum(0, keepdim=True))


@dataclass(frozen=True)
class _Speech:
    """The frames of a split that are speech."""

    store: FeatureStore
    aligned: Alignment
    silence: np.ndarray

    @classmethod
    def of(cls, experiment: Experiment, alignment: str, split: str, options: VoicesOptions) -> _Speech:
        store = experiment.features(split, options.features or "")
        return cls(store, experiment.aligned(alignment, split), experiment.topology_of(alignment).silence_pdfs)

    def blocks(self) -> Iterator[torch.Tensor]:
        """The frames, in blocks (N, D)."""
        for block in blocks_of(self.store.utterances, BLOCK_FRAMES):
            frames = [self._frames(utterance) for utterance in block]
            yield torch.cat(frames)

    def statistics(self, space: VoiceSpace) -> VoiceStatistics:
        """Sums over the frames of each utterance."""
        return VoiceStatistics.stacked([space.statistics(self._frames(each)) for each in self.store.utterances])

    def speakers(self) -> Iterator[list[int]]:
        """Numbers of the utterances of each speaker."""
        number = {utterance.id: number for number, utterance in enumerate(self.store.utterances)}
        for theirs in self.store.speakers.values():
            yield [number[utterance.id] for utterance in theirs]

    def groups(self, size: int | None, seed: int) -> Iterator[list[int]]:
        """Numbers of the utterances that share a vector."""
        shuffled = random.Random(seed)
        for rows in self.speakers():
            shuffled.shuffle(rows)
            step = size or len(rows)
            yield from (rows[first : first + step] for first in range(0, len(rows), step))

    def _frames(self, utterance: StoredUtterance) -> torch.Tensor:
        pdfs = torch.from_numpy(np.array(self.aligned[utterance.id])).long()
        speech = (pdfs >= 0) & (speech_weights(pdfs, self.silence) > 0)
        return torch.from_numpy(np.array(self.store.array[utterance.rows]))[speech]
