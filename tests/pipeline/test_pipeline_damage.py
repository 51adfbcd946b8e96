"""Damaged files of an experiment, and options that cannot be used: errors of one line, with a remedy that works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.errors import CheckpointError, ConfigError, ExperimentError, LhucError
from lhuc_asr.base.stages import Stages
from lhuc_asr.base.watched_files import WatchedFiles
from lhuc_asr.pipeline.export import export


def named_files(folder: Path, stage: str) -> list[Path]:
    """The files that a stage named when it was run."""
    path = folder / "stages" / f"{stage}.files.jsonl"
    return [folder / row["path"] for row in read_json_lines(path)] if path.exists() else []


def wer_files(folder: Path) -> dict[str, bytes]:
    """The bytes of every wer.json."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("wer.json"))}


def cut(path: Path, by: int = 7) -> None:
    path.write_bytes(path.read_bytes()[:-by])


# A file, the stage that reads it, what its message says to delete, and the stage that then makes it anew.
DAMAGES = [
    ("am/si/model.safetensors", "si over test", "am/si/model.safetensors", "network si"),
    ("features/test/features.bin", "si over test", "features/test", "features of test"),
    ("features/train_mfcc/features.bin", "monophones", "features/train_mfcc", "mfcc of train"),
    ("features/train/index.jsonl", "network si", "features/train", "features of train"),
    ("hmm/mono/train.ali", "network si", "hmm/mono/train.ali", "monophones"),
    ("hmm/mono/topology.json", "network si", "hmm/mono/topology.json", "monophones"),
    ("lang/lm.arpa", "graph", "lang/lm.arpa", "language model"),
    ("lang/lexicon.txt", "graph", "lang/lexicon.txt", "lexicon"),
    ("lang/phones.json", "graph", "lang/phones.json", "lexicon"),
    ("lang/tuning/HCLG.fst", "si over heldout", "lang/tuning/graph.json", "graph"),
    ("lang/HCLG.fst", "si over test", "lang/graph.json", "graph"),
    ("decode/heldout/si/search.json", "si over test", "decode/heldout/si/search.json", "si over heldout"),
    ("decode/test/si/wer.json", None, "decode/test/si/wer.json", "si over test"),
    ("decode/test/si/pdfs.ali", "lhuc over test", "decode/test/si/pdfs.ali", "si over test"),
    ("corpus/test.jsonl", "si over test", "corpus/test.jsonl", "corpus"),
]


@pytest.mark.parametrize(("damaged", "stage", "remedy", "maker"), DAMAGES, ids=[row[0] for row in DAMAGES])
def test_a_damaged_file_is_named_and_deleting_it_mends_it(
    damaged: str,
    stage: str | None,
    remedy: str,
    maker: str,
    finished: Path,
    copied: Path,
    run,
    executed: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage that reads a file is run on a cut one; then what the message says is done.

    So it goes where the record of the stage that made the file is an older version's, which has no list of such files.
    """
    monkeypatch.setattr(WatchedFiles, "changed", lambda self: [])
    cut(copied / damaged)
    if stage:
        (copied / "stages" / f"{stage}.json").unlink()
    with pytest.raises(LhucError) as caught:
        run(copied)
    message = str(caught.value)
    assert damaged.rpartition("/")[0] in message
    assert "\n" not in message
    if damaged != "lang/lm.arpa":
        assert "delete" in message or "again" in message
    rerun: list[str] = []
    real, path = Stages.run, copied / remedy

    def mended(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        def put_back(_: object) -> list[Path]:
            rerun.append(name)
            for file in named_files(finished, name):
                place = copied / file.relative_to(finished)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
            return named_files(copied, name)

        real(self, name, put_back, **arguments)

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    monkeypatch.setattr(Stages, "run", mended)
    run(copied)
    assert rerun == [name for name in executed(finished) if name in (maker, stage)]


def test_a_file_that_is_not_what_its_stage_wrote_is_made_again(finished: Path, copied: Path, run) -> None:
    """Otherwise export would take it, and adapt would refuse the experiment and say to run the recipe again."""
    cut(copied / "am/si/model.safetensors")
    (copied / "speakers/lhuc/test/2001.safetensors").unlink()
    with pytest.raises(ExperimentError, match=r"'network si' .* its files were changed; finish the experiment"):
        export(copied, copied.parent / "model")
    assert run(copied) == ["network si", "lhuc over test"]
    for file in ("am/si/model.safetensors", "speakers/lhuc/test/2001.safetensors"):
        assert (copied / file).read_bytes() == (finished / file).read_bytes()
    export(copied, copied.parent / "model")


def test_a_damaged_training_state_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch, run) -> None:
    """A run that is killed after an epoch leaves a state; cut, it is refused, and deleted, training begins anew."""

    class Killed(Exception):
        pass

    def killed(path: Path, model: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("lhuc_asr.pipeline.networks.save_model", killed)
        with pytest.raises(Killed):
            run(copied, "trainer.momentum=0.5")
    (state,) = (copied / "am" / "si").glob("training-*.safetensors")
    cut(state)
    with pytest.raises(CheckpointError, match=r"training-\w+\.safetensors: cannot be read .*; delete it") as caught:
        run(copied, "trainer.momentum=0.5")
    assert "\n" not in str(caught.value)
    state.unlink()
    monkeypatch.setattr("lhuc_asr.pipeline.language.build_graph", killed)
    with pytest.raises((Killed, TypeError)):
        run(copied, "trainer.momentum=0.5", "transition_scale=0.3")
    assert read_json(copied / "stages" / "network si.json")["key"]
    assert not list((copied / "am" / "si").glob("training-*"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_an_unknown_device_is_refused_before_anything_is_written(device: str, tmp_path: Path, run) -> None:
    with pytest.raises(ConfigError, match=f"device={device}: .*device=cpu"):
        run(tmp_path / "exp", f"device={device}")
    assert not (tmp_path / "exp").exists()


def test_a_layer_that_the_network_lacks_is_refused_and_nothing_is_lost(finished: Path, copied: Path, run) -> None:
    with pytest.raises(LhucError, match="7") as caught:
        run(copied, "lhuc.layers=[7]")
    assert "\n" not in str(caught.value)
    assert wer_files(copied) == wer_files(finished)
