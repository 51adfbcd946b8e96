"""Configurations are strict, and every mistake is explained in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from lhuc_asr.base.config import ChosenByKeys, ChosenByKind, Seed, StrictModel, dump_config, load_config, parse_config
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


class Road(StrictModel):
    """One of a family that is chosen from by keys, and the one for keys that choose none."""

    lanes: int = 1


class Rail(StrictModel):
    """Another of it."""

    gauge: float


class Sea(StrictModel):
    """A third, with a key that the first has too."""

    depth: float
    lanes: int = 2


AnyWay = Annotated[Road | Rail | Sea, ChosenByKeys({"road": Road, "rail": Rail, "sea": Sea}, "road")]


class Ways(StrictModel):
    """A table of any of the family."""

    ways: dict[str, AnyWay] = Field({})


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


class Numbers(StrictModel):
    """Fields of every type that an override can be for."""

    count: int = 0
    share: float = 0.0
    on: bool = False
    pair: tuple[float, float] = (0.0, 0.0)
    word: str | None = "w"
    mode: Literal["fast", "slow"] | None = "fast"
    place: Path | None = None
    places: tuple[Path, ...] = ()
    seed: Seed = 0


class Outer(StrictModel):
    """A configuration."""

    name: str = "x"
    numbers: Numbers = Numbers()
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


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("name=2001", "2001"),
        ("name=run #2", "run #2"),
        ("name= a ", " a "),
        ("name=", ""),
        ("name=null", "null"),
        ("name=true", "true"),
        ("name='x'", "'x'"),
        ("name=!!int x", "!!int x"),
        ("name=[x", "[x"),
        ("name=a: b", "a: b"),
        ("name=*x", "*x"),
        ("name=a=b", "a=b"),
        ("name=a\nb", "a\nb"),
        ("numbers.word=null", None),
        ("numbers.word=~", "~"),
        ("numbers.word=1e5", "1e5"),
        ("numbers.mode=slow", "slow"),
        ("numbers.mode=null", None),
        ("numbers.place=train #2", Path("train #2")),
        ("numbers.place=2001-13-45", Path("2001-13-45")),
        ("numbers.place=null", None),
        ("numbers.place=./null", Path("null")),
        ("numbers.places=[a b, 'c #2']", (Path("a b"), Path("c #2"))),
        ("numbers.count=3", 3),
        ("numbers.share=1e-3", 0.001),
        ("numbers.on=true", True),
        ("numbers.on=off", False),
        ("numbers.pair=[1, 2.5]", (1.0, 2.5)),
        ("side={kind: right, path: a b}", Right(kind="right", path=Path("a b"))),
    ],
)
def test_text_is_taken_as_it_stands_and_other_values_are_yaml(override: str, value: object, tmp_path: Path) -> None:
    config = load(tmp_path, "", override)
    place: Any = config
    for part in override.partition("=")[0].split("."):
        place = getattr(place, part)
    assert place == value
    assert type(place) is type(value)


def test_the_type_of_a_field_is_that_of_the_kind_which_any_override_chooses(tmp_path: Path) -> None:
    for overrides in (("side.path=a #2", "side.kind=right"), ("side.kind=right", "side.path=a #2")):
        assert load(tmp_path, "", *overrides).side == Right(kind="right", path=Path("a #2"))
    for overrides in (("side={kind: right}", "side.path=a #2"), ("side.kind=left", "side={kind: right, path: 'a #2'}")):
        assert load(tmp_path, "", *overrides).side == Right(kind="right", path=Path("a #2"))
    assert load(tmp_path, "table: {mine: {}}", "table.mine.maybe.kind=right", "table.mine.maybe.path=1").table[
        "mine"
    ].maybe == Right(kind="right", path=Path("1"))


def test_an_override_changes_one_place_of_an_anchor(tmp_path: Path) -> None:
    config = load(tmp_path, "inner: &x {rate: 0.2}\ntable: {mine: {inner: *x}}", "inner.rate=0.5")
    assert (config.inner.rate, config.table["mine"].inner.rate) == (0.5, 0.2)


OVERRIDES_REFUSED = [
    ("numbers.count=0b_", "numbers.count: Input should be a valid integer"),
    ("numbers.count=2001-13-45", "numbers.count: Input should be a valid integer"),
    ("numbers.count=!!int x", "the value is not valid YAML: the tag 'tag:yaml.org,2002:int' is not read"),
    ("numbers.count=1:30", "numbers.count: Input should be a valid integer"),
    ("numbers.count=3 # three", "'# three' follows the value"),
    ("numbers.count=true", "numbers.count: expected a number, found true or false"),
    ("numbers.pair=[1, true]", "numbers.pair.1: expected a number, found true or false"),
    ("numbers.share=.inf", "numbers.share: Input should be a finite number"),
    ("numbers.share=1e999", "numbers.share: Input should be a finite number"),
    ("numbers.share=.nan", "numbers.share: Input should be a finite number"),
    ("numbers.pair=[1, -.inf]", "numbers.pair.1: Input should be a finite number"),
    ("numbers.count=.inf", "numbers.count: Input should be a finite number"),
    ("numbers.seed=4294967296", "numbers.seed: Input should be less than 4294967296"),
    ("numbers.seed=-1", "numbers.seed: Input should be greater than or equal to 0"),
    ("numbers.on=2", "numbers.on: Input should be a valid boolean"),
    ("numbers.places=[a #2/b]", "in brackets, quote text that contains ' #'"),
    ("numbers.places=a", "numbers.places: Input should be a valid tuple"),
    ("numbers.nothing=[", "unknown key 'numbers.nothing'"),
    ("numbers.count", "an override has the form key=value"),
    ("=3", "an override has the form key=value"),
    ("numbers..count=3", "an override has the form key=value"),
    ("name.first=x", "'name' is a value, not a group of keys"),
    ("numbers.places.0=x", "'places' is a list; give all of it, in brackets"),
    ("table.mine.several=[{rte: 1}]", "unknown key 'table.mine.several.0.rte'; did you mean 'rate'?"),
    ("name=\udcff", "not UTF-8"),
]


@pytest.mark.parametrize(("override", "message"), OVERRIDES_REFUSED)
def test_an_override_that_does_not_fit_is_a_mistake_of_one_line(override: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, "name: y\nnumbers: {places: [a]}\ntable: {mine: {}}", override)


def test_a_message_stays_short_and_on_one_line(tmp_path: Path) -> None:
    many = "table: {" + ", ".join(f"k{n}: {{x: 1}}" for n in range(1000)) + "}"
    assert refused(tmp_path, many).endswith("and 990 more mistakes")
    assert len(refused(tmp_path, "inner: {rate: " + "x" * 100_000 + "}")) < 1000
    assert len(refused(tmp_path, '"a\\nb": 1\ntable: {"c\\nd": {e: 1}}')) < 1000


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffname: y").name == "y"


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert "more than" in refused(tmp_path, "# " + "x" * (1 << 22))


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
    ("zzz: 1", "unknown key 'zzz'; known keys: inner, name, numbers, side, table"),
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


MISTAKES_IN_KEYS = [
    ("{guage: 1.5}", "unknown key 'ways.mine.guage'; did you mean 'gauge'?"),
    ("{lanes: 2, qqq: 1}", "unknown key 'ways.mine.qqq'; known keys: depth, gauge, lanes"),
    # What a key has chosen is known.
    ("{gauge: 1.5, qqq: 1}", "unknown key 'ways.mine.qqq'; known keys: gauge"),
]


@pytest.mark.parametrize(("way", "message"), MISTAKES_IN_KEYS)
def test_a_key_that_chooses_nothing_may_have_been_meant_for_any_class(way: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"ways: {{mine: {way}}}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(Ways, path)
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
