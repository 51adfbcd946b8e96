"""Transcripts with errors put in: how much adaptation depends on the errors of its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def corrupt(
    transcripts: Mapping[str, tuple[str, ...]], words: Sequence[str], fraction: float, seed: int
) -> dict[str, tuple[str, ...]]:
    """Transcripts in which words are replaced by others, each with probability ``fraction``.

    Args:
        transcripts: The words of each utterance.
        words: Words that may stand in their place, each once; at least two.
        fraction: Fraction of all words. A larger one replaces the same words, by the same, and more.
        seed: Seed of which words are replaced, and by which.

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
            other(word, int(by)) if draw < fraction else word
            for word, draw, by in zip(spoken, draws, steps, strict=True)
        )
    return corrupted
