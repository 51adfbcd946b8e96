"""Finding a model's sites by name or by type, and attaching a bank of speakers to them.

A pattern is a dotted glob over the names in ``model.named_modules()``. ``*``, ``?`` and ``[...]`` match
within one part of the name and never cross a dot; ``**`` matches any number of parts.
``"hidden.*.activation"`` is the activation of each hidden layer, ``"hidden.[01].activation"`` of the lowest
two, ``"**.activation"`` of all layers however deep. A module type, such as ``nn.LSTM``, matches its
instances.

The number of units of a site is that of its module, if the module knows it: Linear, convolutions, normalisations
and recurrent layers. For activations, pooling and dropout it is that of the nearest such module before the site in the
same container. Otherwise it is measured by running the model once on ``example``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.rnn import PackedSequence

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.site import Site

Pattern = str | type[nn.Module]

# torch's files of modules that keep the number of units and their axis, and the exceptions in them.
_SHAPE_KEEPING = tuple(f"torch.nn.modules.{name}" for name in ("activation", "dropout", "pooling"))
_NOT_SHAPE_KEEPING = (nn.GLU, nn.MultiheadAttention)


def attach(
    model: nn.Module,
    sites: Pattern | Sequence[Pattern],
    speakers: Sequence[str] = (),
    *,
    amplitude: str | Amplitude = "exp",
    example: Tensor | tuple[object, ...] | None = None,
    dim: int | None = None,
    batch_dim: int | None = None,
) -> SpeakerBank:
    """Attach a bank of amplitudes to a model, after the modules that the patterns match.

    Args:
        model: Any torch module. Only hooks are added to it, which ``bank.detach()`` removes.
        sites: Patterns or module types; attach after the non-linearity, and after pooling in a CNN.
        speakers: Names of the bank's rows 1 to S.
        amplitude: The amplitude function xi.
        example: An input to the model, or a tuple of inputs, for widths that are known only when the model runs.
        dim: The axis of the units in the sites' outputs; by default 1 after convolutions, otherwise the last.
        batch_dim: The axis of the batch; by default 1 for recurrent layers without batch_first, otherwise 0.

    Raises:
        SiteError: A pattern matches nothing, a module has two names, a width is not known, or a bank is attached
            there already.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> bank = attach(model, nn.ReLU, speakers=["alice", "bob"])
        >>> with bank.rows(["alice", "bob", "bob"]):
        ...     model(torch.zeros(3, 4)).shape
        torch.Size([3, 3])
        >>> bank.detach()
    """
    matched = find_sites(model, sites, example=example, dim=dim, batch_dim=batch_dim)
    bank = SpeakerBank(model, matched, speakers, amplitude)
    bank.attach()
    return bank


def find_sites(
    model: nn.Module,
    sites: Pattern | Sequence[Pattern],
    *,
    example: Tensor | tuple[object, ...] | None = None,
    dim: int | None = None,
    batch_dim: int | None = None,
) -> list[Site]:
    """The sites that patterns match, with their widths and axes; the model is not touched.

    Args:
        model: Any torch module.
        sites, example, dim, batch_dim: As in ``attach``.

    Raises:
        SiteError: As in ``attach``.
    """
    patterns = [sites] if isinstance(sites, str | type) else list(sites)
    names = match_sites(model, patterns)
    sources = {name: _source(model, name) for name in names}
    shapes = {} if example is None else _run(model, names, example)
    matched = []
    for name in names:
        source = sources[name]
        axis = dim if dim is not None else _unit_dim(name, source, shapes.get(name))
        if name in shapes:
            width = shapes[name][axis] if -len(shapes[name]) <= axis < len(shapes[name]) else None
        else:
            width = None if source is None else _width(source)
        if width is None:
            raise SiteError(
                f"site {name!r} ({type(model.get_submodule(name)).__name__}): the number of its units is not known "
                "from the modules before it; pass example=, an input to run the model on once (and dim= the axis)"
            )
        time_first = isinstance(source, nn.RNNBase) and not source.batch_first
        matched.append(Site(name, width, axis, batch_dim if batch_dim is not None else int(time_first)))
    return matched


def match_sites(model: nn.Module, patterns: Sequence[Pattern]) -> list[str]:
    """Names of the modules that match any of the patterns, in the model's order.

    Raises:
        SiteError: A pattern matches nothing (the message lists the nearest names), or a module has two names.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ReLU())
        >>> match_sites(model, ["*.1"]), match_sites(model, ["**.1"]), match_sites(model, [nn.ReLU])
        (['0.1'], ['0.1', '1'], ['0.1', '1'])
    """
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
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
        return _glob(pattern.split("."), name.split("."))
    return isinstance(module, pattern)


def _glob(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_glob(pattern[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _glob(pattern[1:], parts[1:])


def _explain_no_match(pattern: Pattern, modules: dict[str, nn.Module]) -> str:
    if isinstance(pattern, str):
        near = difflib.get_close_matches(pattern, modules, n=5, cutoff=0.4) or list(modules)[:5]
        return f"no module matches the site {pattern!r}; nearest names: {', '.join(near) or '(no modules)'}"
    types = sorted({type(module).__name__ for module in modules.values()})
    return f"no module is a {pattern.__name__}; the model has {', '.join(types) or 'no modules'}"


def _source(model: nn.Module, name: str) -> nn.Module | None:
    """The module that determines a site's width and axis: its own, or the nearest suitable one before it."""
    parent, _, own = name.rpartition(".")
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


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, _ConvNd):
        return module.out_channels
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if isinstance(module, nn.RNNBase):
        return (module.proj_size or module.hidden_size) * (1 + module.bidirectional)
    return None


def _unit_dim(name: str, source: nn.Module | None, shape: tuple[int, ...] | None) -> int:
    if isinstance(source, _ConvNd | _NormBase):
        return 1
    if source is None and shape is not None and len(shape) > 2:
        raise SiteError(
            f"site {name!r}: which axis of its output {shape} counts the units is not known from the modules "
            "before it; pass dim= (1 for channels, -1 for features last)"
        )
    return -1


def _run(model: nn.Module, names: list[str], example: Tensor | tuple[object, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the sites' outputs on an example input."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, output: object) -> None:
        if isinstance(output, tuple) and output and not isinstance(output, PackedSequence):
            output = output[0]
        if isinstance(output, PackedSequence):
            output = output.data
        if not isinstance(output, Tensor):
            raise SiteError(f"site {name!r}: its module returns {type(output).__name__}, expected a tensor")
        shapes[name] = tuple(output.shape)

    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: record(name, output)
        )
        for name in names
    ]
    try:
        with frozen(model), torch.no_grad():
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    unused = [name for name in names if name not in shapes]
    if unused:
        raise SiteError(f"the model does not run {', '.join(map(repr, unused))} on the example; leave these sites out")
    return shapes
