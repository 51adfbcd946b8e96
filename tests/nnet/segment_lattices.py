"""Utterances of segments of ten frames, each around its pdf's corner of a square, and the lattices of all pdfs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from corner_frames import PDFS, corner_frames
from reference_lattices import lattice_of, store_of

from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.sequence_source import SequenceSource, sequence_source

SEGMENT = 10


def segment_lattice(frames: int, pdfs: range = range(PDFS)) -> DenominatorLattice:
    """In each segment any of the pdfs may be, all equally probable: len(pdfs) ** segments paths."""
    segments = frames // SEGMENT
    arcs = [(n, n + 1, 0.5, [pdf] * SEGMENT) for n in range(segments) for pdf in pdfs]
    return lattice_of([SEGMENT * n for n in range(segments + 1)], arcs, {segments: 0.0})


def segment_frames(seed: int, utterances: int = 12, noise: float = 0.0) -> FrameSource:
    """Utterances of 30 to 70 frames."""
    lengths = [30 + SEGMENT * (n % 5) for n in range(utterances)]
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    stored = [StoredUtterance(f"u{n}", "s", *place) for n, place in enumerate(zip(firsts, lengths, strict=True))]
    return replace(corner_frames(seed, sum(lengths), noise), utterances=stored)


def segment_source(folder: Path, seed: int, utterances: int = 24, pdfs: range = range(PDFS)) -> SequenceSource:
    """Utterances with their lattices; no pdf is silence."""
    frames = segment_frames(seed, utterances)
    lattices = ((utterance.id, segment_lattice(utterance.frames, pdfs)) for utterance in frames.utterances)
    return sequence_source(frames, store_of(folder, lattices, PDFS), [])
