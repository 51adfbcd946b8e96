"""A language of three words, and scores of utterances in it."""

from __future__ import annotations

import numpy as np

from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon({"ab": (("A", "B"),), "ba": (("B", "A"),), "cab": (("C", "A", "B"),)}, PhoneSet.of("ABC"))
TOPOLOGY = MonophoneTopology.initial(LEXICON.phones)
ARPA = """
\\data\\
ngram 1=5

\\1-grams:
-99\t<s>
-0.5\t</s>
-0.7\tab
-0.8\tba
-0.9\tcab

\\end\\
"""


def spoken(words: tuple[str, ...], rng: np.random.Generator, frames_a_state: int = 3) -> np.ndarray:
    """Scores (T, K) of an utterance of these words in which every state lasts equally long."""
    phones = [phone for word in words for phone in LEXICON.pronunciations[word][0]]
    pdfs = [state.pdf for phone in phones for state in TOPOLOGY.states((phone,))]
    scores = rng.normal(scale=3.0, size=(frames_a_state * len(pdfs), TOPOLOGY.pdf_count))
    scores[np.arange(len(scores)), np.repeat(pdfs, frames_a_state)] += 30.0
    return scores.astype(np.float32)
