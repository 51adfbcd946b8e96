"""An affine distortion of features, as a microphone or a room makes, which the tests put on new speakers."""

import numpy as np

from lhuc_asr.features.store import FeatureTable


def distorted(table: FeatureTable) -> FeatureTable:
    """The table with each band leaking into the one below it, and an offset that changes slowly over the bands."""
    bands = table.dimension
    matrix = np.eye(bands) + 0.3 * np.eye(bands, k=1)
    offset = 0.5 * np.sin(np.arange(bands) / 3)
    return FeatureTable(table.utterances, (table.array @ matrix.T + offset).astype(np.float32), table.title)
