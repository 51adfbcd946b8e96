"""Which linear map reads a site's output, and at which of its inputs each unit arrives: from the model's graph.

The graph is traced with torch.fx, in evaluation mode; nothing is guessed from names. Between the site and the map there
may be dropout, identities, and whatever moves numbers without changing them (reshape, transpose, indexing). Where they
move to is not derived from the operations. The operations run on a tensor that holds each unit's number in place of its
output, in the shapes that an example gives, and again in the shapes of larger examples. Each input of the map must get
one unit, always the same one.
"""

from __future__ import annotations

import inspect
import itertools
import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lhuc_asr.base.errors import FoldError, SiteError
from lhuc_asr.lhuc.linear_map import LinearMap, as_linear_map, input_axis, input_units
from lhuc_asr.lhuc.place import InputHook, OutputHook, watchers
from lhuc_asr.lhuc.probe import Example, arguments, resized
from lhuc_asr.lhuc.site import Site, SiteHook

# Each of these passes the scale of a unit on: dropout sets values to zero, or scales all values alike.
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_PASSING_FUNCTIONS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)
# These move numbers, and change none.
_MOVING_MODULES = (nn.Flatten, nn.Unflatten)
_MOVING = (
    *("contiguous", "flatten", "moveaxis", "movedim", "narrow", "permute", "reshape", "select", "squeeze", "swapaxes"),
    *("swapdims", "t", "transpose", "unflatten", "unsqueeze", "view"),
)
_MOVING_FUNCTIONS = (operator.getitem, *(getattr(torch, name) for name in _MOVING if hasattr(torch, name)))
_TRANSPOSED = ("T", "mT")
# What a shape is read with, and computed with.
_SHAPE_METHODS, _SHAPE_ATTRIBUTES = ("size", "dim", "numel"), ("shape", "ndim", "dtype", "device")
_ARITHMETIC = (
    *(operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.neg),
    *(int, math.floor, math.ceil),
)


@dataclass(frozen=True)
class Reading:
    """A linear map that reads a site, and nothing else does.

    Attributes:
        site: The site.
        name: The map's name in the model.
        reader: The map.
        units: The site's unit at each of the map's inputs, shape (inputs,), int64.
    """

    site: Site
    name: str
    reader: LinearMap
    units: Tensor


class _Tracer(fx.Tracer):
    """Traces a model down to torch's own modules, linear maps, and the sites, which may be modules of any kind."""

    def __init__(self, sites: set[str]) -> None:
        super().__init__()
        self._sites = sites

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        own = qualified_name in self._sites or as_linear_map(module) is not None
        return own or super().is_leaf_module(module, qualified_name)


def trace(model: nn.Module, sites: set[str]) -> fx.Graph | str:
    """A model's graph, or why it has none."""
    try:
        return _Tracer(sites).trace(model)
    except Exception as error:  # the model's own code runs on symbols here, and may raise anything
        return f"{type(model).__name__} cannot be traced ({str(error).strip().partition(chr(10))[0]})"


def calls(graph: fx.Graph, name: str) -> list[fx.Node]:
    """Where a module runs."""
    return [node for node in graph.nodes if node.op == "call_module" and node.target == name]


def read_in(model: nn.Module, graph: fx.Graph, site: Site, example: Example | None) -> Reading:
    """The linear map that a site's output goes into, and nothing else.

    Raises:
        FoldError: There is none, or it is not known which of its inputs each unit arrives at.
    """
    path = _path(model, graph, site)
    name = str(path[-1].target)
    reader = as_linear_map(model.get_submodule(name))
    if reader is None or len(calls(graph, name)) != 1:
        raise refusal(site, f"{name!r}, which its output goes into, runs more than once")
    if example is None:
        units = _units_in_any_shape(model, site, path, reader)
    else:
        units = _units_in_shapes(model, graph, site, path, example)
    return Reading(site, name, reader, units)


def refusal(site: Site, reason: str) -> FoldError:
    """The error for a site that cannot be folded."""
    return FoldError(f"site {site.name!r}: {reason}, so folding would not be exact; decode with the bank attached")


def foreign_hooks(module: nn.Module) -> bool:
    """Whether somebody else than a bank has put hooks on a module."""
    hooks: list[object] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(hook not in ours(module) for hook in hooks)


def ours(module: nn.Module) -> list[OutputHook | InputHook]:
    """The hooks of a bank on a module."""
    return [hook for hook in watchers(module) if isinstance(hook.look, SiteHook)]


