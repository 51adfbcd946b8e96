"""Error rates of the same recordings before and after adaptation, in words: WER, CER, and whether the change is chance.

The change is over the unadapted network alone. Whether it is more than any speaker's amplitudes would give takes the
control of an experiment (``judgement``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jiwer
import numpy as np

from lhuc_asr.score.significance import LEVEL, Comparison, compare
from lhuc_asr.score.tables import change_text, p_text
from lhuc_asr.score.wer import WerReport, score

Texts = Mapping[str, str]


@dataclass(frozen=True)
class CharacterErrors:
    """Errors in characters, of which the spaces between words are some.

    Attributes:
        errors: Substitutions, deletions and insertions together.
        characters: Number of characters of the references.
    """

    errors: int
    characters: int

    @property
    def rate(self) -> float:
        """Character error rate, a fraction."""
        return self.errors / self.characters


def character_errors(references: Texts, hypotheses: Texts) -> CharacterErrors:
    """The errors in characters of all utterances together, each aligned at minimum edit distance by jiwer.

    Args:
        references: Text of each utterance, by its id; one has a character at least.
        hypotheses: Recognised text of the same ids.

    Example:
        >>> character_errors({"u": "go on"}, {"u": "no on"})
        CharacterErrors(errors=1, characters=5)
    """
    output = jiwer.process_characters(list(references.values()), [hypotheses[id] for id in references])
    errors = output.substitutions + output.deletions + output.insertions
    return CharacterErrors(errors, output.hits + output.substitutions + output.deletions)


def before_and_after(references: Texts, before: Texts, after: Texts, speakers: Mapping[str, str]) -> list[str]:
    """Lines that say what adaptation changed.

    Args:
        references: Text of each utterance, by its id.
        before: Recognised text of the same ids, without adaptation.
        after: Recognised text of the same ids, with adaptation.
        speakers: Speaker of each id.

    Raises:
        ScoreError: The utterances are empty, or a speaker's references have no words.
    """
    first, second = (score(references, hypotheses, speakers) for hypotheses in (before, after))
    comparison = compare(first, second, np.random.default_rng(0))
    return [
        f"unadapted  {_rates(first, character_errors(references, before))}",
        f"adapted    {_rates(second, character_errors(references, after))}",
        f"change     {_change(comparison)}",
    ]


def _rates(report: WerReport, characters: CharacterErrors) -> str:
    words = f"WER {100 * report.wer:.2f} % ({report.errors} errors in {report.words} words)"
    return f"{words}, CER {100 * characters.rate:.2f} %"


def _change(comparison: Comparison) -> str:
    count = comparison.speakers_better + comparison.speakers_worse + comparison.speakers_equal
    units = f"{count} speakers" if comparison.over_speakers else "the recordings of one speaker"
    significant = "significant" if comparison.p_value < LEVEL else "not significant"
    return f"WER {change_text(comparison)} %, p {p_text(comparison.p_value)} over {units}: {significant}"
