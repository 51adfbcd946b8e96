"""Only plain values come out of YAML text, and each comes back as itself."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.plain_values import DEEPEST, LONGEST_TEXT, PlainValueError, dump_plain, read_plain

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@given(VALUE)
def test_a_dump_is_read_as_the_same(value: object) -> None:
    back = read_plain(dump_plain({"key": value}))["key"]
    assert back == value
    assert type(back) is type(value)


@given(st.text(alphabet="abc01-+_.:eE~nulxoINF/#'\"[]{},&*!|> \n", max_size=30))
def test_any_text_is_a_plain_value_or_a_mistake_of_one_line(text: str) -> None:
    assert isinstance(value_or_mistake(text), str | int | float | bool | list | dict | None)


def value_or_mistake(text: str) -> object:
    """The value of a text; None for a mistake, which is one line."""
    try:
        return read_plain(text)
    except PlainValueError as error:
        message = str(error)
    assert "\n" not in message
    return None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[("null", None), ("~", None), ("true", True), ("FALSE", False), ("12", 12), ("-3", -3), ("+1", 1)],
        *[("1e-3", 0.001), ("1.", 1.0), (".5", 0.5), ("-1.5E+2", -150.0), (".inf", math.inf), ("-.INF", -math.inf)],
        # Values of YAML 1.1 that nobody means.
        *[
            (word, word)
            for word in ("NO", "off", "yes", "on", "y", "0b_", "0b1", "0x1F", "0o7", "010", "1_000", "1:30")
        ],
        *[(word, word) for word in ("2001-13-45", "2001-12-14t21:59:43.10-05:00", "1e", "=", "e5", ".", "-", "1.2.3")],
        *[("'12'", "12"), ('"true"', "true"), ("a b", "a b"), ("a#b", "a#b")],
    ],
)
def test_words_have_one_meaning(word: str, value: object) -> None:
    read = read_plain(f"[{word}]" if word != "-" else '["-"]')
    assert read == [value]
    assert type(read[0]) is type(value)


def test_not_a_number_is_one_that_no_field_accepts() -> None:
    assert math.isnan(read_plain(".nan"))


def test_keys_are_strings_as_they_stand() -> None:
    assert read_plain("{1: a, null: b, on: c, 1.0: d}") == {"1": "a", "null": "b", "on": "c", "1.0": "d"}


def test_each_place_of_an_anchor_has_a_value_of_its_own() -> None:
    tree = read_plain("a: &x {b: [1]}\nc: *x")
    tree["a"]["b"].append(2)
    assert tree == {"a": {"b": [1, 2]}, "c": {"b": [1]}}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)

MISTAKES = [
    ("x: !!int x", "the tag 'tag:yaml.org,2002:int' is not read; leave it out (line 1, column 4)"),
    ("x: !!timestamp x", "the tag "),
    ("x: !!python/object/apply:os.system [id]", "the tag "),
    ("x: ! 3", "the tag '!' is not read"),
    ("!!str x: 3", "a key is not a plain word"),
    ("&x k: 3", "a key is not a plain word"),
    ("? [a]\n: b", "a key is not a plain word"),
    ("a: 1\na: 2", "the key 'a' is there twice; leave one out (line 2, column 1)"),
    ("a: &x {b: 1}\nc:\n  <<: *x", "merge keys (<<) are not read; write the values out"),
    ("a: *x", "there is no anchor 'x' before this place"),
    ("a: &x [*x]", "there is no anchor 'x' before this place"),
    (BOMB, "more than 50000 values, repeated ones counted"),
    ("a\n---\nb", "a second document begins; expected one"),
    ("[" * 100_000, f"more than {DEEPEST} levels"),
    ("\n".join(" " * n + "a:" for n in range(100)), f"more than {DEEPEST} levels"),
    ("9" * 5000, "a number of 5000 digits is too long"),
    ('"\\ud800"', "half of a pair of characters"),
    ("a: [1", "expected ',' or ']'"),
    ("a: \x01", "special characters are not allowed"),
    ("a: b: c", "mapping values are not allowed here (line 1, column 5)"),
    ("x" * (LONGEST_TEXT + 1), f"more than {LONGEST_TEXT} characters"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text[:20] for text, _ in MISTAKES])
def test_what_is_more_than_plain_is_refused_at_once(text: str, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(PlainValueError) as caught:
        read_plain(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    "text", ["1 # x", "a #b", "'a' #b", "[a, b] # x", "{a: 1} # x", "a: b # c", "a\n# b", "a\n..."]
)
def test_nothing_may_follow_a_value_where_comments_are_not_allowed(text: str) -> None:
    read_plain(text)
    with pytest.raises(PlainValueError, match="follows the value; quote a value that contains ' #'"):
        read_plain(text, comments=False)


@pytest.mark.parametrize("text", ["a#b", "'a # b'", "[a, '# b']", "{a: 1}  ", "", "a:\n- b\n"])
def test_a_value_alone_is_read_without_comments(text: str) -> None:
    assert read_plain(text, comments=False) == read_plain(text)
