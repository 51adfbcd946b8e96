"""Speech of several speakers, each with features of their own, whose states and transforms are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mixture_world import undone

from lhuc_asr.features.store import FeatureStore, write_store
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.training import TrainingData
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon(
    {"ab": (("A", "B"),), "ca": (("C", "A"),), "bd": (("B", "D"),), "dc": (("D", "C"),), "ad": (("A", "D"),)},
    PhoneSet(("SIL",), ("A", "B", "C", "D")),
)
WIDTH = 6


@dataclass(frozen=True)
class Spoken:
    """Utterances, and what is true of them.

    Attributes:
        store: Features as they are observed.
        transcripts: Words of each utterance, by its id.
        truth: Pdf of each frame in the topology of monophones, by the utterance's id, shape (T,).
    """

    store: FeatureStore
    transcripts: dict[str, list[str]]
    truth: dict[str, np.ndarray]

    @property
    def data(self) -> TrainingData:
        return TrainingData(self.store.utterances, self.transcripts, LEXICON, 1, 0.1)


def speak(
    folder: Path, speakers: Mapping[str, torch.Tensor | None], utterances: int, seed: int, apart: float = 2.0
) -> Spoken:
    """Utterances of speakers.

    Each state draws frames around a mean of its own, which the phone before moves. The noise comes from sources that
    are as loud as the state makes them, and that the features mix. A speaker's transform (D, D + 1), if there is one,
    turns what is observed into that.

    Args:
        folder: Folder of the store.
        speakers: Transform of each speaker.
        utterances: Number of utterances of each.
        seed: Seed of the words and the noise; the means are always the same.
        apart: Standard deviation of the means.
    """
    topology = MonophoneTopology.initial(LEXICON.phones)
    fixed, generator = np.random.default_rng(7), np.random.default_rng(seed)
    means = apart * fixed.standard_normal((topology.pdf_count, WIDTH))
    means[topology.silence_pdfs] = means[0]
    moved = {phone: 1.5 * fixed.standard_normal(WIDTH) for phone in LEXICON.phones.names}
    mixed = np.eye(WIDTH) + 0.5 * fixed.standard_normal((WIDTH, WIDTH))
    loud = fixed.uniform(0.3, 2.0, (topology.pdf_count, WIDTH))
    items, transcripts, truth = [], {}, {}
    for speaker, transform in speakers.items():
        for number in range(utterances):
            words = generator.choice(list(LEXICON.pronunciations), generator.integers(2, 5)).tolist()
            phones = ["SIL", *(phone for word in words for phone in LEXICON.pronunciations[word][0]), "SIL"]
            states = [state.pdf for phone in phones for state in topology.states((phone,))]
            before = np.stack(
                [
                    moved[left] if phone != "SIL" else np.zeros(WIDTH)
                    for left, phone in zip(["SIL", *phones], phones, strict=False)
                    for _ in topology.states((phone,))
                ]
            )
            lengths = generator.integers(2, 6, len(states))
            path = np.repeat(states, lengths)
            noise = (loud[path] * generator.standard_normal((len(path), WIDTH))) @ mixed.T
            features = torch.from_numpy(means[path] + np.repeat(before, lengths, axis=0) + noise)
            features = features.float() if transform is None else undone(transform, features)
            name = f"{speaker}-{number:02d}"
            items.append((name, speaker, features.numpy()))
            transcripts[name], truth[name] = words, path
    return Spoken(write_store(folder, items, WIDTH, normalise=False), transcripts, truth)
