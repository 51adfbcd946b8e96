"""The kinds of networks, as a recipe or a file chooses one: by its ``kind``, with the options of that kind."""

from __future__ import annotations

from typing import Annotated

from lhuc_asr.base.config import ChosenByKind
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import NetworkShape
from lhuc_asr.nnet.tdnn import TdnnConfig

SHAPES: dict[str, type[NetworkShape]] = {shape.kind_name: shape for shape in (DnnConfig, TdnnConfig)}

# A field of a configuration that holds the shape of a network; without a kind it is a DNN's.
AnyShape = Annotated[NetworkShape, ChosenByKind(SHAPES, DnnConfig.kind_name)]
