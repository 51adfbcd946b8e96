"""The tensors that speakers' vectors are computed with, in the network that takes these vectors.

The network does not look at them. They are part of it, in its file and in its identity, because vectors of another
origin would mean nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

# Prefix of the buffers' names: names of tensors come from files, and a module may have them already, like "forward".
PREFIX = "tensor_"


class VectorTensors(nn.Module):
    """Tensors by name, as buffers.

    Args:
        tensors: The tensors.
        source: What they were read from, for messages.

    Attributes:
        source: What they were read from.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        self.source = source
        for name, tensor in tensors.items():
            self.register_buffer(f"{PREFIX}{name}", tensor.clone())

    def by_name(self) -> dict[str, Tensor]:
        """The tensors by name, on the CPU."""
        return {name.removeprefix(PREFIX): buffer.cpu() for name, buffer in self.named_buffers()}
