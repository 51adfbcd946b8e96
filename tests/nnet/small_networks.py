"""Small networks of every shape and normalisation, with random weights and statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.normalisation import BatchNormalisation
from lhuc_asr.nnet.shapes import SHAPES
from lhuc_asr.nnet.vector_tensors import VectorTensors

DIMENSION, PDFS, UNITS = 4, 7, 12
NORMALISATIONS = (None, "batch", "layer")
# Two positions after the first layer, one after the second, and a layer that reads one position as a Dnn's does.
_KINDS: dict[str, dict[str, Any]] = {
    "dnn": {"kind": "dnn", "hidden_layers": 3, "hidden_units": UNITS, "context": 1, "activation": "sigmoid"},
    "dnn relu": {"kind": "dnn", "hidden_layers": 3, "hidden_units": UNITS, "context": 1, "activation": "relu"},
    "tdnn": {"kind": "tdnn", "offsets": ((-1, 0, 1), (-1, 2)), "channels": UNITS, "hidden_units": UNITS},
    "tdnn sigmoid": {"kind": "tdnn", "offsets": ((-1, 1), (-2, 0, 1), (0,)), "channels": UNITS, "hidden_layers": 0}
    | {"activation": "sigmoid"},
}
SMALL = {
    f"{kind}, {name or 'plain'}": SHAPES[options["kind"]].model_validate(options | {"normalisation": name})
    for kind, options in _KINDS.items()
    for name in NORMALISATIONS
}


def lively(shape: NetworkShape, vector: int = 0, seed: int = 0) -> LayeredNetwork:
    """A network in evaluation mode whose tensors are all random, those of the normalisation and of vectors too."""
    generator = torch.Generator().manual_seed(seed)
    model = shape.make(DIMENSION, PDFS, vector)
    if vector:
        # Names that every module has; a network does not look at these tensors.
        made = {name: torch.randn(2, vector, generator=generator) for name in ("forward", "training", "by_name")}
        model.vectors = VectorTensors(made, "a test")
    model.initialise(generator)
    nn.init.normal_(model.output.weight, generator=generator)
    model.log_prior.copy_(torch.log_softmax(torch.randn(PDFS, generator=generator), 0))
    for module in model.modules():
        if isinstance(module, BatchNormalisation | nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
        if isinstance(module, BatchNormalisation):
            nn.init.normal_(module.mean, generator=generator)
            nn.init.uniform_(module.variance, 0.1, 2.0, generator=generator)
    return model.eval()
