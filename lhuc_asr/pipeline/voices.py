"""The stage that learns i-vectors: the i-vector extractor of a network, and its training utterances' vectors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.base.errors import CheckpointError, FeatureError
from lhuc_asr.base.stages import Stages
from lhuc_asr.base.tensors import check_tensors, load_tensors, save_tensors
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import FeatureStore, StoredUtterance, blocks_of
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.ivector import IvectorExtractor, VoiceStatistics, train_extractor
from lhuc_asr.hmm.training import BLOCK_FRAMES, speech_weights
from lhuc_asr.hmm.ubm import train_background
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.network_config import NetworkConfig, VoicesConfig
from lhuc_asr.pipeline.pass_config import Rung

# In a network's folder, beside the vectors of the utterances of a split: the extractor.
EXTRACTOR_FILE = "extractor.safetensors"
REMEDY = "delete it and run again"


@dataclass(frozen=True)
class VoicesOptions:
    """Everything that a network's i-vectors depend on, apart from features and alignment.

    Attributes:
        voices: The recipe's options of the network's vectors.
        features: The rung whose features the network takes; None for the networks' own.
        seed: Seed of the background model, of the extractor, of the utterances that share a vector, and of the dropout.
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
        outputs=[folder / EXTRACTOR_FILE, *(_vectors_file(folder, split) for split in (TRAIN, HELDOUT))],
    )


def read_voices(experiment: Experiment, name: str, features: int) -> IvectorExtractor:
    """The i-vector extractor of a network that takes ``features`` features per frame."""
    return IvectorExtractor.load(experiment.folder.network(name).parent / EXTRACTOR_FILE, features)


def read_vectors(
    experiment: Experiment, name: str, split: str, store: FeatureStore, *, dropped: bool = False
) -> dict[str, np.ndarray]:
    """The vector of each utterance of a split, by its id, shapes (R,), float32.

    Args:
        experiment: The experiment.
        name: Name of the network that the vectors were learned for.
        split: The split.
        store: The features of the split that the network takes.
        dropped: Whether the utterances that ``VoicesConfig.dropout`` chose have the vector of nobody: for the training
            of a network.

    Raises:
        CheckpointError: A file is missing or damaged, or of other utterances, or the vectors are of another extractor.
    """
    path = _vectors_file(experiment.folder.network(name).parent, split)
    tensors, description = load_tensors(path, REMEDY)
    count, dimension = len(store.utterances), read_voices(experiment, name, store.dimension).dimension
    check_tensors(path, tensors, {"vectors": (count, dimension), "dropped": (count,)}, REMEDY)
    ids = [each.id for each in store.utterances]
    if description.get("utterances") != ids:
        raise CheckpointError(f"{path}: vectors of other utterances than those of {store.folder}; {REMEDY}")
    vectors = tensors["vectors"].float()
    if dropped:
        vectors = vectors.masked_fill(tensors["dropped"].unsqueeze(1) != 0, 0.0)
    return dict(zip(ids, vectors.numpy(), strict=True))


def _vectors_file(folder: Path, split: str) -> Path:
    return folder / f"vectors_{split}.safetensors"


def _learn_voices(experiment: Experiment, folder: Path, alignment: str, options: VoicesOptions) -> None:
    """Learn the extractor from the training speakers, each speed a speaker of its own, and write all vectors.

    Frames of silence, and those without an alignment, take no part. The speech is read twice, for the extractor and for
    the vectors: of statistics, K x D float64 numbers each, memory has one of each training speaker, and later one of
    each vector of one speaker, however many utterances there are.
    """
    voices = options.voices
    heard = {split: _Speech.of(experiment, alignment, split, options) for split in (TRAIN, HELDOUT)}
    training = heard[TRAIN]
    background = train_background(training.blocks, voices.background, options.seed)
    statistics = training.statistics(background, [rows for (rows,) in training.groups(None, options.seed)])
    extractor = train_extractor(background, statistics, voices.extractor, options.seed)
    for split, speech in heard.items():
        groups = speech.groups(voices.utterances, options.seed)
        vectors = _vectors(extractor, speech, groups)
        dropped = torch.zeros(len(vectors))
        if split == TRAIN:
            dropped[_drop([rows for theirs in groups for rows in theirs], voices.dropout, options.seed)] = 1.0
        ids = [each.id for each in speech.store.utterances]
        save_tensors(_vectors_file(folder, split), {"vectors": vectors, "dropped": dropped}, {"utterances": ids})
    extractor.save(folder / EXTRACTOR_FILE)


def _vectors(extractor: IvectorExtractor, speech: _Speech, groups: Sequence[Sequence[list[int]]]) -> torch.Tensor:
    """The vector of each utterance, shape (U, R), float32; those of a group have one.

    Raises:
        FeatureError: A vector is not finite.
    """
    vectors = torch.zeros(len(speech.store.utterances), extractor.dimension)
    for theirs in groups:
        for rows, vector in zip(
            theirs, extractor.vectors(speech.statistics(extractor.background, theirs)), strict=True
        ):
            if not bool(vector.isfinite().all()):
                names = ", ".join(speech.store.utterances[row].id for row in rows[:8])
                raise FeatureError(f"i-vectors: the features of {names} are too large; compute them again")
            vectors[rows] = vector
    return vectors


def _drop(groups: Sequence[list[int]], share: float, seed: int) -> list[int]:
    """Numbers of the utterances of a share of the groups, chosen by the seed."""
    return [row for rows in random.Random(seed).sample(groups, round(share * len(groups))) for row in rows]


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
            yield torch.cat([self._frames(utterance) for utterance in block])

    def statistics(self, background: DiagonalGmm, groups: Sequence[Sequence[int]]) -> VoiceStatistics:
        """The statistics of groups of utterances, which are given by number."""
        utterances = self.store.utterances
        return VoiceStatistics.of_groups(
            background, [(self._frames(utterances[row]) for row in rows) for rows in groups]
        )

    def groups(self, size: int | None, seed: int) -> list[list[list[int]]]:
        """Numbers of the utterances that share a vector, speaker by speaker.

        Args:
            size: Number of utterances that share one; None for all of a speaker.
            seed: Seed of which of a speaker's utterances these are.
        """
        number = {utterance.id: number for number, utterance in enumerate(self.store.utterances)}
        shuffled, groups = random.Random(seed), []
        for theirs in self.store.speakers.values():
            rows = [number[utterance.id] for utterance in theirs]
            shuffled.shuffle(rows)
            step = size or len(rows)
            groups.append([rows[first : first + step] for first in range(0, len(rows), step)])
        return groups

    def _frames(self, utterance: StoredUtterance) -> torch.Tensor:
        pdfs = torch.from_numpy(np.array(self.aligned[utterance.id])).long()
        speech = (pdfs >= 0) & (speech_weights(pdfs, self.silence) > 0)
        return torch.from_numpy(np.array(self.store.array[utterance.rows]))[speech]
