"""A model's folder: whole, checked, and of the pass that was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.config import dump_config, load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.recognizer.from_experiment import find_model, of_experiment
from lhuc_asr.recognizer.model_folder import LANG_FILES, export, read_exported

FILES = {"model.json", "network.safetensors", "topology.json", *(f"lang/{name}" for name in LANG_FILES)}


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_the_folder_holds_what_its_description_says(finished: Path, exported: Path) -> None:
    assert {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()} == FILES
    description, files = read_exported(exported)
    assert description == of_experiment(finished)[0]
    assert {path.relative_to(exported).as_posix() for path in files.by_name.values()} == FILES - {"model.json"}
    chosen = json.loads((finished / "decode" / "heldout" / "lhuc" / "search.json").read_text())["chosen"]
    assert description.adapted_search.model_dump() | chosen == description.adapted_search.model_dump()


def test_recordings_of_the_experiment_are_searched_whole(finished: Path, exported: Path) -> None:
    description, _ = read_exported(exported)
    seconds = {
        split: [u.seconds for u in read_manifest(finished / "corpus" / f"{split}.jsonl")]
        for split in ("train", "heldout", "test", "control")
    }
    assert description.whole_seconds == max(max(lengths) for lengths in seconds.values())
    assert description.piece_seconds == min(20.0, np.quantile(seconds["train"], 0.95))


def test_export_replaces_a_model_and_nothing_else(finished: Path, model: Path, tmp_path: Path) -> None:
    (model / "lang" / "words.txt").unlink()
    export(*of_experiment(finished), model)
    read_exported(model)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExperimentError, match=r"other: is there already, and no exported model"):
        export(*of_experiment(finished), tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").exists()


@pytest.mark.parametrize("name", sorted(FILES - {"model.json"}))
def test_each_file_is_checked(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ExperimentError, match=f"{name}: not the file that was exported; copy the folder again"):
        read_exported(model)
    (model / name).unlink()
    with pytest.raises(ExperimentError, match=f"{name}: no such file; copy the folder again"):
        read_exported(model)


def test_a_file_too_many_is_refused(model: Path) -> None:
    (model / "prepared").mkdir()
    (model / "prepared" / "moments.safetensors").write_bytes(b"")
    with pytest.raises(ExperimentError, match=r"prepared/moments.safetensors: not the file that was exported"):
        read_exported(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lhuc-asr-model-9"}, "expected format 'lhuc-asr-model-1', found 'lhuc-asr-model-9'"),
        ({"surprise": 1}, "model.json: damaged .*unknown key 'surprise'"),
        ({"seed": "one"}, "model.json: damaged .*seed"),
    ],
)
def test_a_description_of_another_kind_is_refused(model: Path, change: dict[str, object], message: str) -> None:
    tree = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**tree, **change}))
    with pytest.raises(ExperimentError, match=message):
        find_model(model)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_damaged_description_is_refused(model: Path, text: str) -> None:
    (model / "model.json").write_text(text)
    with pytest.raises(ExperimentError, match=r"model\.json"):
        find_model(model)


def test_what_is_no_model_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="nowhere: no such folder"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(ExperimentError, match="not an experiment's folder"):
        find_model(tmp_path)
    with pytest.raises(ConfigError, match="'fmllr' is not a pass that adapts; the experiment has lhuc"):
        of_experiment(finished, "fmllr")


def with_passes(folder: Path, **passes: dict[str, object]) -> Path:
    config = load_config(ExperimentConfig, folder / "config.yaml")
    tree = config.model_dump(mode="json") | {"passes": {"lhuc": {}, **passes}}
    (folder / "config.yaml").write_text(dump_config(ExperimentConfig.model_validate(tree)))
    return folder


@pytest.mark.parametrize(
    ("plan", "way"),
    [
        ({"targets": {"kind": "reference"}}, "on reference transcripts"),
        ({"targets": {"source": "lhuc"}}, "on what the pass 'lhuc' found"),
        ({"data": {"seconds": 10}}, "on a part of a speaker's recordings"),
        ({"data": {"mode": "one_shot"}}, "on a part of a speaker's recordings"),
    ],
)
def test_a_way_of_adapting_that_is_none_for_a_new_speaker_is_refused(
    copied: Path, plan: dict[str, object], way: str
) -> None:
    with pytest.raises(ConfigError, match=f"the pass 'special' adapts {way}.* with --pass"):
        of_experiment(with_passes(copied, special=plan), "special")


def test_an_unfinished_experiment_is_told(copied: Path) -> None:
    (copied / "decode" / "heldout" / "lhuc" / "search.json").unlink()
    with pytest.raises(ExperimentError, match=r"lhuc/search.json: no such file, the experiment is not finished"):
        of_experiment(copied)


def test_a_fold_is_a_model_and_the_cross_validation_is_none(copied: Path, tmp_path: Path) -> None:
    whole = tmp_path / "cross"
    whole.mkdir()
    shutil.move(copied, whole / "fold1")
    config = load_config(ExperimentConfig, whole / "fold1" / "config.yaml")
    tree = config.model_dump(mode="json") | {"folds": 2, "corpus": {"kind": "an4", "dir": "an4"}}
    (whole / "fold1" / "config.yaml").unlink()
    (whole / "config.yaml").write_text(dump_config(ExperimentConfig.model_validate(tree)))
    assert of_experiment(whole / "fold1")[0].experiment == f"{config.folder.name}/fold1"
    with pytest.raises(ExperimentError, match=r"give one of them, such as .*fold1"):
        of_experiment(whole)
