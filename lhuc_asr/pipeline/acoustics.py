"""From features to the speaker-independent network: monophones, their alignment, training, realignment."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.numerics import PRIOR_PSEUDO_FRAMES
from lhuc_asr.features.extraction import spoken_at
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.alignment import Alignment, write_alignment
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.monophone import (
    align_blocks,
    align_utterances,
    estimate_self_loops,
    train_monophones,
    transcript_graphs,
)
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.coverage import aligned_words
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lang.text import UNKNOWN
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.nnet.frames import FrameSource, priors
from lhuc_asr.nnet.scoring import score_blocks
from lhuc_asr.nnet.trainer import TrainerConfig, train
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import MONOPHONES
from lhuc_asr.pipeline.splits import HELDOUT, TRAIN

logger = logging.getLogger(__name__)

TOPOLOGY_FILE, GMM_FILE, MODEL_FILE = "topology.json", "gmm.safetensors", "model.safetensors"


def train_gaussians(config: ExperimentConfig, layout: ExperimentFolder) -> None:
    """Monophones of the training recordings; alignments of these, at every speed, and of the held-out speakers."""
    lexicon = read_lexicon_folder(layout.lang)
    folder = layout.hmm(MONOPHONES)
    store = FeatureStore(layout.alignment_features(TRAIN))
    transcripts = _transcripts(layout, TRAIN, config.speeds, lexicon)
    original = {utterance.id for utterance in read_manifest(layout.manifest(TRAIN))}
    monophones = train_monophones(
        store,
        [utterance for utterance in store.utterances if utterance.id in original],
        transcripts,
        lexicon,
        config.monophone,
        config.seed,
        config.workers,
    )
    monophones.topology.save(folder / TOPOLOGY_FILE)
    monophones.gmm.save(folder / GMM_FILE)
    for split in (TRAIN, HELDOUT):
        _align_with_gaussians(config, layout, split, lexicon, monophones.topology, monophones.gmm)


def train_network(
    config: ExperimentConfig, layout: ExperimentFolder, name: str, alignment: str, trainer: TrainerConfig, key: str
) -> None:
    """Train a network on an alignment, going on where a killed run stopped.

    Args:
        config: The recipe.
        layout: The experiment's folder.
        name: Of the network, ``am/<name>``.
        alignment: ``hmm/<alignment>`` holds the targets.
        trainer: How it is trained.
        key: Of the stage; a training state with another key is not gone on from.
    """
    model, sources = untrained_network(config, layout, alignment)
    folder = layout.acoustic_model(name)
    state_path = folder / f"training-{key[:16]}.safetensors"
    metrics = layout.metrics
    model = train(
        model,
        sources[TRAIN],
        sources[HELDOUT],
        trainer,
        state_path,
        config.seed,
        torch.device(config.device),
        lambda figures: metrics.write(f"am/{name}", **figures),
    )
    save_model(folder / MODEL_FILE, model)
    # Kept until now for a run that is killed between the last epoch and here.
    for state in folder.glob("training-*.safetensors"):
        state.unlink()


def untrained_network(
    config: ExperimentConfig, layout: ExperimentFolder, alignment: str
) -> tuple[Dnn, dict[str, FrameSource]]:
    """A network with random weights and the alignment's priors, and the frames to train and to evaluate it on."""
    topology = MonophoneTopology.load(layout.hmm(alignment) / TOPOLOGY_FILE)
    sources = {}
    for split in (TRAIN, HELDOUT):
        store = FeatureStore(layout.features(split))
        targets = Alignment(alignment_path(layout, alignment, split), store).array
        sources[split] = FrameSource(store.array, targets, store.utterances, config.dnn.context)
    model = Dnn(config.dnn, config.features.dimension, topology.pdf_count)
    model.initialise(torch.Generator().manual_seed(config.seed))
    model.log_prior.copy_(priors(sources[TRAIN].targets, topology.pdf_count, PRIOR_PSEUDO_FRAMES))
    return model, sources


def reference_targets(
    config: ExperimentConfig, layout: ExperimentFolder, split: str, model: Dnn, alignment: str, corrupted: float = 0.0
) -> dict[str, np.ndarray]:
    """Pdfs (T,) of a split's utterances, forced along their reference transcripts: the oracle's targets.

    Of each transcript's words the share ``corrupted`` is replaced by others of the lexicon. Utterances with a word
    that the lexicon lacks, which no first pass can find either, are left out.
    """
    lexicon = read_lexicon_folder(layout.lang)
    topology = MonophoneTopology.load(layout.hmm(alignment) / TOPOLOGY_FILE)
    store = FeatureStore(layout.features(split))
    transcripts = _transcripts(layout, split, (1.0,), lexicon)
    known = [utterance for utterance in store.utterances if not lexicon.missing(transcripts[utterance.id])]
    if len(known) < len(store.utterances):
        left_out = len(store.utterances) - len(known)
        logger.info("%s: %d utterances have words that the lexicon lacks; no reference targets", split, left_out)
    if not known:
        return {}
    if corrupted:
        spoken = {utterance.id: transcripts[utterance.id] for utterance in known}
        transcripts = corrupt(spoken, sorted(lexicon.pronunciations.keys() - {UNKNOWN}), corrupted, config.seed)
    graphs = transcript_graphs(known, transcripts, lexicon, topology)
    scores = score_blocks(model, store, known)
    return align_blocks(scores, graphs, config.workers, config.monophone.max_unaligned)[0]


