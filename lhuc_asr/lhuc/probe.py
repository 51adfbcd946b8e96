"""What passes some places of a model, found by running it: how often, in which shapes, and where its batch lies.

The axis of the batch is the one whose elements do not know of each other. To find it, one element is put before those
of an example, and the model runs again: along the axis of the batch, every place has one element more, and the others
are as they were. Along an axis of time they are not, unless the model looks at each frame alone. Then nothing but the
user knows which of the two has speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.place import Place, nesting_around, tensor_at, watch

# An input of a model: a tensor, positional arguments, or arguments by name.
Example = Tensor | tuple[object, ...] | Mapping[str, object]
# The tensors that pass each place, in order, by the place's name.
Passed = dict[str, list[Tensor]]

# A kernel rounds otherwise in a larger batch; an element that hears of a new neighbour changes by more. Relative to the
# largest value.
_ROUNDING = 1e-3
# Axes of an example that may be the batch's: the first, or the second of time-first models.
_BATCH_AXES = 2


class _Otherwise(Exception):
    """An axis of the example is not the batch's; says why."""


def run(model: nn.Module, places: Sequence[Place], example: Example) -> Passed:
    """Run a model on an example; the model is left as it was.

    Raises:
        SiteError: What passes a place is not a tensor.
    """
    passed: Passed = {place.name: [] for place in places}

    def note(place: Place) -> Callable[[Any], object]:
        def look(value: Any) -> object:
            passed[place.name].append(tensor_at(place, value).detach().clone())
            return value

        return look

    nesting = nesting_around(model, places)
    for encoder in nesting:
        encoder.use_nested_tensor = False
    handles = [watch(model.get_submodule(place.module), place, note(place)) for place in places]
    args, kwargs = arguments(example)
    try:
        with frozen(model), torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for encoder in nesting:
            encoder.use_nested_tensor = True
    return passed


def batch_axes(
    model: nn.Module, places: Sequence[Place], example: Example, passed: Passed, wanted: int | None
) -> dict[str, int]:
    """The axis of the batch at each place.

    Args:
        model: The model.
        places: The places.
        example: An example whose first tensor has the batch along its first or second axis.
        passed: What ``run`` gave for the example.
        wanted: The axis that the batch is known to have at the places, or None.

    Returns:
        A place's name -> the axis; nothing if the example has no tensor to enlarge.

    Raises:
        SiteError: The elements are independent along no axis, along more than one, or not along the wanted one.
    """
    lead = next((value for value in values(example) if isinstance(value, Tensor) and value.dim()), None)
    if lead is None:
        return {}
    possible: list[dict[str, int]] = []
    reasons: list[str] = []
    for axis in range(min(lead.dim(), _BATCH_AXES)):
        count = lead.shape[axis]
        try:
            larger = _run_changed(model, places, example, partial(_one_more, axis=axis, count=count))
            axes = {name: _axis(name, before, larger[name], count) for name, before in passed.items()}
        except _Otherwise as reason:
            reasons.append(f"axis {axis}: {reason}")
            continue
        if wanted is None or all(wanted % passed[name][0].dim() == own for name, own in axes.items()):
            possible.append(axes)
        else:
            reasons.append(f"axis {axis}: it lies elsewhere than along batch_dim={wanted} there ({axes})")
    if not possible:
        raise SiteError(
            f"no axis of the example counts elements that each could have a speaker ({'; '.join(reasons)}); "
            "give an example with the batch along its first or second axis, or attach at other sites"
        )
    if len(possible) > 1:
        raise SiteError(
            "the model treats each element of the example alone along both of its first two axes; pass batch_dim=, the "
            "axis that counts the elements that have speakers"
        )
    return possible[0]


