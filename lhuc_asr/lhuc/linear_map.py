"""Linear maps whose weight can take over the scale of their input: torch's own, and those that do the same.

    W (xi * x) + b = (W diag(xi)) x + b

A subclass may do anything with its weight: cast it, pack it, add a low-rank path to it. So it is not trusted by its
name. It may hold nothing but a weight and a bias, and the equation must hold of it: for a weight that it has never
seen, for inputs of many magnitudes, in float64.
"""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

LinearMap = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OWN = (nn.Linear, *_CONVOLUTIONS)
# Magnitudes of the probe's inputs: a layer that rounds, clips or quantises differs at one of them.
_MAGNITUDES = tuple(10.0**power for power in range(-4, 5))
# In float64, relative to a row's largest output: the order of a sum may differ, nothing else.
_ROUNDING = 1e-10


def as_linear_map(module: nn.Module | None) -> LinearMap | None:
    """A module, if its class is that of a linear layer or convolution, or derived from one."""
    return module if isinstance(module, _OWN) else None


def input_units(module: LinearMap) -> int:
    """The number of units of a map's input."""
    return module.in_features if isinstance(module, nn.Linear) else module.in_channels


def input_axis(module: LinearMap, dims: int) -> int:
    """The axis of a map's input that counts its units, for an input with this number of axes."""
    if isinstance(module, nn.Linear):
        return dims - 1
    spatial = module.weight.dim() - 2
    return dims - 1 - spatial  # a convolution takes (B, C, ...) or (C, ...)


def why_not_exact(module: LinearMap) -> str | None:
    """Why scaling the columns of a map's weight may not be scaling its input; None where it is."""
    if module._parameters.get("weight") is None:
        return "its weight is computed from others"
    if type(module.weight) is not nn.Parameter or not module.weight.is_floating_point():
        return f"its weight is packed or quantized ({type(module.weight).__name__}, {module.weight.dtype})"
    if type(module) in _OWN and "forward" not in vars(module):
        return None
    held = (*module.named_parameters(), *module.named_buffers(), *module.named_children())
    others = sorted({name for name, _ in held} - {"weight", "bias"})
    if others:
        return f"it holds {', '.join(others)} beside its weight and bias"
    if len(inspect.signature(module.forward).parameters) != 1:
        return "it takes more than its input"
    return None if _scales_with_its_columns(module) else "scaling its weight is not scaling its input"


def scale_columns(module: LinearMap, factors: Tensor) -> None:
    """Multiply the columns of a map's weight, in place.

    Args:
        module: The map.
        factors: A factor for each unit of its input, shape (inputs,); the product is rounded once if it is float64.
    """
    with torch.no_grad():
        module.weight.copy_(module.weight * _columns(module, factors.to(module.weight.device)))


def _columns(module: LinearMap, factors: Tensor) -> Tensor:
    """Factors of the inputs in a shape that broadcasts to the weight."""
    if isinstance(module, nn.Linear):
        return factors
    kernel = [1] * (module.weight.dim() - 2)
    grouped = factors.reshape(module.groups, -1).repeat_interleave(module.out_channels // module.groups, dim=0)
    return grouped.reshape(*grouped.shape, *kernel)  # (channels out, channels in a group, 1, ...)


def _scales_with_its_columns(module: LinearMap) -> bool:
    """Whether a map gives the same for a scaled input as for scaled columns, in evaluation and in training."""
    device, inputs = module.weight.device, input_units(module)
    x = _numbers(_input_shape(module), device)
    x = x * torch.tensor(_MAGNITUDES, dtype=x.dtype, device=device).reshape(-1, *[1] * (x.dim() - 1))
    xi = _numbers([inputs], device).mul(2)
    parts = {name: _numbers(part.shape, device) for name, part in module.named_parameters()}
    scaled = {**parts, "weight": parts["weight"] * _columns(module, xi)}
    scaled_x = x * xi.reshape([inputs if axis == input_axis(module, x.dim()) else 1 for axis in range(x.dim())])
    training = module.training
    try:
        with torch.no_grad():
            for mode in (False, True):
                module.training = mode
                outputs = functional_call(module, parts, (scaled_x,)), functional_call(module, scaled, (x,))
                if not _same(*outputs):
                    return False
    except Exception:  # the module's own code may raise anything: it is not a map that is known
        return False
    finally:
        module.training = training
    return True


def _same(output: object, other: object) -> bool:
    """Whether two outputs are one, row by row, and numbers at all."""
    if not isinstance(output, Tensor) or not isinstance(other, Tensor) or output.shape != other.shape:
        return False
    apart, size = ((value.abs().flatten(1).amax(1)) for value in (output - other, other))
    return bool((apart <= _ROUNDING * size).all())


def _input_shape(module: LinearMap) -> list[int]:
    """A batch of one row a magnitude; along space, more than a kernel and any padding take."""
    if isinstance(module, nn.Linear):
        return [len(_MAGNITUDES), module.in_features]
    kernels = zip(module.kernel_size, module.dilation, strict=True)
    padding = 0 if isinstance(module.padding, str) else max(module.padding)
    return [len(_MAGNITUDES), module.in_channels, *(2 * size * step + padding for size, step in kernels)]


def _numbers(shape: torch.Size | list[int], device: torch.device) -> Tensor:
    """Numbers between -1 and 1 without a pattern; not random ones, because folding must not move a generator."""
    numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64, device=device)
    return numbers.square().mul(0.7).sin().reshape(shape)
