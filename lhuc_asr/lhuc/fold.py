"""Folding a speaker's amplitudes into the weights, for decoding at no cost.

If the scaled activations go into one linear map and nowhere else, the scale can move into its columns:

    W (xi(r) * psi) + b = (W diag(xi(r))) psi + b

A site at the input of such a map is folded as it stands. From a site at an output, the path to the map is read from the
model's graph, which is traced with torch.fx, and not guessed from names. Only dropout, identities and the flattening of
channels may lie between the two. Anything else (two consumers, a recurrent layer, a residual sum, a functional call) is
refused, because the folded model would not be the same.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from lhuc_asr.base.errors import FoldError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.place import InputHook, OutputHook, stop_watching, watchers
from lhuc_asr.lhuc.site import Site, SiteHook

_Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Each of these passes the scale of a unit on: dropout sets values to zero, or scales all values alike.
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def fold(bank: SpeakerBank, speaker: str) -> nn.Module:
    """A copy of the bank's model, without hooks, that computes what the model computes for one speaker.

    Args:
        bank: Attached or not.
        speaker: The speaker; "" for row 0.

    Raises:
        FoldError: Folding would not be exact at some site; the message says where and why.
        SpeakerError: The bank does not know the speaker.
    """
    rows = bank.rows_of([speaker])
    folded = copy.deepcopy(bank.model)
    outputs = {site.place.module for site in bank.sites if not site.place.of_input}
    graph = _trace(folded, outputs) if outputs else None
    with torch.no_grad():
        for site in bank.sites:
            xi = bank.xi(site.name, rows)[0]
            consumer = _reader(folded, site) if graph is None or site.place.of_input else _consumer(folded, graph, site)
            # In float64, so that the product is rounded once.
            columns = _columns(consumer, xi.to(consumer.weight.device, torch.float64))
            consumer.weight.copy_(consumer.weight * columns)
    stop_watching(folded, [hook for module in folded.modules() for hook in _ours(module)])
    return folded


class _Tracer(fx.Tracer):
    """Traces a model down to torch's own modules and to the sites, which may be modules of any kind."""

    def __init__(self, sites: set[str]) -> None:
        super().__init__()
        self._sites = sites

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return qualified_name in self._sites or super().is_leaf_module(module, qualified_name)


def _trace(model: nn.Module, sites: set[str]) -> fx.Graph:
    try:
        return _Tracer(sites).trace(model)
    except Exception as error:  # the model's own code runs on symbols here, and may raise anything
        raise FoldError(
            f"{type(model).__name__} cannot be traced, so the layers after its activations are not known ({error}); "
            "decode with the bank attached instead"
        ) from error


def _reader(model: nn.Module, site: Site) -> _Linear:
    """The linear map at whose input a site is."""
    name = site.place.module
    module = _linear(model.get_submodule(name))
    if module is None:
        what = type(model.get_submodule(name)).__name__
        raise _refusal(site, f"{name!r} ({what}) is not a linear layer or convolution")
    _check_weight(model, module, site, name)
    _check_axis(site, module, name, flat=False)
    return module


def _consumer(model: nn.Module, graph: fx.Graph, site: Site) -> _Linear:
    """The linear map that a site's output goes into, and nothing else."""
    if site.place.field is not None:
        raise _refusal(site, "it is a field of an output")
    calls = _calls(graph, site.name)
    if len(calls) != 1:
        raise _refusal(site, f"its module runs {len(calls)} times")
    node, flat = calls[0], False
    while True:
        if len(node.users) != 1:
            raise _refusal(site, f"its output goes into {len(node.users)} places ({', '.join(map(str, node.users))})")
        node = next(iter(node.users))
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        linear = _linear(module)
        if linear is not None:
            break
        if _flattens(node, module):
            flat = True
        elif type(module) not in _PASSING:
            what = node.op if module is None else type(module).__name__
            raise _refusal(site, f"its output goes into {node.target} ({what}), not into a linear layer or convolution")

    name = str(node.target)
    if len(_calls(graph, name)) != 1:
        raise _refusal(site, f"{name!r}, which its output goes into, runs more than once")
    _check_weight(model, linear, site, name)
    _check_axis(site, linear, name, flat)
    return linear


def _linear(module: nn.Module | None) -> _Linear | None:
    """A module, if it is exactly a linear layer or a convolution: a subclass may do something else."""
    if isinstance(module, (nn.Linear, *_CONVOLUTIONS)) and type(module) in (nn.Linear, *_CONVOLUTIONS):
        return module
    return None


def _check_weight(model: nn.Module, module: _Linear, site: Site, name: str) -> None:
    """Refuse a map whose weight is not its own, or whose input is changed by others' hooks."""
    hooks = [hook for hook in module._forward_pre_hooks.values() if hook not in _ours(module)]
    if not isinstance(module.weight, nn.Parameter) or "weight" not in module._parameters or hooks:
        raise _refusal(site, f"the weight of {name!r} is computed from others, or a hook changes its input")
    holders = [holder for holder, p in model.named_parameters(remove_duplicate=False) if p is module.weight]
    if len(holders) != 1:
        raise _refusal(site, f"the weight of {name!r} is shared: {', '.join(holders)}")


def _ours(module: nn.Module) -> list[OutputHook | InputHook]:
    """The hooks of a bank on a module."""
    return [hook for hook in watchers(module) if isinstance(hook.look, SiteHook)]


def _calls(graph: fx.Graph, name: str) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module" and node.target == name]


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node turns (B, channels, ...) into (B, channels * ...)."""
    if type(module) is nn.Flatten:
        return (module.start_dim, module.end_dim) == (1, -1)
    called = node.target in ("flatten", torch.flatten) and node.op in ("call_method", "call_function")
    return called and node.args[1:] == (1,) and not node.kwargs


def _check_axis(site: Site, consumer: _Linear, name: str, flat: bool) -> None:
    """Whether the site's units are the consumer's input units, or flattened into them."""
    if isinstance(consumer, nn.Linear):
        fits = site.dim == 1 and consumer.in_features % site.width == 0 if flat else site.dim == -1
        fits = fits and (flat or consumer.in_features == site.width)
    else:
        spatial = consumer.weight.dim() - 2
        fits = not flat and site.dim in (1, -1 - spatial) and consumer.in_channels == site.width
    if not fits:
        raise _refusal(site, f"its {site.width} units along axis {site.dim} are not the inputs of {name!r}")


def _columns(consumer: _Linear, xi: Tensor) -> Tensor:
    """Factors of the consumer's weight, of a shape that broadcasts to it."""
    if isinstance(consumer, nn.Linear):
        # Flattened channels: in_features / H neighbouring columns belong to each channel.
        return xi.repeat_interleave(consumer.in_features // len(xi))
    groups, kernel = consumer.groups, [1] * (consumer.weight.dim() - 2)
    grouped = xi.reshape(groups, -1).repeat_interleave(consumer.out_channels // groups, dim=0)
    return grouped.reshape(*grouped.shape, *kernel)  # (channels out, channels in a group, 1, ...)


def _refusal(site: Site, reason: str) -> FoldError:
    return FoldError(f"site {site.name!r}: {reason}, so folding would not be exact; decode with the bank attached")