def steady_axes(model: nn.Module, places: Sequence[Place], example: Example, passed: Passed) -> dict[str, set[int]]:
    """The axes of each place whose sizes do not depend on the example's: of these one is the units'.

    Every axis of the example's first tensor is doubled in turn, where the model takes that. Its features it does not.
    """
    steady = {name: set(range(before[0].dim())) for name, before in passed.items()}
    lead = next((value for value in values(example) if isinstance(value, Tensor)), None)
    if lead is None:
        return steady
    for axis in range(lead.dim()):
        try:
            larger = _run_changed(model, places, example, partial(_doubled, lead=lead, axis=axis))
        except _Otherwise:
            continue
        for name, before in passed.items():
            after = larger[name][0].shape if larger[name] else before[0].shape
            steady[name] -= {place for place, size in enumerate(before[0].shape) if after[place : place + 1] != (size,)}
    return steady


def resized(example: Example) -> Iterator[Example]:
    """An example, then with one element more, and with twice as many, along each axis of its first tensor."""
    yield example
    lead = next((value for value in values(example) if isinstance(value, Tensor)), None)
    if lead is None:
        return
    for axis in range(lead.dim()):
        yield mapped(example, partial(_one_more, axis=axis, count=lead.shape[axis]))
        yield mapped(example, partial(_doubled, lead=lead, axis=axis))


def _run_changed(
    model: nn.Module, places: Sequence[Place], example: Example, change: Callable[[object], object]
) -> Passed:
    try:
        return run(model, places, mapped(example, change))
    except SiteError:
        raise
    except Exception as error:  # the model's own code may raise anything
        raise _Otherwise(f"the model does not take more along it ({type(error).__name__}: {error})") from error


def _one_more(value: object, axis: int, count: int) -> object:
    """A tensor with another element put before the batch's.

    They lie along the axis, or, as in a mask (B, T) beside time-first features (T, B, D), along the first of that size.
    """
    if not isinstance(value, Tensor) or count not in value.shape:
        return value
    if axis >= value.dim() or value.shape[axis] != count:
        axis = value.shape.index(count)
    last = value.narrow(axis, count - 1, 1)
    other = last.flatten().roll(1).reshape(last.shape)
    return torch.cat([other * 1.5 if value.is_floating_point() else other, value], axis)


def _doubled(value: object, lead: Tensor, axis: int) -> object:
    """A tensor of the first one's shape twice, one after the other along an axis."""
    return torch.cat([value, value], axis) if isinstance(value, Tensor) and value.shape == lead.shape else value


def _axis(name: str, before: Sequence[Tensor], after: Sequence[Tensor], count: int) -> int:
    """The axis along which a place has one element more, and the others as they were."""
    if len(before) != len(after):
        raise _Otherwise(f"{name!r} is passed {len(before)} times, and {len(after)} times with one element more")
    axes = set()
    for old, new in zip(before, after, strict=True):
        grown = [axis for axis in range(old.dim()) if old.dim() == new.dim() and new.shape[axis] != old.shape[axis]]
        if len(grown) != 1:
            raise _Otherwise(f"{name!r} has shape {tuple(old.shape)}, and {tuple(new.shape)} with one element more")
        (axis,) = grown
        if old.shape[axis] != count or new.shape[axis] != count + 1:
            raise _Otherwise(f"{name!r} has {old.shape[axis]} elements along axis {axis} for {count} of the example")
        own = new.narrow(axis, 1, count)
        bound = _ROUNDING * max(float(old.abs().max()), 1e-6) if old.numel() else 0.0
        if bool(((own - old).abs() > bound).any()):
            raise _Otherwise(f"at {name!r} the elements depend on each other")
        axes.add(axis)
    if len(axes) != 1:
        raise _Otherwise(f"at {name!r} the elements lie along other axes each time")
    return axes.pop()


def arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of the model: positional ones, and those by name."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def values(example: Example) -> list[object]:
    """The arguments of a call of the model, one after the other."""
    args, kwargs = arguments(example)
    return [*args, *kwargs.values()]


def mapped(example: Example, change: Callable[[object], object]) -> Example:
    """The example with each argument changed."""
    args, kwargs = arguments(example)
    if kwargs:
        return {name: change(value) for name, value in kwargs.items()}
    return tuple(change(value) for value in args)
