"""Freezing a network for the length of a block: nothing of it changes while speakers are adapted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """A context in which a model's parameters take no gradient and its modules are in evaluation mode.

    So dropout is off and the statistics of batch normalisation stand still. Afterwards each parameter and
    each module is as it was, also when the block raises. An attached bank is no part of the model and goes on
    learning.

    Recurrent modules stay in training mode, with their dropout at zero: cuDNN computes no gradient through
    them in evaluation mode, and dropout is all that the modes differ in.
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
        for recurrent, share in dropout.items():
            recurrent.dropout = share
