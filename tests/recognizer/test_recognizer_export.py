"""What an experiment exports: the pass that was asked for, if it suits a new speaker; and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.config import dump_config, load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError, LhucError
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stages import Stages
from lhuc_asr.base.watched_files import WatchedFiles
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.export import export
from lhuc_asr.pipeline.order import add_stages
from lhuc_asr.recognizer.model_folder import read_model


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_description_is_that_of_the_experiment(finished: Path, out: Path) -> None:
    description = export(finished, out)
    assert read_model(out)[0] == description.model_copy(update={"files": {}})
    chosen = json.loads((finished / "decode" / "heldout" / "si" / "search.json").read_text())["chosen"]
    assert [each.name for each in description.passes] == ["si", "lhuc"]
    for each in description.passes:
        assert each.search.model_dump() | chosen == each.search.model_dump()


def test_recordings_of_the_experiment_are_searched_whole(finished: Path, exported: Path) -> None:
    description, _ = read_model(exported)
    seconds = {
        split: [u.seconds for u in read_manifest(finished / "corpus" / f"{split}.jsonl")]
        for split in ("train", "heldout", "test", "control")
    }
    assert description.whole_seconds == max(max(lengths) for lengths in seconds.values())
    assert description.piece_seconds == min(20.0, np.quantile(seconds["train"], 0.95))


def test_export_replaces_a_model_and_nothing_else(finished: Path, exported: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    (model / "lang" / "words.txt").unlink()
    export(finished, model)
    read_model(model)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExperimentError, match=r"other: exists and is not a model; choose another folder"):
        export(finished, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_an_experiment_is_exported_without_the_device_that_it_ran_on(copied: Path, exported: Path, out: Path) -> None:
    config = load_config(ExperimentConfig, copied / "config.yaml", ["device=cuda:99"])
    (copied / "config.yaml").write_text(dump_config(config))
    assert export(copied, out).network == read_model(exported)[0].network


def test_a_pass_that_is_not_there_is_named(finished: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match="'fmllr' is not a pass that adapts; the experiment has lhuc"):
        export(finished, out, "fmllr")
    assert not out.exists()


ORACLE = {"targets": {"kind": "reference"}}


def with_passes(folder: Path, **passes: dict[str, object]) -> Path:
    config = load_config(ExperimentConfig, folder / "config.yaml")
    tree = config.model_dump(mode="json") | {"passes": {"lhuc": {}, "oracle": ORACLE, **passes}}
    (folder / "config.yaml").write_text(dump_config(ExperimentConfig.model_validate(tree)))
    return folder


@pytest.mark.parametrize(
    ("plan", "way"),
    [
        ({"targets": {"kind": "reference"}}, "on reference transcripts"),
        ({"targets": {"source": "oracle"}}, "on the pass 'oracle', which adapts on reference transcripts"),
        ({"targets": {"lm_order": 1}}, "on the words of a search with a language model of order 1"),
        ({"data": {"seconds": 10}}, "on a part of a speaker's recordings"),
        ({"data": {"mode": "one_shot"}}, "on a part of a speaker's recordings"),
    ],
)
def test_a_way_of_adapting_that_does_not_suit_a_new_speaker_is_refused(
    copied: Path, out: Path, plan: dict[str, object], way: str
) -> None:
    with pytest.raises(ConfigError, match=f"the pass 'special' adapts {way}.* with --pass"):
        export(with_passes(copied, special=plan), out, "special")


def test_an_unfinished_experiment_is_told(copied: Path, out: Path) -> None:
    (copied / "decode" / "heldout" / "si" / "search.json").unlink()
    with pytest.raises(ExperimentError, match=r"the stage 'si over heldout' is not finished, .* with lhuc-asr run$"):
        export(copied, out)


def test_what_is_not_an_experiment_is_named(tmp_path: Path, exported: Path, out: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, exported):
        with pytest.raises(ExperimentError, match="not an experiment's folder"):
            export(folder, out)


def test_a_fold_is_exported_and_a_cross_validation_is_not(
    copied: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "cross"
    whole.mkdir()
    shutil.move(copied, whole / "fold1")
    config = load_config(ExperimentConfig, whole / "fold1" / "config.yaml")
    tree = config.model_dump(mode="json") | {"folds": 2, "corpus": {"kind": "an4", "dir": "an4"}}
    (whole / "fold1" / "config.yaml").unlink()
    config = ExperimentConfig.model_validate(tree)
    (whole / "config.yaml").write_text(dump_config(config))
    with pytest.raises(ExperimentError, match=r"the stage 'corpus' .* was run with other options"):
        export(whole / "fold1", out)
    real = Stages.run
    with monkeypatch.context() as patch:  # the files stay, with the records of a fold
        patch.setattr(Stages, "run", lambda self, name, _, **given: real(self, name, lambda _: None, **given))
        stages = Stages(whole / "fold1", Metrics(whole / "metrics.jsonl"))
        add_stages(stages, config.model_copy(update={"exp": whole / "fold1"}), 1)
    assert export(whole / "fold1", out).experiment == f"{whole.name}/fold1"
    with pytest.raises(ExperimentError, match=r"give one of them, such as .*fold1"):
        export(whole, out)


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("decode/heldout/si/search.json", "[]", "not a tuned search"),
        ("decode/heldout/si/search.json", '{"chosen": {"acoustic_scale": 0.1}}', "chosen.insertion_penalty"),
        (
            "decode/heldout/si/search.json",
            '{"chosen": {"acoustic_scale": -1, "insertion_penalty": 0}}',
            "acoustic_scale",
        ),
        ("corpus/sample_rate.json", '"fast"', "not sample rates of recordings"),
        ("corpus/sample_rate.json", "-8000", "not sample rates of recordings"),
        ("corpus/sample_rate.json", '{"16000": {"recordings": 0, "names": []}}', "not sample rates of recordings"),
        ("corpus/train.jsonl", "{}\n", "train.jsonl:1: not an utterance"),
    ],
)
def test_a_file_of_an_experiment_with_other_values_is_named(
    copied: Path, out: Path, place: str, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an experiment of an older version, which did not note what its stages wrote."""
    monkeypatch.setattr(WatchedFiles, "changed_below", lambda self, places: False)
    (copied / place).write_text(content)
    with pytest.raises(LhucError, match=place.rpartition("/")[2]) as caught:
        export(copied, out)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