def _path(model: nn.Module, graph: fx.Graph, site: Site) -> list[fx.Node]:
    """The nodes from the site to the map that reads it, both included."""
    if site.place.field is not None:
        raise refusal(site, "it is a field of an output")
    if foreign_hooks(model.get_submodule(site.name)):
        raise refusal(site, "its module has other hooks")
    starts = calls(graph, site.name)
    if len(starts) != 1:
        raise refusal(site, f"its module runs {len(starts)} times")
    path = [_scaled_part(model, site, starts[0])]
    while True:
        node = _only_reader(site, [user for user in path[-1].users if not _reads_a_shape(user)])
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        alone = node.args == (path[-1],) and not node.kwargs
        reads = as_linear_map(module) is not None and alone
        if not (reads or _passes(node, module, path[-1]) or _moves(node, module, path[-1])):
            what = node.op if module is None else type(module).__name__
            raise refusal(site, f"its output goes into {node.target} ({what}), not into a linear layer or convolution")
        if not reads and module is not None and foreign_hooks(module):
            raise refusal(site, f"{node.target!r}, which its output goes into, has other hooks")
        path = [*path, node]
        if reads:
            return path


def _scaled_part(model: nn.Module, site: Site, node: fx.Node) -> fx.Node:
    """The output of a site's module; of a recurrent one, which returns states beside it, the outputs alone."""
    if not isinstance(model.get_submodule(site.name), nn.RNNBase):
        return node
    return _only_reader(site, [user for user in node.users if user.target is not operator.getitem or user.args[1] == 0])


def _only_reader(site: Site, readers: list[fx.Node]) -> fx.Node:
    if len(readers) != 1:
        raise refusal(site, f"its output goes into {len(readers)} places ({', '.join(map(str, readers))})")
    return readers[0]


def _passes(node: fx.Node, module: nn.Module | None, value: fx.Node) -> bool:
    """Whether a node leaves each number where it is, and the scale of a unit too."""
    if module is not None:
        return type(module) in _PASSING and node.args == (value,) and not node.kwargs
    return node.op == "call_function" and node.target in _PASSING_FUNCTIONS and node.args[:1] == (value,)


def _moves(node: fx.Node, module: nn.Module | None, value: fx.Node) -> bool:
    """Whether a node moves the numbers of a value, and nothing but shapes says where to."""
    if module is not None:
        return type(module) in _MOVING_MODULES and node.args == (value,) and not node.kwargs
    if node.args[:1] != (value,) or not all(_is_a_size(other) for other in node.all_input_nodes if other is not value):
        return False
    if _squeezes(node) and not node.args[1:] and not node.kwargs:
        return False  # which axes go depends on their sizes
    if node.op == "call_method":
        return node.target in _MOVING
    if node.target is getattr:
        return node.args[1] in _TRANSPOSED
    return node.op == "call_function" and node.target in _MOVING_FUNCTIONS


def _squeezes(node: fx.Node) -> bool:
    return node.target in ("squeeze", torch.squeeze)


def _reads_a_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    return node.op == "call_function" and node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES


def _is_a_size(node: fx.Node) -> bool:
    """Whether a node is computed from shapes alone."""
    if _reads_a_shape(node):
        return True
    return node.op == "call_function" and node.target in _ARITHMETIC and all(map(_is_a_size, node.all_input_nodes))


