"""A model's folder, exported or an experiment's own: whole, checked, and refused in one line where it is neither."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.errors import ExperimentError, GraphError
from lhuc_asr.recognizer.model_folder import LANG_FILES, MODEL_JSON, ModelFiles, read_model
from lhuc_asr.recognizer.recognizer import load

FILES = {MODEL_JSON, "networks/si.safetensors", "topology.json", "gmm.safetensors", *LANG_FILES}


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_the_folder_holds_the_files_of_its_description(exported: Path) -> None:
    assert {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()} == FILES
    _, files = read_model(exported)
    assert {path.relative_to(exported).as_posix() for path in files.by_name.values()} == FILES - {MODEL_JSON}


def test_an_experiments_own_folder_is_described_as_its_export(finished: Path, exported: Path) -> None:
    """The same model, with the same files, at other places."""
    (own, its_files), (elsewhere, files) = read_model(finished), read_model(exported)
    assert own.model_copy(update={"files": {}}) == elsewhere
    assert its_files.by_name.keys() == files.by_name.keys()
    for name, path in its_files.by_name.items():
        assert path.is_relative_to(finished)
        assert path.read_bytes() == files.by_name[name].read_bytes()


@pytest.mark.parametrize("name", sorted(FILES - {MODEL_JSON}))
def test_each_file_is_checked(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ExperimentError, match=f"{name}: not the file that was saved; copy the folder again"):
        read_model(model)
    (model / name).unlink()
    with pytest.raises(ExperimentError, match=f"{name}: no such file; copy the folder again"):
        read_model(model)


@pytest.mark.parametrize("name", sorted(FILES - {MODEL_JSON}))
def test_each_file_must_be_described(model: Path, name: str) -> None:
    tree = json.loads((model / MODEL_JSON).read_text())
    del tree["sha256"][name]
    (model / MODEL_JSON).write_text(json.dumps(tree))
    with pytest.raises(ExperimentError, match=f"{name}: not (the file that was|one of the files that were) saved"):
        read_model(model)


def test_a_file_of_an_experiment_that_was_made_again_is_told(copied: Path) -> None:
    """Where the file is, not by its name in an exported folder, and what to do."""
    (copied / "am" / "si" / "model.safetensors").write_bytes(b"another network")
    with pytest.raises(ExperimentError, match=r"am/si/model\.safetensors: not the file that was saved; .*lhuc-asr run"):
        read_model(copied)


def test_a_file_too_many_is_refused(model: Path) -> None:
    (model / "prepared").mkdir()
    (model / "prepared" / "moments.safetensors").write_bytes(b"")
    with pytest.raises(
        ExperimentError, match=r"prepared/moments.safetensors: not one of the files that were saved; copy the folder"
    ):
        read_model(model)


def test_what_a_method_learned_must_be_there(model: Path) -> None:
    tree = json.loads((model / MODEL_JSON).read_text())
    tree["passes"][-1]["method"] = {"kind": "moments"}
    (model / MODEL_JSON).write_text(json.dumps(tree))
    name = tree["passes"][-1]["name"]
    with pytest.raises(ExperimentError, match=f"prepared/{name}/: no file of it was saved, but '{name}' needs what"):
        read_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "lhuc-asr-model-9"},
            "expected format 'lhuc-asr-model-3', found 'lhuc-asr-model-9'; export the model with this version",
        ),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"seed": "one"}, "seed: "),
        ({"normalised_by": "room"}, "normalised_by: Input should be 'speaker' or 'environment'"),
        ({"network": "a network"}, "network: String should match pattern"),
        ({"experiment": "an4\x1b[2J"}, "experiment: not a name: it is empty, or has control characters"),
        ({"made_by": "0.1\nfiles 9"}, "made_by: not a name"),
        ({"files": {"topology.json": "../topology.json"}}, "'../topology.json' is not a path inside the folder"),
    ],
)
def test_a_description_of_another_kind_is_refused(model: Path, change: dict[str, object], message: str) -> None:
    tree = json.loads((model / MODEL_JSON).read_text())
    (model / MODEL_JSON).write_text(json.dumps({**tree, **change}))
    with pytest.raises(ExperimentError, match=r"model\.json: ") as caught:
        read_model(model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_an_earlier_version_exported_is_refused(model: Path) -> None:
    """As version 2 wrote it: one network, and no passes."""
    tree = json.loads((model / MODEL_JSON).read_text())
    first, last = tree.pop("passes")
    tree |= {"first_search": first["search"], "adapted_search": last["search"], "method": last["method"]}
    (model / MODEL_JSON).write_text(json.dumps({**tree, "format": "lhuc-asr-model-2", "adapted_pass": last["name"]}))
    with pytest.raises(ExperimentError) as caught:
        read_model(model)
    assert str(caught.value) == (
        f"{model}/model.json: expected format 'lhuc-asr-model-3', found 'lhuc-asr-model-2'; "
        "export the model with this version of lhuc_asr"
    )


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00"])
def test_a_damaged_description_is_refused(model: Path, text: str) -> None:
    (model / MODEL_JSON).write_text(text)
    with pytest.raises(ExperimentError, match=r"model\.json"):
        read_model(model)


def test_what_is_not_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="nowhere: not a folder; give one that lhuc-asr export made"):
        read_model(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="file: not a folder"):
        read_model(tmp_path / "file")
    with pytest.raises(ExperimentError, match=r"model\.json: no such file; name the folder of a model"):
        read_model(tmp_path)


def test_an_unfinished_experiment_is_told_what_to_do(copied: Path) -> None:
    (copied / MODEL_JSON).unlink()
    with pytest.raises(ExperimentError, match=r"exp: the experiment has no model\.json; .*again: lhuc-asr run"):
        read_model(copied)
    (copied / "config.yaml").unlink()  # a fold has none; its recipe's lies in the folder above
    with pytest.raises(ExperimentError, match=r"exp: the experiment has no model\.json; .*again: lhuc-asr run"):
        read_model(copied)


def test_the_model_of_an_earlier_first_pass_does_not_stay(copied: Path, run) -> None:
    oracle = "passes={oracle: {targets: {kind: reference}}, lhuc: {}}"
    run(copied, oracle)
    with pytest.raises(ExperimentError, match=r"no model\.json; .*export another: lhuc-asr export --pass NAME"):
        read_model(copied)
    assert run(copied, oracle) == []
    assert run(copied) == ["model"]
    assert read_model(copied)[0].with_speaker.name == "lhuc"


def test_a_fold_is_a_model_and_a_cross_validation_is_not(copied: Path, tmp_path: Path) -> None:
    whole = tmp_path / "cross"
    whole.mkdir()
    shutil.copy(copied / "config.yaml", whole)
    shutil.move(copied, whole / "fold1")
    (whole / "fold1" / "config.yaml").unlink()
    assert read_model(whole / "fold1")[1].network("si") == whole / "fold1" / "am" / "si" / "model.safetensors"
    with pytest.raises(ExperimentError, match=r"cross: a cross-validation has a model for each fold; .*fold1$"):
        read_model(whole)


def test_the_files_of_an_experiment_that_learns_from_the_training_speakers(finished: Path) -> None:
    """``prepared`` is the folder of what was learned; one that learns nothing has none."""
    description, files = read_model(finished)
    assert files.prepared("lhuc") is None
    learned = description.model_copy(
        update={
            "files": description.files | {"prepared/lhuc/a.safetensors": "speakers/prepared/moments/a.safetensors"},
            "sha256": description.sha256 | {"prepared/lhuc/a.safetensors": "0" * 64},
        }
    )
    assert ModelFiles.of(learned, finished).prepared("lhuc") == finished / "speakers" / "prepared" / "moments"


def refit(model: Path, change: dict[str, object] | None = None) -> None:
    """Make the hashes fit what the files are now; whoever writes a folder can."""
    for description, folder in ((model / "lang" / "graph.json", model / "lang"), (model / MODEL_JSON, model)):
        tree = json.loads(description.read_text())
        tree["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in tree["sha256"]}
        description.write_text(json.dumps(tree))
    tree = json.loads((model / MODEL_JSON).read_text())
    (model / MODEL_JSON).write_text(json.dumps(tree | (change or {})))


def test_a_graph_with_wrong_indices_and_fitting_hashes_is_refused(model: Path) -> None:
    """It once crashed both searches; the target of the last arc is the file's last four bytes."""
    path = model / "lang" / "HCLG.fst"
    path.write_bytes(path.read_bytes()[:-4] + (2**31 - 1).to_bytes(4, "little"))
    refit(model)
    with pytest.raises(GraphError, match=r"HCLG\.fst: an arc has the target 2147483647, expected 0 to \d+; .*rebuild"):
        load(model)


