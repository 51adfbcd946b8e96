"""Freezing a network inside a block, so that nothing of it changes while speakers are adapted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """A context in which a model's parameters take no gradient and its modules are in evaluation mode.

    So dropout is off, and the statistics of batch normalisation stay as they are. Afterwards each parameter and
    each module is as it was before, also if the block raises an error. An attached bank is not part of the model, so
    it can learn.

    Recurrent modules stay in training mode, with their dropout at zero: cuDNN computes no gradient through
    them in evaluation mode, and the two modes differ only in dropout.
    """
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    training = {module: module.training for module in model.modules()}
    dropout = {module: module.dropout for module in model.modules() if isinstance(module, nn.RNNBase)}
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        for module in training:
            module.training = module in dropout
        for module in dropout:
            module.dropout = 0.0
        yield model
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)
        for module, mode in training.items():
            module.training = mode
        for recurrent, probability in dropout.items():
            recurrent.dropout = probability
