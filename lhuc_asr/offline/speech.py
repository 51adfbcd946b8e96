"""Recordings of one speaker to the features that are searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lhuc_asr.corpus.audio import read_audio
from lhuc_asr.corpus.utterance import Utterance
from lhuc_asr.features.cmvn import Cmvn, CmvnAccumulator
from lhuc_asr.features.filterbank import compute_features
from lhuc_asr.features.store import FeatureTable, StoredUtterance


@dataclass(frozen=True)
class Speech:
    """Stretches of recordings and their features.

    Attributes:
        pieces: The stretches.
        table: Their features, normalised.
        cmvn: How.
    """

    pieces: tuple[Utterance, ...]
    table: FeatureTable
    cmvn: Cmvn


def read_speech(named, config, speaker, cmvn=None) -> Speech:
    pieces = tuple(Utterance(r.name, speaker, "", r.path, 0.0, r.info.seconds, "") for r in named)
    features = [compute_features(read_audio(piece, config.sample_rate), config) for piece in pieces]
    if cmvn is None:
        statistics = CmvnAccumulator(config.dimension)
        for f in features:
            statistics.add(f)
        cmvn = statistics.estimate()
    stored, first = [], 0
    for piece, f in zip(pieces, features, strict=True):
        stored.append(StoredUtterance(piece.id, speaker, first, len(f)))
        first += len(f)
    return Speech(pieces, FeatureTable(stored, np.concatenate([cmvn.apply(f) for f in features])), cmvn)
