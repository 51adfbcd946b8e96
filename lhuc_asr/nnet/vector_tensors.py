"""The tensors that speakers' vectors are made with, in the network that takes these vectors.

The network does not look at them. They are part of it, in its file and in its identity, because vectors of another
origin would mean nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class VectorTensors(nn.Module):
    """Tensors by name, as buffers.

    Args:
        tensors: The tensors.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.clone())

    def by_name(self) -> dict[str, Tensor]:
        """The tensors by name, on the CPU."""
        return {name: buffer.cpu() for name, buffer in self.named_buffers()}