def corrupt(
    transcripts: Mapping[str, tuple[str, ...]], words: Sequence[str], share: float, seed: int
) -> dict[str, tuple[str, ...]]:
    """Transcripts in which words are replaced by others, each with probability ``share``.

    Args:
        transcripts: The words of each utterance.
        words: Those that may stand in their place, each once; at least two.
        share: Of all words. A larger one replaces the same words, by the same, and more.
        seed: Which words, and by which.

    Example:
        >>> corrupt({"a": ("ONE", "TWO")}, ["ONE", "TWO"], 1.0, seed=1)
        {'a': ('TWO', 'ONE')}
    """
    generator = np.random.default_rng(seed)
    number_of = {word: number for number, word in enumerate(words)}

    def other(word: str, steps: int) -> str:
        # Steps from the word itself, cyclic: never back to it. One that is not in the list stands before its start.
        return words[(number_of.get(word, -1) + 1 + steps) % len(words)]

    corrupted = {}
    for utterance, spoken in sorted(transcripts.items()):
        draws, steps = generator.random(len(spoken)), generator.integers(len(words) - 1, size=len(spoken))
        corrupted[utterance] = tuple(
            other(word, int(by)) if draw < share else word for word, draw, by in zip(spoken, draws, steps, strict=True)
        )
    return corrupted


def realign(config: ExperimentConfig, layout: ExperimentFolder, network: str, name: str, previous: str) -> None:
    """Align the training and held-out recordings with a network.

    Args:
        config: The recipe.
        layout: The experiment's folder.
        network: ``am/<network>`` scores the frames.
        name: ``hmm/<name>`` gets topology and alignments.
        previous: ``hmm/<previous>`` has the topology to start from.
    """
    lexicon = read_lexicon_folder(layout.lang)
    model = load_model(layout.acoustic_model(network) / MODEL_FILE).to(config.device)
    topology = MonophoneTopology.load(layout.hmm(previous) / TOPOLOGY_FILE)
    folder = layout.hmm(name)
    for split, speeds in ((TRAIN, config.speeds), (HELDOUT, (1.0,))):
        store = FeatureStore(layout.features(split))
        transcripts = _transcripts(layout, split, speeds, lexicon)
        graphs = transcript_graphs(store.utterances, transcripts, lexicon, topology)
        pdfs, _ = align_blocks(
            score_blocks(model, store, store.utterances),
            graphs,
            config.workers,
            config.monophone.max_unaligned,
        )
        alignment = write_alignment(alignment_path(layout, name, split), store, pdfs)
        before = Alignment(alignment_path(layout, previous, split), store)
        moved = float(np.mean(alignment.array != before.array))
        logger.info("%s: the network moved %.1f %% of the frames to another state", split, 100 * moved)
        layout.metrics.write(f"hmm/{name}", split=split, moved=round(moved, 4))
        if split == TRAIN:
            estimate_self_loops(topology, pdfs.values()).save(folder / TOPOLOGY_FILE)


def alignment_path(layout: ExperimentFolder, name: str, split: str) -> Path:
    """The alignment of a split in ``hmm/<name>``."""
    return layout.hmm(name) / f"{split}.ali"


def _align_with_gaussians(
    config: ExperimentConfig,
    layout: ExperimentFolder,
    split: str,
    lexicon: Lexicon,
    topology: MonophoneTopology,
    gmm: DiagonalGmm,
) -> None:
    store = FeatureStore(layout.alignment_features(split))
    transcripts = _transcripts(layout, split, config.speeds if split == TRAIN else (1.0,), lexicon)
    graphs = transcript_graphs(store.utterances, transcripts, lexicon, topology)
    pdfs, _ = align_utterances(gmm, store, store.utterances, graphs, config.workers, config.monophone.max_unaligned)
    write_alignment(alignment_path(layout, MONOPHONES, split), FeatureStore(layout.features(split)), pdfs)


def _transcripts(
    layout: ExperimentFolder, split: str, speeds: Sequence[float], lexicon: Lexicon
) -> Mapping[str, tuple[str, ...]]:
    def words(utterance: Utterance) -> tuple[str, ...]:
        return aligned_words(utterance.words, lexicon)

    utterances = read_manifest(layout.manifest(split))
    return {spoken_at(speed, utterance.id): words(utterance) for speed in speeds for utterance in utterances}