def _units_in_any_shape(model: nn.Module, site: Site, path: list[fx.Node], reader: LinearMap) -> Tensor:
    """The units at a map's inputs where nothing is moved but for the flattening of channels."""
    moves = []
    for value, node in itertools.pairwise(path[:-1]):
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not _passes(node, module, value):
            moves.append(_flattens(node, module))
    if moves not in ([], [True]):
        raise refusal(
            site,
            f"its output is reshaped on the way to {path[-1].target!r}; give an example of the model's input, which "
            "shows where its units go: fold(bank, speaker, example=x). Without one it is not known",
        )
    check_axis(site, reader, str(path[-1].target), flat=bool(moves))
    return torch.arange(site.width).repeat_interleave(input_units(reader) // site.width)


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node turns (B, channels, ...) into (B, channels * ...)."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return node.target in ("flatten", torch.flatten) and node.args[1:] == (1,) and not node.kwargs


def check_axis(site: Site, reader: LinearMap, name: str, flat: bool = False) -> None:
    """Refuse a site whose units are not a map's input units in every shape, nor flattened into them."""
    if isinstance(reader, nn.Linear):
        fits = site.dim == 1 and reader.in_features % site.width == 0 if flat else site.dim == -1
        fits = fits and (flat or reader.in_features == site.width)
    else:
        spatial = reader.weight.dim() - 2
        fits = not flat and site.dim in (1, -1 - spatial) and reader.in_channels == site.width
    if not fits:
        raise refusal(site, f"its {site.width} units along axis {site.dim} are not the inputs of {name!r}")


class _Follower(fx.Interpreter):
    """Runs a graph, and beside it the operations of a path on the numbers of the units."""

    def __init__(self, model: nn.Module, graph: fx.Graph, site: Site, path: list[fx.Node]) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False  # an error says what it says
        self._site, self._start, self._path = site, path[0], {node: before for before, node in itertools.pairwise(path)}
        self.numbers: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n is self._start:
            self.numbers[n] = _numbered(self._site, value)
        elif n in self._path:
            before = self._path[n]
            module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
            if as_linear_map(module) is not None or _passes(n, module, before):
                self.numbers[n] = self.numbers[before]
            else:
                if _squeezes(n):
                    self._check_squeezed(n, self.env[before], value)
                env = {**self.env, before: self.numbers[before]}
                args, kwargs = (fx.node.map_arg(part, env.__getitem__) for part in (n.args, n.kwargs))
                self.numbers[n] = getattr(self, n.op)(n.target, args, kwargs)
                if self.numbers[n].dtype != torch.int64 or self.numbers[n].shape != value.shape:
                    raise refusal(self._site, f"{n.target} changes the numbers of its output")
        return value

    def _check_squeezed(self, node: fx.Node, value: Tensor, squeezed: Tensor) -> None:
        """Refuse axes that are squeezed in some sizes, and not in others."""
        axes = (*node.args[1:], *node.kwargs.values())[0]
        if value.dim() - squeezed.dim() != (len(axes) if isinstance(axes, tuple | list) else 1):
            raise refusal(self._site, f"{node} squeezes an axis of more than one element, {tuple(value.shape)}")


def _numbered(site: Site, value: Any) -> Any:
    """The number of the unit in place of each of a site's outputs."""
    if isinstance(value, tuple):
        return (_numbered(site, value[0]),)
    if not isinstance(value, Tensor) or not -value.dim() <= site.dim < value.dim():
        raise SiteError(f"site {site.name!r}: its output, {type(value).__name__}, has no axis {site.dim}")
    if value.shape[site.dim] != site.width:
        raise SiteError(
            f"site {site.name!r}: its output has {value.shape[site.dim]} units along axis {site.dim}, not {site.width}"
        )
    shape = [1] * value.dim()
    shape[site.dim] = site.width
    return torch.arange(site.width, device=value.device).reshape(shape).expand(value.shape).contiguous()


def _units_in_shapes(model: nn.Module, graph: fx.Graph, site: Site, path: list[fx.Node], example: Example) -> Tensor:
    """The units at a map's inputs, in the shapes of an example and of larger ones."""
    name, always = str(path[-1].target), None
    for number, inputs in enumerate(resized(example)):
        follower = _Follower(model, graph, site, path)
        try:
            follower.run(*_bound(model, inputs))
        except FoldError:
            raise
        except Exception as error:  # the model's own code may raise anything
            if number:  # it, or the bank, does not take more along this axis
                continue
            raise FoldError(f"the model does not run on the example ({type(error).__name__}: {error})") from error
        units = _arriving(model, site, name, follower.numbers[path[-1]])
        always = units if always is None else always
        if not torch.equal(units, always):
            raise refusal(site, f"which of its units each input of {name!r} gets depends on the size of the input")
    if always is None:
        raise refusal(site, "the example has no tensor")
    return always


def _arriving(model: nn.Module, site: Site, name: str, numbers: Tensor) -> Tensor:
    """The unit at each input of a map, from what it is given."""
    reader = as_linear_map(model.get_submodule(name))
    if reader is None:
        raise refusal(site, f"{name!r} is not a linear layer or convolution")
    arrived = numbers.movedim(input_axis(reader, numbers.dim()), -1).reshape(-1, input_units(reader))
    if not bool((arrived == arrived[:1]).all()):
        raise refusal(site, f"inputs of {name!r} get different ones of its units at different places")
    return arrived[0].cpu()


def _bound(model: nn.Module, example: Example) -> tuple[Any, ...]:
    """An example as the positional arguments of a model's graph."""
    args, kwargs = arguments(example)
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return tuple(bound.arguments.values())
