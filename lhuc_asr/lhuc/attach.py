"""Finding a model's sites by name or by type, and attaching a bank of speakers to them.

A pattern is a dotted glob over the names in ``model.named_modules()``. ``*``, ``?`` and ``[...]`` match
within one part of the name and never cross a dot; ``**`` matches any number of parts.
``"hidden.*.activation"`` is the activation of each hidden layer, ``"hidden.[01].activation"`` of the lowest
two, ``"**.activation"`` of all layers however deep. A module type, such as ``nn.LSTM``, matches its
instances.

The number of units of a site is that of its module, if the module knows it: Linear, convolutions, normalisations
and recurrent layers. For activations, pooling and dropout it is that of the nearest such module before the site in the
same container. With an ``example`` the model is run instead of guessed at: each site must be passed once, its elements
must be independent along one axis, the batch's, and its units lie along another (see ``probe``).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.names import glob_matches, inner, nearest_names
from lhuc_asr.lhuc.place import Place
from lhuc_asr.lhuc.probe import Example, Passed, batch_axes, run, steady_axes
from lhuc_asr.lhuc.site import Site

Pattern = str | type[nn.Module]
Patterns = Pattern | Sequence[Pattern]

# torch's files of modules that keep the number of units and their axis, and the exceptions in them.
_SHAPE_KEEPING = tuple(f"torch.nn.modules.{name}" for name in ("activation", "dropout", "pooling"))
_NOT_SHAPE_KEEPING = (nn.GLU, nn.MultiheadAttention)


def attach(
    model: nn.Module,
    sites: Patterns = (),
    speakers: Sequence[str] = (),
    *,
    inputs_of: Patterns = (),
    amplitude: str | Amplitude = "exp",
    example: Example | None = None,
    dim: int | None = None,
    batch_dim: int | None = None,
    field: str | int | None = None,
    repeats: bool = False,
) -> SpeakerBank:
    """Attach a bank of amplitudes to a model, after the modules that the patterns match, or before them.

    Args:
        model: Any torch module. Only hooks are added to it, which ``bank.detach()`` removes. Of a model in a wrapper
            (``torch.compile``, DDP) the sites are named as without it.
        sites: Patterns or module types; attach after the non-linearity, and after pooling in a CNN.
        speakers: Names of the bank's rows 1 to S.
        inputs_of: Patterns or module types whose first input carries amplitudes: the layers that read the output of an
            activation that is a function and not a module.
        amplitude: The amplitude function xi.
        example: An input to the model: a tensor, a tuple of arguments, or a mapping of arguments by name, its batch
            along the first or second axis. With it widths and axes are measured, and checked, in place of guessed.
        dim: The axis of the units at the sites; by default 1 after convolutions, otherwise the last.
        batch_dim: The axis of the batch at the sites; by default 1 for recurrent layers without batch_first,
            otherwise 0.
        field: The field of the sites' outputs, where modules return mappings, dataclasses, lists or tuples.
        repeats: Whether a module may run more than once in a forward pass; its row then acts every time.

    Raises:
        SiteError: A pattern matches nothing, a module has two names, a width is not known, or a bank is attached
            there already. With an example: a site is not passed once, its batch cannot be found, or its units cannot.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> bank = attach(model, nn.ReLU, speakers=["alice", "bob"])
        >>> with bank.rows(["alice", "bob", "bob"]):
        ...     model(torch.zeros(3, 4)).shape
        torch.Size([3, 3])
        >>> bank.detach()
    """
    matched = find_sites(
        model,
        sites,
        inputs_of=inputs_of,
        example=example,
        dim=dim,
        batch_dim=batch_dim,
        field=field,
        repeats=repeats,
    )
    bank = SpeakerBank(model, matched, speakers, amplitude)
    bank.attach()
    return bank


def find_sites(
    model: nn.Module,
    sites: Patterns = (),
    *,
    inputs_of: Patterns = (),
    example: Example | None = None,
    dim: int | None = None,
    batch_dim: int | None = None,
    field: str | int | None = None,
    repeats: bool = False,
) -> list[Site]:
    """The sites that patterns match, with their widths and axes; the model is not touched.

    Args:
        model: Any torch module.
        sites, inputs_of, example, dim, batch_dim, field, repeats: As in ``attach``.

    Raises:
        SiteError: As in ``attach``.
    """
    model = inner(model)
    after, before = (_listed(patterns) for patterns in (sites, inputs_of))
    named = match_sites(model, after) if after or not before else []
    places = [Place.of(name, field=field) for name in named]
    places += [Place.of(name, of_input=True) for name in (match_sites(model, before) if before else [])]
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    places.sort(key=lambda place: (order[place.module], not place.of_input))
    for place in places:
        _refuse_unreached(model, place)
    if example is None:
        return [_guessed(model, place, dim, batch_dim) for place in places]
    passed = run(model, places, example)
    _check_once(passed, repeats)
    batch = batch_axes(model, places, example, passed, batch_dim)
    steady = steady_axes(model, places, example, passed)
    return [_measured(model, place, passed, batch, steady, dim, batch_dim) for place in places]


def _listed(patterns: Patterns) -> list[Pattern]:
    return [patterns] if isinstance(patterns, str | type) else list(patterns)


def _guessed(model: nn.Module, place: Place, dim: int | None, batch_dim: int | None) -> Site:
    """A site by what its module, or the nearest before it, says of itself."""
    source = _source(model, place)
    width = None if source is None else _width(source, place)
    if width is None:
        raise SiteError(
            f"site {place.name!r} ({type(model.get_submodule(place.module)).__name__}): the number of its units is not "
            "known from the modules before it; pass example=, an input to run the model on (and dim= the axis)"
        )
    axis = _unit_dim(source) if dim is None else dim
    time_first = isinstance(source, nn.RNNBase) and not source.batch_first
    return Site(place.name, width, axis, int(time_first) if batch_dim is None else batch_dim)


def _measured(
    model: nn.Module,
    place: Place,
    passed: Passed,
    batch: dict[str, int],
    steady: dict[str, set[int]],
    dim: int | None,
    batch_dim: int | None,
) -> Site:
    """A site by what passed it when the model ran."""
    shape, source = tuple(passed[place.name][0].shape), _source(model, place)
    time_first = isinstance(source, nn.RNNBase) and not source.batch_first
    own_batch = batch.get(place.name, int(time_first) if batch_dim is None else batch_dim)
    axis = dim
    if axis is None and source is not None:
        axis = _unit_dim(source)
    if axis is None:
        left = steady[place.name] - {own_batch}
        if len(left) != 1:
            raise SiteError(
                f"site {place.name!r}: which axis of its output {shape} counts the units is not known from the modules "
                "before it, nor from running it; pass dim= (1 for channels, -1 for features last)"
            )
        (only,) = left
        axis = -1 if only == len(shape) - 1 else only
    if not -len(shape) <= axis < len(shape) or axis % len(shape) == own_batch:
        raise SiteError(
            f"site {place.name!r}: its output {shape} has no units along axis {axis}, its batch along {own_batch}; "
            "correct dim="
        )
    return Site(place.name, shape[axis], axis, own_batch)


def _check_once(passed: Passed, repeats: bool) -> None:
    """Refuse sites that the model does not pass, or, unless that is asked for, passes more than once."""
    unused = [name for name, tensors in passed.items() if not tensors]
    if unused:
        raise SiteError(f"the model does not run {', '.join(map(repr, unused))} on the example; leave these sites out")
    often = {name: len(tensors) for name, tensors in passed.items() if len(tensors) > 1}
    if often and not repeats:
        name, count = next(iter(often.items()))
        raise SiteError(
            f"site {name!r}: the model runs it {count} times, so that one row would scale {count} layers; give each "
            "place a module of its own, or pass repeats=True if they are to share their amplitudes"
        )


def _refuse_unreached(model: nn.Module, place: Place) -> None:
    """Refuse modules whose hooks torch never calls."""
    parent, _, own = place.module.rpartition(".")
    if own == "out_proj" and isinstance(model.get_submodule(parent), nn.MultiheadAttention):
        raise SiteError(
            f"site {place.name!r}: nn.MultiheadAttention never runs its out_proj as a module; attach to {parent!r}, "
            "whose output is that of out_proj"
        )


def match_sites(model: nn.Module, patterns: Sequence[Pattern]) -> list[str]:
    """Names of the modules that match any of the patterns, in the model's order.

    Raises:
        SiteError: A pattern matches nothing (the message lists the nearest names), or a module has two names.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ReLU())
        >>> match_sites(model, ["*.1"]), match_sites(model, ["**.1"]), match_sites(model, [nn.ReLU])
        (['0.1'], ['0.1', '1'], ['0.1', '1'])
    """
    modules = {name: module for name, module in inner(model).named_modules(remove_duplicate=False) if name}
    if not patterns:
        raise SiteError("no sites are named; pass a pattern such as 'hidden.*.activation', or a module type")
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [name for name, module in modules.items() if _matches(pattern, name, module)]
        if not hits:
            raise SiteError(_explain_no_match(pattern, modules))
        chosen.update(hits)
    matched = [name for name in modules if name in chosen]
    first_name: dict[nn.Module, str] = {}
    for name, module in modules.items():
        earlier = first_name.setdefault(module, name)
        if earlier != name and (name in chosen or earlier in chosen):
            raise SiteError(
                f"{earlier!r} and {name!r} are one module and would share amplitudes; give each place its own module"
            )
    return matched


def _matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if isinstance(pattern, str):
        return glob_matches(pattern, name)
    return isinstance(module, pattern)


def _explain_no_match(pattern: Pattern, modules: dict[str, nn.Module]) -> str:
    if isinstance(pattern, str):
        return (
            f"no module matches the site {pattern!r}; nearest names: {nearest_names(pattern, modules)} (a pattern is a "
            "whole name, in which ** stands for any parts)"
        )
    types = sorted({type(module).__name__ for module in modules.values()})
    return f"no module is a {pattern.__name__}; the model has {', '.join(types) or 'no modules'}"


def _source(model: nn.Module, place: Place) -> nn.Module | None:
    """The module that determines a site's width and axis: its own, or the nearest suitable one before it."""
    if place.of_input:
        module = model.get_submodule(place.module)
        return module if _width(module, place) is not None else None
    if place.field is not None:
        return None
    parent, _, own = place.module.rpartition(".")
    siblings = list(model.get_submodule(parent).named_children())
    position = [child for child, _ in siblings].index(own)
    normalisation = None
    for _, module in reversed(siblings[: position + 1]):
        if isinstance(module, _NormBase):
            # Its axis is 1 even for (B, H); a module before it may determine the axis more precisely.
            normalisation = normalisation or module
            continue
        if _width(module) is not None:
            return module
        keeps = type(module).__module__ in _SHAPE_KEEPING or isinstance(module, nn.Identity)
        if not keeps or isinstance(module, _NOT_SHAPE_KEEPING):
            break
    return normalisation


def _width(module: nn.Module, place: Place | None = None) -> int | None:
    """Number of units of a module's output, or of its input at a place that is one."""
    of_input = place is not None and place.of_input
    if isinstance(module, nn.Linear):
        return module.in_features if of_input else module.out_features
    if isinstance(module, _ConvNd):
        return module.in_channels if of_input else module.out_channels
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if isinstance(module, nn.RNNBase):
        return module.input_size if of_input else (module.proj_size or module.hidden_size) * (1 + module.bidirectional)
    return None


def _unit_dim(source: nn.Module | None) -> int:
    return 1 if isinstance(source, _ConvNd | _NormBase) else -1
