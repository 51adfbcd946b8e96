"""Every number of every configuration has finite limits, and is refused beyond them.

The classes are all subclasses of ``StrictModel`` in the package, so that a new one is checked too.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError, create_model

import lhuc_asr
from lhuc_asr.base.config import StrictModel

# Numbers that need no limit, each with its reason.
WITHOUT_LIMITS: dict[str, str] = {}
# Classes of configurations of which at least this many have numbers; a walk that sees nothing proves nothing.
LEAST_NUMBERS = 120


@dataclass(frozen=True)
class Number:
    """An integer or a float of a configuration.

    Attributes:
        place: Class and field.
        kind: ``int`` or ``float``.
        notes: Annotations of the number, with its limits.
    """

    place: str
    kind: type
    notes: tuple[Any, ...]

    def limit(self, *kinds: type) -> Any:
        """The limit of a kind; None where there is none."""
        return next((limit for note in self.notes for limit in limits_in(note) if isinstance(limit, kinds)), None)

    def accepts(self, value: Any) -> bool:
        """Whether a configuration with this number takes a value."""
        model = create_model("One", __base__=StrictModel, number=(Annotated[(self.kind, *self.notes)], ...))
        try:
            model.model_validate({"number": value})
        except ValidationError:
            return False
        return True


def limits_in(note: Any) -> Iterator[Any]:
    """Limits in an annotation; those of ``Field(ge=...)`` inside ``Annotated`` are in its metadata."""
    yield note
    yield from getattr(note, "metadata", ())


def numbers_in(annotation: Any, notes: tuple[Any, ...], place: str) -> Iterator[Number]:
    """The numbers of a type; limits beside a type with several parts are those of each number in it."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        yield from numbers_in(inner, (*notes, *own), place)
    elif annotation in (int, float):
        yield Number(place, annotation, notes)
    else:
        containers = (tuple, list, dict)
        for part in get_args(annotation):
            # min_length of a list is not a limit of what is in it.
            yield from numbers_in(part, () if get_origin(annotation) in containers else notes, place)


def configurations() -> list[type[StrictModel]]:
    """All configuration classes of the package."""
    for module in pkgutil.walk_packages(lhuc_asr.__path__, "lhuc_asr."):
        importlib.import_module(module.name)
    classes, waiting = [], [StrictModel]
    while waiting:
        for each in waiting.pop().__subclasses__():
            if each not in classes:
                classes.append(each)
                waiting.append(each)
    return sorted((each for each in classes if each.__module__.startswith("lhuc_asr.")), key=lambda each: each.__name__)


NUMBERS = [
    number
    for each in configurations()
    for name, field in each.model_fields.items()
    for number in numbers_in(field.annotation, tuple(field.metadata), f"{each.__name__}.{name}")
]
LIMITED = [number for number in NUMBERS if number.place not in WITHOUT_LIMITS]


def faults(number: Number) -> list[str]:
    """What is wrong with the limits of a number."""
    low, high = number.limit(Ge, Gt), number.limit(Le, Lt)
    if low is None or high is None:
        return [f"{number.place}: has no {'lower' if low is None else 'upper'} limit"]
    least, most = getattr(low, "ge", getattr(low, "gt", None)), getattr(high, "le", getattr(high, "lt", None))
    if not math.isfinite(least) or not math.isfinite(most) or least >= most:
        return [f"{number.place}: the limits {least} and {most} are not a range"]
    step = 1 if number.kind is int else (most - least) * 1e-9
    expected = {
        least: isinstance(low, Ge),
        most: isinstance(high, Le),
        least + step: True,
        most - step: True,
        least - step: False,
        most + step: False,
        **dict.fromkeys((math.inf, -math.inf, math.nan, 10**400, -(10**400), "0b_", "x", None), False),
    }
    return [
        f"{number.place}: {value!r} {accepted=}"
        for value, accepted in expected.items()
        if number.accepts(value) != accepted
    ]


@pytest.mark.parametrize("number", LIMITED, ids=[f"{number.place}-{n}" for n, number in enumerate(LIMITED)])
def test_every_number_has_finite_limits_that_hold(number: Number) -> None:
    assert faults(number) == []


def test_all_numbers_are_walked() -> None:
    places = {number.place for number in NUMBERS}
    assert len(NUMBERS) > LEAST_NUMBERS
    assert places >= {
        *("LhucConfig.prior_deviation", "LhucConfig.layers", "NoiseConfig.snr_decibels", "RecommenderConfig.seeds"),
        *("ExperimentConfig.transition_scale", "ExperimentConfig.speeds", "TuningConfig.acoustic_scales"),
        "ModelDescription.whole_seconds",
    }
    assert places >= WITHOUT_LIMITS.keys()


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        (float, "has no lower limit"),
        (Annotated[int, Ge(0)], "has no upper limit"),
        (tuple[int, ...], "has no lower limit"),
        (Annotated[float | None, Gt(0.0)], "has no upper limit"),
        (Annotated[float, Ge(0.0), Le(math.inf)], "are not a range"),
    ],
)
def test_a_number_without_a_limit_is_found(annotation: Any, fault: str) -> None:
    [number] = numbers_in(annotation, (), "Some.field")
    assert fault in faults(number)[0]
