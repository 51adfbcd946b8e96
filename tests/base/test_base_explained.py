"""A configuration as YAML with the meaning of every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from lhuc_asr.base.config import StrictModel, load_config
from lhuc_asr.base.explained import explain_config, meanings_of
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.ppnet.recommender import RecommenderConfig

RECIPES = Path(__file__).parents[2] / "recipes"


class Inner(StrictModel):
    """A part.

    Attributes:
        size: Number of units; ``None`` for all of
            them.
    """

    size: int | None = Field(None, ge=1, le=9)


class Outer(Inner):
    """A whole.

    Attributes:
        one, two: Parts.
        named: Parts by name.
        listed: Parts in order.

    Raises:
        Nothing: This is not a key.
    """

    one: Inner = Inner()
    two: Inner = Inner(size=2)
    named: dict[str, Inner] = Field({"x": Inner(size=3)})
    listed: tuple[Inner, ...] = (Inner(size=4), Inner(size=5))


def test_every_key_has_its_meaning_above_it() -> None:
    assert explain_config(Outer()).splitlines() == [
        "# Number of units; null for all of them.",
        "size: null",
        "# Parts.",
        "one:",
        "  # Number of units; null for all of them.",
        "  size: null",
        "# Parts.",
        "two:",
        "  # Number of units; null for all of them.",
        "  size: 2",
        "# Parts by name.",
        "named:",
        "  x:",
        "    # Number of units; null for all of them.",
        "    size: 3",
        "# Parts in order.",
        "listed:",
        "  # Number of units; null for all of them.",
        "- size: 4",
        "- size: 5",
    ]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/config.yaml")), ids=lambda path: path.parent.name)
def test_recipes_with_their_meanings_are_the_same_recipes(path: Path, tmp_path: Path) -> None:
    model = RecommenderConfig if path.parent.name.startswith("ppnet_") else ExperimentConfig
    config = load_config(model, path)
    copy = tmp_path / "config.yaml"
    copy.write_text(explain_config(config), encoding="utf-8")
    assert load_config(model, copy) == config
    assert list(configs_in(config))  # a walk that sees nothing proves nothing
    for part in configs_in(config):
        assert meanings_of(type(part)).keys() >= type(part).model_fields.keys(), type(part).__name__


def configs_in(value: object) -> list[StrictModel]:
    """All configurations inside one, itself first."""
    if isinstance(value, StrictModel):
        return [value, *(part for name in type(value).model_fields for part in configs_in(getattr(value, name)))]
    if isinstance(value, dict):
        return [part for one in value.values() for part in configs_in(one)]
    if isinstance(value, list | tuple):
        return [part for one in value for part in configs_in(one)]
    return []