def test_files_of_different_models_are_told(model: Path) -> None:
    passes = json.loads((model / MODEL_JSON).read_text())["passes"]
    refit(model, {"passes": [each | {"features": each["features"] | {"bins": 23}} for each in passes]})
    with pytest.raises(ExperimentError, match=r"features of 23, a network of \d+; copy the folder again"):
        load(model)
    network = json.loads((model / MODEL_JSON).read_text())["network"]
    refit(model, {"passes": passes, "network": "0" * 64})
    with pytest.raises(ExperimentError, match="the description is of another network, and so would be the speakers'"):
        load(model)
    refit(model, {"network": network})
    words = model / "lang" / "words.txt"
    words.write_text(words.read_text().replace("CALL ", "CALK "))
    refit(model)
    with pytest.raises(ExperimentError, match="the graph's word 'CALK' is not in the lexicon"):
        load(model)


@pytest.mark.parametrize(
    "files",
    [
        {"lang/words.txt": "elsewhere/words.txt"},
        {"lang/words.txt": "lang/lexicon.txt"},
        {"lang/words.txt": "/etc/passwd"},
        {"lang/words.txt": "lang/../../words.txt"},
        {"lang/words.txt": "lang/a\0b"},
        {"lang/words.txt": 3},
        {"strange": "lang/words.txt"},
    ],
)
def test_names_that_lead_elsewhere_are_refused(model: Path, files: dict[str, object]) -> None:
    """Files that are found by their folder would not be those that were hashed."""
    tree = json.loads((model / MODEL_JSON).read_text())
    (model / MODEL_JSON).write_text(json.dumps(tree | {"files": files}))
    with pytest.raises(ExperimentError, match=r"model\.json: .*; copy the folder again") as caught:
        read_model(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("name", [MODEL_JSON, "lang/HCLG.fst", "networks/si.safetensors"])
def test_what_can_be_read_for_ever_is_refused(model: Path, name: str, make: Callable[[Path], None]) -> None:
    (model / name).unlink()
    make(model / name)
    with pytest.raises(ExperimentError, match=rf"{name}: .*not a file on disk.*; copy the folder again"):
        read_model(model)
