"""Configurations are strict, and every mistake is explained in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from lhuc_asr.base.config import ChosenByKind, StrictModel, dump_config, load_config, parse_config
from lhuc_asr.base.errors import ConfigError


class Inner(StrictModel):
    """A group of keys."""

    rate: float = Field(0.1, gt=0.0)
    steps: tuple[int, ...] = (1, 2)


class Left(StrictModel):
    """One member of a union."""

    kind: Literal["left"]
    inner: Inner = Inner()


class Right(StrictModel):
    """The other."""

    kind: Literal["right", "starboard"]
    path: Path


Side = Annotated[Left | Right, Field(discriminator="kind")]


class Shape(StrictModel):
    """A family that is chosen from by kind."""

    kind: str


class Circle(Shape):
    """One of it."""

    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0.0)
    inner: Inner = Inner()


class Square(Shape):
    """Another, which is not in the table at first."""

    kind: Literal["square"] = "square"
    side: float | None = None


SHAPES: dict[str, type[Shape]] = {"circle": Circle}
AnyShape = Annotated[Shape, ChosenByKind(SHAPES)]


class Drawing(StrictModel):
    """Fields that hold any of the family."""

    shape: AnyShape = Circle()
    maybe: AnyShape | None = None
    named: dict[str, AnyShape] = Field({})


class Entry(StrictModel):
    """What a table has under names of the user's own."""

    inner: Inner = Inner()
    maybe: Side | None = None
    several: tuple[Inner, ...] = ()


class Outer(StrictModel):
    """A configuration."""

    name: str = "x"
    inner: Inner = Inner()
    side: Side = Left(kind="left")
    table: dict[str, Entry] = Field({})


def load(tmp_path: Path, text: str, *overrides: str) -> Outer:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(Outer, path, overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_win_and_the_last_one_most(tmp_path: Path) -> None:
    config = load(tmp_path, "inner: {rate: 0.2}", "inner.rate=0.3", "inner.rate=1e-3", "inner.steps=[5]", "name=a=b")
    assert config == Outer(name="a=b", inner=Inner(rate=0.001, steps=(5,)))


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == Outer()


def test_a_heading_with_nothing_below_it_can_be_overridden(tmp_path: Path) -> None:
    assert load(tmp_path, "inner:\n", "inner.rate=0.5").inner.rate == 0.5


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().name = "other"  # type: ignore[misc]


@given(rate=st.floats(1e-9, 1e9), steps=st.lists(st.integers()), name=st.text(st.characters(exclude_categories=["C"])))
def test_a_dump_loads_as_the_same(
    rate: float, steps: list[int], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = Outer(name=name, inner=Inner(rate=rate, steps=tuple(steps)))
    assert load(tmp_path_factory.mktemp("dump"), dump_config(config)) == config


MISTAKES = [
    ("inner: {rat: 1}", "unknown key 'inner.rat'; did you mean 'rate'?"),
    ("zzz: 1", "unknown key 'zzz'; known keys: inner, name, side, table"),
    ("table: {mine: {inner: {rte: 1}}}", "unknown key 'table.mine.inner.rte'; did you mean 'rate'?"),
    ("table: {mine: {maybe: {kind: right, pth: a}}}", "unknown key 'table.mine.maybe.pth'; did you mean 'path'?"),
    ("table: {mine: {several: [{}, {rte: 1}]}}", "unknown key 'table.mine.several.1.rte'; did you mean 'rate'?"),
    ("side: {kind: left, inner: {rte: 1}}", "unknown key 'side.inner.rte'; did you mean 'rate'?"),
    ("side: {kind: starboard, path: a, qqq: 1}", "unknown key 'side.qqq'; known keys: kind, path"),
    ("side: {kind: right}", "side.path: Field required"),
    ("side: {kind: up}", "side: Input tag 'up' found using 'kind' does not match"),
    ("inner: {rate: -1}", "inner.rate: Input should be greater than 0 (found -1)"),
    ("inner: {steps: [1, x]}", "inner.steps.1: Input should be a valid integer"),
    ("inner: 3", "inner: Input should be a valid dictionary"),
    ("- a", "expected a mapping of keys to values, found list"),
    ("name: " + "[" * 5000, "not valid YAML: "),
    ("name: [x", "not valid YAML: expected ',' or ']'"),
    ("name: \x01", "not valid YAML: "),
]


MISTAKES_IN_KINDS = [
    ("shape: {kind: cirle}", "shape: unknown kind 'cirle'; known kinds: circle"),
    ("shape: {kind: [circle]}", "shape: unknown kind ['circle']; known kinds: circle"),
    ("shape: {radius: 2}", "shape: the key 'kind' is missing; known kinds: circle"),
    ("shape: 3", "shape: Input should be a mapping of keys to values (found 3)"),
    ("shape: {kind: circle, radios: 2}", "unknown key 'shape.radios'; did you mean 'radius'?"),
    ("shape: {kind: circle, qqq: 2}", "unknown key 'shape.qqq'; known keys: inner, kind, radius"),
    ("shape: {kind: circle, radius: -2}", "shape.radius: Input should be greater than 0 (found -2)"),
    ("maybe: {kind: circle, inner: {rte: 2}}", "unknown key 'maybe.inner.rte'; did you mean 'rate'?"),
    ("named: {mine: {kind: circle, radios: 2}}", "unknown key 'named.mine.radios'; did you mean 'radius'?"),
    ("named: {mine: {kind: up}}", "named.mine: unknown kind 'up'; known kinds: circle"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES_IN_KINDS)
def test_a_mistake_in_what_a_kind_chooses_is_explained(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(Drawing, path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_dump_has_all_fields_of_the_class_that_a_kind_chose(tmp_path: Path) -> None:
    drawing = Drawing(shape=Circle(radius=2.0), maybe=Circle(), named={"mine": Circle(inner=Inner(rate=0.5))})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(drawing), encoding="utf-8")
    assert load_config(Drawing, path) == drawing
    assert next(iter(drawing.model_dump(mode="json")["shape"])) == "kind"


def test_options_that_are_none_can_be_left_out_of_a_dump() -> None:
    assert Drawing(shape=Square()).model_dump(mode="json", exclude_none=True)["shape"] == {"kind": "square"}


def test_a_table_of_kinds_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"shape": {"kind": "square", "side": 3.0}}
    with pytest.raises(ConfigError, match="unknown kind 'square'"):
        parse_config(Drawing, tree, "drawing.yaml")
    monkeypatch.setitem(SHAPES, "square", Square)
    assert parse_config(Drawing, tree, "drawing.yaml").shape == Square(side=3.0)


def test_an_instance_needs_no_line_in_the_table() -> None:
    square = Square(side=3.0)
    assert Drawing(shape=square).shape is square


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_names_file_key_and_remedy(text: str, message: str, tmp_path: Path) -> None:
    refusal = refused(tmp_path, text)
    assert refusal.startswith(f"{tmp_path / 'config.yaml'}: ")
    assert message in refusal


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "nam: x\ninner: {rate: 0}")
    assert "unknown key 'nam'" in message
    assert "inner.rate" in message


def test_bytes_that_are_not_text_are_refused_as_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(Outer, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_config(Outer, tmp_path / "nowhere.yaml")


def test_plain_values_are_checked_the_same_way() -> None:
    with pytest.raises(ConfigError, match=r"model\.safetensors: unknown key 'inner\.rat'"):
        parse_config(Outer, {"inner": {"rat": 1}}, "model.safetensors")
