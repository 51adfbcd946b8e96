"""The kinds of networks, as a recipe or a file chooses one: by its ``kind``, with the options of that kind."""

from __future__ import annotations

from typing import Annotated

from lhuc_asr.base.config import ChosenByKind
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import NetworkShape
from lhuc_asr.nnet.tdnn import TdnnConfig

DEFAULT_KIND = "dnn"
SHAPES: dict[str, type[NetworkShape]] = {"dnn": DnnConfig, "tdnn": TdnnConfig}

# A field of a configuration that holds the shape of a network; without a kind it is a DNN's.
AnyShape = Annotated[NetworkShape, ChosenByKind(SHAPES, DEFAULT_KIND)]
