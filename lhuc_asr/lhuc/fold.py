"""Folding a speaker's amplitudes into the weights, for decoding at no cost.

If the scaled activations go into one linear map and nowhere else, the scale can move into its columns:

    W (xi(r) * psi) + b = (W diag(xi(r))) psi + b

A site at the input of such a map is folded as it stands. From a site at an output, the way to the map is read from the
model's graph (see ``reading``). What is a linear map is measured where it is not torch's own (see ``linear_map``). That
nothing else reads its weight is known from the graph, or from a run of an example. Anything else (two consumers, a
recurrent layer, a residual sum, a functional call) is refused, because the folded model would not be the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from lhuc_asr.base.errors import FoldError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.linear_map import as_linear_map, scale_columns, why_not_exact
from lhuc_asr.lhuc.place import nesting_around, stop_watching, watch
from lhuc_asr.lhuc.probe import Example, arguments
from lhuc_asr.lhuc.reading import Reading, calls, check_axis, foreign_hooks, ours, read_in, refusal, trace
from lhuc_asr.lhuc.site import Selection, Site, scale_output
from lhuc_asr.lhuc.weight_reads import WeightReads

_GIVE_AN_EXAMPLE = "give an example of the model's input: fold(bank, speaker, example=x)"


def fold(bank: SpeakerBank, speaker: str, example: Example | None = None) -> nn.Module:
    """A copy of the bank's model, without hooks, that computes what the model computes for one speaker in evaluation.

    Args:
        bank: Attached or not.
        speaker: The speaker; "" for row 0.
        example: An input to the model: a tensor, a tuple of arguments, or a mapping of arguments by name. It is needed
            where the model cannot be traced, and where outputs are reshaped on the way to the next map. The copy is run
            on it too, and must give what the model gives.

    Raises:
        FoldError: Folding would not be exact at some site; the message says where and why.
        SpeakerError: The bank does not know the speaker.
    """
    folded = copy.deepcopy(bank.model)
    with frozen(folded), torch.no_grad():
        rows = bank.rows_of([speaker])
        xi = {site.name: bank.xi(site.name, rows)[0] for site in bank.sites}
        graph = _graph(folded, bank.sites, example)
        readings = [_reading(folded, graph, site, example) for site in bank.sites]
        for reading in readings:
            _check_map(folded, reading)
        if graph is not None:
            _check_graph(graph, readings, seen=example is not None)
        expected = [] if example is None else _run_scaled(folded, readings, xi, example)
        for reading in readings:
            # In float64, so that the product is rounded once.
            factors = xi[reading.site.name].double().cpu()[reading.units]
            scale_columns(reading.reader, factors)
        stop_watching(folded, [hook for module in folded.modules() for hook in ours(module)])
        if example is not None:
            _check_same(expected, _run(folded, example))
    return folded


def _graph(model: nn.Module, sites: tuple[Site, ...], example: Example | None) -> fx.Graph | None:
    """The model's graph; None where every site is at a map's input, and an example shows the rest."""
    outputs = {site.place.module for site in sites if not site.place.of_input}
    if not outputs and example is not None:
        return None
    graph = trace(model, outputs)
    if isinstance(graph, fx.Graph):
        return graph
    if outputs:
        raise FoldError(
            f"{graph}, so the layers that read {', '.join(map(repr, sorted(outputs)[:3]))} are not known; attach to "
            "their inputs (inputs_of=), or decode with the bank attached instead"
        )
    raise FoldError(f"{graph}, so it is not known what else reads the weights; {_GIVE_AN_EXAMPLE}")


def _reading(model: nn.Module, graph: fx.Graph | None, site: Site, example: Example | None) -> Reading:
    if graph is not None and not site.place.of_input:
        return read_in(model, graph, site, example)
    name = site.place.module
    reader = as_linear_map(model.get_submodule(name))
    if reader is None:
        what = type(model.get_submodule(name)).__name__
        raise refusal(site, f"{name!r} ({what}) is not a linear layer or convolution")
    check_axis(site, reader, name)
    return Reading(site, name, reader, torch.arange(site.width))


def _check_map(model: nn.Module, reading: Reading) -> None:
    """Refuse a map whose weight is not its own, or whose input is not all that it computes with."""
    site, name, reader = reading.site, reading.name, reading.reader
    reason = why_not_exact(reader)
    if reason is not None:
        raise refusal(site, f"{name!r} ({type(reader).__name__}): {reason}")
    if foreign_hooks(reader):
        raise refusal(site, f"{name!r} has other hooks, which may change its input or look at it")
    holders = [holder for holder, p in model.named_parameters(remove_duplicate=False) if p is reader.weight]
    if len(holders) != 1:
        raise refusal(site, f"the weight of {name!r} is shared: {', '.join(holders)}")


def _check_graph(graph: fx.Graph, readings: list[Reading], seen: bool) -> None:
    """Refuse maps whose weight something else reads, by the graph.

    Args:
        graph: The model's graph.
        readings: The maps.
        seen: Whether an example shows what torch's own modules do, which the graph does not look into.
    """
    for site, name in ((reading.site, reading.name) for reading in readings):
        users = [
            use
            for node in graph.nodes
            if node.op == "get_attr" and node.target == f"{name}.weight"
            for use in node.users
        ]
        if users:
            raise _read_elsewhere(site, name, ", ".join(map(str, users)))
        inside = [
            node.target for node in graph.nodes if node.op == "call_module" and name.startswith(f"{node.target}.")
        ]
        if not seen and (inside or not calls(graph, name)):
            where = f"runs inside {inside[0]!r}" if inside else "does not run by itself"
            raise refusal(
                site, f"{name!r} {where} in the model's graph; {_GIVE_AN_EXAMPLE}. Without one it is not known"
            )


def _run_scaled(model: nn.Module, readings: list[Reading], xi: Mapping[str, Tensor], example: Example) -> list[Tensor]:
    """What a model gives with its sites scaled; maps that do not run, or whose weight others read, are refused."""
    row = Selection(torch.zeros(1, dtype=torch.int64))
    sites = [reading.site for reading in readings]
    handles = [
        watch(
            model.get_submodule(site.place.module),
            site.place,
            partial(scale_output, site, amplitude=xi[site.name][None], selection=row),
        )
        for site in sites
    ]
    nesting = nesting_around(model, [site.place for site in sites])
    for encoder in nesting:
        encoder.use_nested_tensor = False
    try:
        with WeightReads({reading.name: reading.reader for reading in readings}) as reads:
            output = _run(model, example)
    finally:
        for handle in handles:
            handle.remove()
        for encoder in nesting:
            encoder.use_nested_tensor = True
    for site, name in ((reading.site, reading.name) for reading in readings):
        if not reads.run[name]:
            raise refusal(site, f"{name!r} does not run on the example, so what reads its weight is not known")
        if reads.run[name] > 1 and not site.place.of_input:
            raise refusal(site, f"{name!r}, which its output goes into, runs more than once")
        if name in reads.elsewhere:
            raise _read_elsewhere(site, name, reads.elsewhere[name])
    return output


def _run(model: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that a model gives for an example."""
    args, kwargs = arguments(example)
    return [leaf for leaf in tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]


def _check_same(before: list[Tensor], after: list[Tensor]) -> None:
    """Refuse a copy that gives something else than the model with its bank, by more than rounding."""
    same = len(before) == len(after)
    for old, new in zip(before, after, strict=False):
        if old.is_floating_point() and old.shape == new.shape:
            bound = torch.finfo(old.dtype).eps ** 0.5
            size = float(old[old.isfinite()].abs().amax()) if bool(old.isfinite().any()) else 0.0
            same = same and torch.allclose(new, old, rtol=bound, atol=bound * size, equal_nan=True)
        else:
            same = same and old.shape == new.shape
    if not same:
        raise FoldError(
            "the folded copy gives something else on the example than the model with its bank, so something beside "
            "the folded layers sees the scaled activations; decode with the bank attached"
        )


def _read_elsewhere(site: Site, name: str, where: str) -> FoldError:
    return refusal(site, f"the weight of {name!r} is read elsewhere too ({where})")
