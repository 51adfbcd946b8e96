"""No test speaker, or user, is scored with a setting that was chosen on their own data: ``recipes/settings.yaml``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.config import load_config
from lhuc_asr.corpus.an4 import An4Source
from lhuc_asr.corpus.source import TEST
from lhuc_asr.corpus.splits import HELDOUT, SplitOptions, Splits, fold_splits, write_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import load_recipe
from lhuc_asr.ppnet.recommender import RecommenderConfig
from lhuc_asr.ppnet.synthetic import SyntheticUsersConfig

RECIPES = Path(__file__).parents[1] / "recipes"
RECORD: dict[str, Any] = yaml.safe_load((RECIPES / "settings.yaml").read_text(encoding="utf-8"))
# Origins that do not prefer one value to another by their errors, so that any value will do.
OPEN_ORIGINS = {"question", "time", "run"}
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/config.yaml"))
RANKERS = [name for name in NAMES if name.startswith("ppnet_")]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a configuration, each with its whole name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value


def settings_of(config: ExperimentConfig | RecommenderConfig) -> Iterator[tuple[str, Any]]:
    """All settings of a recipe, defaults too; those of methods and of ranking models by their kind."""
    tree = config.model_dump(mode="json")
    if isinstance(config, RecommenderConfig):
        for model in tree.pop("models").values():
            yield from leaves(model, f"ranker.{model['kind']}")
        yield from leaves(tree, "ranker")
        return
    for method in (tree.pop("lhuc"), *(one.pop("method") for one in tree["passes"].values())):
        if method is not None:
            yield from leaves(method, f"methods.{method['kind']}")
    yield from leaves(tree)


def scored_by(config: ExperimentConfig | RecommenderConfig) -> set[str]:
    """The data that a recipe's tables are about. With folds, AN4's are about every speaker of it."""
    if isinstance(config, RecommenderConfig):
        return {"users/test" if isinstance(config.data, SyntheticUsersConfig) else f"{config.data.kind}/test"}
    match config.corpus.kind:
        case "an4":
            return {"an4"}
        case "librispeech":
            return {f"librispeech/{part}" for part in config.corpus.test_sets}
        case "synthetic":
            return {f"synthetic/voices {config.corpus.voices.seed}"}
        case "kaldi":
            return {"an4", "the user's"}  # its RESULTS.md is about AN4
    raise AssertionError(f"{config.corpus.kind}: say here which data its recipe scores")


def faults(recipe: ExperimentConfig | RecommenderConfig, record: Mapping[str, Any]) -> list[str]:
    """What the record lacks, and the settings that were chosen on data that the recipe scores."""
    found, scored = [], scored_by(recipe)
    for name, value in settings_of(recipe):
        if any(fnmatchcase(name, pattern) for pattern in record["not_settings"]):
            continue
        entry = next((own for pattern, own in record["settings"].items() if fnmatchcase(name, pattern)), None)
        if entry is None:
            found.append(f"{name}: not in recipes/settings.yaml")
            continue
        written = {str(key): origin for key, origin in entry.items()}
        text = json.dumps(value) if not isinstance(value, str) else value
        origin = written.get(text) or written.get(str(value)) or written.get("any")
        if origin is None:
            found.append(f"{name}: {text} is not in recipes/settings.yaml, which has {', '.join(written)}")
            continue
        found += [
            f"{name}: {text} was chosen on {chosen_on}, which the recipe scores"
            for chosen_on in record["origins"][origin].get("on", [])
            if any(overlap(chosen_on, part) for part in scored)
        ]
    return found


def overlap(one: str, other: str) -> bool:
    """Whether one is the other, or a part of it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def recipe_of(name: str) -> ExperimentConfig | RecommenderConfig:
    path = RECIPES / name / "config.yaml"
    return load_config(RecommenderConfig, path) if name in RANKERS else load_recipe(path)


@pytest.mark.parametrize("name", NAMES)
def test_no_setting_was_chosen_on_what_a_recipe_scores(name: str) -> None:
    assert faults(recipe_of(name), RECORD) == []


def test_the_record_has_nothing_that_no_recipe_has() -> None:
    names = {name for recipe in NAMES for name, _ in settings_of(recipe_of(recipe))}
    for pattern in RECORD["settings"]:
        assert any(fnmatchcase(name, pattern) for name in names), pattern
    used = {origin for entry in RECORD["settings"].values() for origin in entry.values()}
    assert used == set(RECORD["origins"])
    assert {entry["any"] for entry in RECORD["settings"].values() if "any" in entry} <= OPEN_ORIGINS


def test_a_setting_that_was_chosen_on_test_speakers_is_found() -> None:
    # Each change is one that a hurried author might make.
    recipe = recipe_of("an4")
    assert isinstance(recipe, ExperimentConfig)
    other_value = recipe.model_copy(update={"transition_scale": 0.2})
    assert [fault.split(":")[0] for fault in faults(other_value, RECORD)] == ["transition_scale"]
    own_speakers = {**RECORD, "origins": {**RECORD["origins"], "readers": {"why": "held out", "on": ["an4/heldout"]}}}
    assert any("an4/heldout, which the recipe scores" in fault for fault in faults(recipe, own_speakers))
    forgotten = {**RECORD, "settings": {k: v for k, v in RECORD["settings"].items() if k != "dnn.dropout"}}
    assert faults(recipe, forgotten) == ["dnn.dropout: not in recipes/settings.yaml"]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_search_of_a_fold_is_tuned_on_speakers_whom_the_fold_does_not_score(tmp_path: Path, seed: int) -> None:
    said = [Utterance(f"{n}-1", f"s{n:02}", "", tmp_path / "a.wav", 0.0, 1.0, "yes") for n in range(12)]
    corpus = Splits(said[:10], {TEST: said[10:]})
    options = SplitOptions(An4Source(dir=tmp_path), None, seed, 0.0, None, heldout_speakers=2, folds=3, fold=None)
    scored: list[str] = []
    for fold in range(1, 4):
        folder = tmp_path / str(fold)
        write_splits(fold_splits(corpus, 3, fold, seed), options, folder, processes=1)
        tests, heldout = (
            {utterance.speaker for utterance in read_manifest(folder / f"{split}.jsonl")} for split in (TEST, HELDOUT)
        )
        assert len(heldout) == 2
        assert not heldout & tests
        scored += tests
    assert sorted(scored) == [utterance.speaker for utterance in said]
