"""The part of a recipe that describes other words of its passes than those of the best path: outputs from lattices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.decode.outputs import LatticeOutput
from lhuc_asr.lang.kneser_ney import HIGHEST_ORDER
from lhuc_asr.lang.language_model import LanguageModelConfig


class RescoringConfig(StrictModel):
    """How the language model that lattices are rescored with differs from the recipe's ``lm``.

    Attributes:
        arpa: File of another model in the ARPA format; None for a model from what ``lm`` is made of.
        order: Length of its longest n-grams; None for that of the file ``arpa``, or without one for that of ``lm``.
        prune: Relative entropy below which its n-grams are dropped; None for that of ``lm``, and for 0 with ``arpa``.
    """

    arpa: InputFile | None = None
    order: int | None = Field(None, ge=1, le=HIGHEST_ORDER)
    prune: float | None = Field(None, ge=0.0, le=1.0)

    def of(self, lm: LanguageModelConfig) -> LanguageModelConfig:
        """The options of the language model, given those of the recipe's."""
        other = {} if self.arpa is None else {"text": (), "prune": 0.0}
        return lm.model_copy(update=other | {key: value for key, value in self if value is not None})


class OutputConfig(LatticeOutput):
    """Words that are taken from the lattices of passes, beside those of their best paths.

    Attributes:
        passes: Names of the passes, first passes and controls whose lattices it takes, with those that they are to be
            compared with; None for all of them.
        lm: Language model whose scores are put in the place of those of the recipe's ``lm``; None to leave these.
    """

    passes: tuple[str, ...] | None = Field(None, min_length=1)
    lm: RescoringConfig | None = None

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.words == "best" and self.lm is None:
            raise ValueError("these are the words of the pass itself; give it words: least_risk, or lm: {...}")
        return self


def check_rescored(outputs: Mapping[str, OutputConfig], lm: LanguageModelConfig) -> None:
    """Refuse outputs that are rescored with the scores that the lattices have.

    Args:
        outputs: The recipe's outputs.
        lm: The recipe's language model.

    Raises:
        ValueError: An output's language model is the recipe's.
    """
    for name, output in outputs.items():
        if output.lm is not None and output.lm.of(lm) == lm:
            raise ValueError(
                f"outputs: the language model of {name!r} is the recipe's own; give its lm another order, prune or "
                "arpa, or leave lm out"
            )
