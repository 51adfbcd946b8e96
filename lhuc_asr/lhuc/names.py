"""Names in a model: globs over them, and what they are where a model is wrapped.

A pattern is a dotted glob. ``*``, ``?`` and ``[...]`` match within one part of a name and never cross a dot; ``**``
matches any number of parts.

``torch.compile``, DDP and other wrappers put parts of their own into the names of a model's modules and tensors.
Without them the names of a wrapped model are those of the model inside.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from lhuc_asr.lhuc.site import Site

# The parts of names that torch.compile, FSDP and checkpoint_wrapper add, at any depth.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def glob_matches(pattern: str, name: str) -> bool:
    """Whether a dotted name matches a pattern.

    Example:
        >>> [glob_matches("encoder.**", name) for name in ("encoder", "encoder.0.weight", "output.weight")]
        [True, True, False]
    """
    return _matches(pattern.split("."), name.split("."))


def _matches(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(pattern[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])


def nearest_names(pattern: str, names: Iterable[str]) -> str:
    """The names that are most like a pattern, for messages."""
    known = list(names)
    # A pattern that lacks what comes before is like no whole name: its last part says what is meant.
    last = pattern.rsplit(".", 1)[-1].strip("*?")
    alike = set(difflib.get_close_matches(last, {name.rsplit(".", 1)[-1] for name in known}, n=2))
    near = difflib.get_close_matches(pattern, known, n=5, cutoff=0.6)
    near = near or [name for name in known if name.rsplit(".", 1)[-1] in alike][:5]
    near = near or difflib.get_close_matches(pattern, known, n=5, cutoff=0.4) or known[:5]
    return ", ".join(near) or "(none)"


def inner(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of ``torch.compile``, DDP, DataParallel and FSDP; any other model itself."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif (wrapped := next((model._modules[part] for part in _WRAPPED if part in model._modules), None)) is not None:
            model = wrapped
        else:
            return model


def plain_name(name: str) -> str:
    """A name without the parts that wrappers have put into it.

    Example:
        >>> plain_name("encoder._orig_mod.0.weight")
        'encoder.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPED)


def common_prefix(names: Iterable[str]) -> tuple[str, ...]:
    """The parts that all names begin with; the last part of a name is never among them.

    Example:
        >>> common_prefix(["model.encoder.weight", "model.scores.weight"])
        ('model',)
    """
    paths = [name.split(".")[:-1] for name in names]
    first, last = min(paths, default=[]), max(paths, default=[])
    same = [mine == its for mine, its in zip(first, last, strict=False)]
    return tuple(first[: (*same, False).index(False)])


def moved_sites(
    sites: Sequence[Site], model: nn.Module, before: Sequence[str], after: Sequence[str]
) -> tuple[Site, ...]:
    """Sites by the names that they have in another model of the same weights, which may be wrapped otherwise.

    Args:
        sites: The sites.
        model: The other model.
        before: What the names of all tensors began with in the model that the sites come from.
        after: What the names of all tensors begin with in that.
    """
    old, new = list(before), list(after)
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    known = {plain_name(name): name for name, _ in model.named_modules()}
    moved = []
    for site in sites:
        module, colon, rest = site.name.partition(":")
        parts = plain_name(module).split(".")
        if parts[: len(old)] == old:
            name = ".".join([*new, *parts[len(old) :]])
            module = known.get(name, name)
        moved.append(replace(site, name=f"{module}{colon}{rest}"))
    return tuple(moved)
