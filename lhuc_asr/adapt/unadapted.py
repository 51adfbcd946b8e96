"""No adaptation, as a technique: every speaker has neutral amplitudes.

A pass with it is the network itself under another pass' scale and penalty: what gains are to be measured against where
the choice of these must not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig, LhucSpeakers
from lhuc_asr.adapt.targets import SpeakerData
from lhuc_asr.base.config import StrictModel
from lhuc_asr.nnet.dnn import Dnn


class UnadaptedConfig(StrictModel):
    """Nothing to be set.

    Attributes:
        kind: Of technique.
    """

    kind: Literal["none"] = "none"


class Unadapted:
    """Neutral amplitudes for everybody."""

    def __init__(self, config: UnadaptedConfig) -> None:
        self.config = config

    def estimate(self, model: Dnn, speakers: Mapping[str, SpeakerData], seed: int) -> LhucSpeakers:
        """Neutral amplitudes after every hidden layer; neither frames nor seed matter."""
        return LhucSpeakers(Lhuc(LhucConfig()).new_bank(model, speakers))

    def load(self, model: Dnn, folder: Path) -> LhucSpeakers:
        """Read what was saved.

        Raises:
            CheckpointError: There is no speaker's file, or one is damaged.
            ModelMismatchError: A speaker belongs to another model.
        """
        return Lhuc(LhucConfig()).load(model, folder)
