"""The search on synthetic voices: a timbre that speaks through longer and shorter vocal tracts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lhuc_asr.base.units import FRAME_LENGTH_SECONDS, FRAME_SHIFT_SECONDS
from lhuc_asr.corpus.grammar import grammar_sentences
from lhuc_asr.corpus.voices import Said, SyntheticSpeaker, VoicesConfig, say, speakers
from lhuc_asr.features.cmvn import CmvnAccumulator
from lhuc_asr.features.filterbank import FeatureConfig, compute_features
from lhuc_asr.hmm.feature_space import AsStored
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.vtln import AlignedRecording, WarpModel, WarpSearchConfig, search_warps

pytest.importorskip("espeakng_loader")

FEATURES = FeatureConfig(kind="mfcc", delta_order=2)
# Beyond these, vocal tracts leave the range of the search.
FACTORS = (0.88, 0.94, 1.0, 1.06, 1.12)


def _recordings(speaker: SyntheticSpeaker, sentences: int, symbols: dict[str, int]) -> list[AlignedRecording]:
    """What a speaker says, aligned to the phones where the synthesizer put them; other frames have no weight."""
    generator = np.random.default_rng(speaker.number)
    texts = grammar_sentences(generator, sentences)
    spoken = [say(text, speaker, FEATURES.sample_rate, generator) for text in texts]
    return [_aligned(each, symbols) for each in spoken]


def _aligned(said: Said, symbols: dict[str, int]) -> AlignedRecording:
    frames = len(compute_features(said.samples, FEATURES))
    middle = FRAME_LENGTH_SECONDS / 2 + FRAME_SHIFT_SECONDS * np.arange(frames)
    pdfs = np.full(frames, -1)
    for phone in said.phones:
        number = symbols.setdefault(phone.symbol, len(symbols))
        pdfs[(middle >= phone.start) & (middle < phone.end)] = number
    return AlignedRecording(said.samples, pdfs, (pdfs >= 0).astype(np.float32))


@pytest.mark.slow
def test_the_warps_of_known_vocal_tracts_are_found():
    config = VoicesConfig(training_speakers=24, control_speakers=3)
    voices = speakers(config)
    symbols: dict[str, int] = {}
    training = [_recordings(voice, 6, symbols) for voice in voices if voice.group == "train"]
    # The controls speak all their sentences first, so that every phone of theirs has a pdf.
    controls = [voice for voice in voices if voice.group == "control"]
    tracts = [[_recordings(replace(voice, warp=factor), 6, symbols) for factor in FACTORS] for voice in controls]
    model = WarpModel(_mixtures(training, len(symbols)), FEATURES, AsStored(FEATURES.dimension))
    for voice in tracts:
        warps = [search_warps(model, recordings, WarpSearchConfig().warps).best for recordings in voice]
        # A timbre has formants of its own; only ratios of its warps are known.
        wanted = -np.log(FACTORS)
        wanted += np.mean(np.log(warps)) - wanted.mean()
        np.testing.assert_allclose(np.log(warps), wanted, atol=0.04)


def _mixtures(speakers_recordings: list[list[AlignedRecording]], pdf_count: int) -> DiagonalGmm:
    """Mixtures of four Gaussians a phone, on average, of speakers whose features are normalised."""
    rows, pdfs = [], []
    for recordings in speakers_recordings:
        values = [compute_features(recording.samples, FEATURES) for recording in recordings]
        accumulator = CmvnAccumulator(FEATURES.dimension)
        for each in values:
            accumulator.add(each)
        rows += [torch.from_numpy(accumulator.estimate().apply(each)) for each in values]
        pdfs += [torch.from_numpy(recording.pdfs) for recording in recordings]
    features, aligned = torch.cat(rows), torch.cat(pdfs)
    weights = (aligned >= 0).float()
    gmm = DiagonalGmm.flat(torch.zeros(FEATURES.dimension), torch.ones(FEATURES.dimension), pdf_count)
    generator = torch.Generator().manual_seed(0)
    for size in (1, 1, 2, 2, 4, 4, 4):
        statistics = gmm.accumulate(features, aligned, weights)
        gmm = gmm.update(statistics)
        gmm = gmm.grown(size * pdf_count, statistics.occupancy, generator)
    return gmm.update(gmm.accumulate(features, aligned, weights))
