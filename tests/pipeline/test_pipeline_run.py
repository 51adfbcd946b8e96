"""The whole job on six tiny voices: what it leaves, what it does again, what it says of damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, LhucError
from lhuc_asr.base.stages import Stages
from lhuc_asr.features.context import splice
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.topology import load as load_topology
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.config import ExperimentConfig

SPLITS = ("train", "heldout", "test", "control")
STAGES = [
    *("corpus", "lexicon", "language model", "features", "monophones", "network si", "graph"),
    *(f"{name} over {split}" for split in ("heldout", "test", "control") for name in ("si", "lhuc")),
    "model",
]
# The model's description comes after the tuned searches.
SEARCHES = STAGES[STAGES.index("si over heldout") :]
SECOND_PASSES = [stage for stage in SEARCHES if stage.startswith("lhuc") or stage == "model"]


def named_files(folder: Path, stage: str) -> list[Path]:
    """The files that a stage named when it was run."""
    path = folder / "stages" / f"{stage}.files.jsonl"
    return [folder / row["path"] for row in read_json_lines(path)] if path.exists() else []


def wer_files(folder: Path) -> dict[str, bytes]:
    """The bytes of every wer.json."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("wer.json"))}


# What a finished experiment holds.


def test_the_folder_is_laid_out_as_the_design_says(finished: Path) -> None:
    expected = {"config.yaml", "run.json", "metrics.jsonl", "model.json", "am/si/model.safetensors"}
    expected |= {f"corpus/{split}.jsonl" for split in SPLITS}
    expected |= {f"features/{split}/{name}" for split in SPLITS for name in ("features.bin", "index.jsonl")}
    expected |= {f"lang/{name}" for name in ("lexicon.txt", "words.txt", "phones.json", "lm.arpa", "HCLG.fst")}
    expected |= {f"hmm/mono/{name}" for name in ("topology.json", "gmm.safetensors", "train.ali", "heldout.ali")}
    expected |= {f"decode/{split}/lhuc.png" for split in ("test", "control")}
    expected |= {f"speakers/lhuc/test/{speaker}.safetensors" for speaker in (2001, 2002)}
    expected |= {f"speakers/lhuc/control/{speaker}.safetensors" for speaker in (3001, 3002)}
    expected |= {
        f"decode/{split}/{name}/{file}"
        for split in ("test", "control")
        for name in ("si", "lhuc")
        for file in ("hypotheses.jsonl", "wer.json")
    }
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert expected <= found
    assert not [name for name in found if "partial" in name or ".old" in name]
    assert not list(finished.rglob("*.pkl")) + list(finished.rglob("*.pt"))


@pytest.mark.parametrize("split", ["test", "control"])
@pytest.mark.parametrize("name", ["si", "lhuc"])
def test_wer_json_adds_up(finished: Path, split: str, name: str) -> None:
    report = read_json(finished / "decode" / split / name / "wer.json")
    assert {"wer", "errors", "words", "speakers"} <= set(report)
    references = read_manifest(finished / "corpus" / f"{split}.jsonl")
    assert report["words"] == sum(len(utterance.words) for utterance in references)
    assert report["wer"] == report["errors"] / report["words"]
    assert set(report["speakers"]) == {utterance.speaker for utterance in references}
    for key in ("errors", "words"):
        assert report[key] == sum(speaker[key] for speaker in report["speakers"].values())
    for speaker, row in report["speakers"].items():
        assert row["words"] == sum(len(u.words) for u in references if u.speaker == speaker)
        assert row["wer"] == row["errors"] / row["words"]


@pytest.mark.parametrize("name", ["si", "lhuc"])
def test_each_utterance_has_one_hypothesis_that_scores_as_wer_json_says(finished: Path, name: str) -> None:
    rows = list(read_json_lines(finished / "decode" / "test" / name / "hypotheses.jsonl"))
    references = {utterance.id: utterance for utterance in read_manifest(finished / "corpus" / "test.jsonl")}
    assert sorted(row["utterance"] for row in rows) == sorted(references)
    errors = {"2001": 0, "2002": 0}
    for row in rows:
        reference = references[row["utterance"]]
        errors[reference.speaker] += edit_distance(reference.words, row["words"].split())
    report = read_json(finished / "decode" / "test" / name / "wer.json")
    assert {speaker: row["errors"] for speaker, row in report["speakers"].items()} == errors


def edit_distance(reference: tuple[str, ...], hypothesis: list[str]) -> int:
    """Levenshtein's, straight from the recursion."""
    table = np.arange(len(hypothesis) + 1)
    for i, word in enumerate(reference, start=1):
        previous, table[0] = table.copy(), i
        for j, other in enumerate(hypothesis, start=1):
            table[j] = min(previous[j] + 1, table[j - 1] + 1, previous[j - 1] + (word != other))
    return int(table[-1])


def test_splits_share_no_speaker_and_no_recording(finished: Path) -> None:
    manifests = {split: read_manifest(finished / "corpus" / f"{split}.jsonl") for split in SPLITS}
    for key in ("speaker", "id", "audio"):
        names = [{getattr(utterance, key) for utterance in manifest} for manifest in manifests.values()]
        assert len(set().union(*names)) == sum(map(len, names))
    assert len({utterance.speaker for utterance in manifests["heldout"]}) == 1


def test_every_frame_is_aligned_to_a_pdf_of_the_topology(finished: Path) -> None:
    topology = load_topology(finished / "hmm" / "mono" / "topology.json")
    for split in ("train", "heldout"):
        store = FeatureStore(finished / "features" / split)
        alignment = Alignment(finished / "hmm" / "mono" / f"{split}.ali", store)
        assert alignment.array.min() >= 0
        assert alignment.array.max() < topology.pdf_count


def test_the_speakers_load_onto_the_network_and_have_moved(finished: Path) -> None:
    model = load_model(finished / "am" / "si" / "model.safetensors")
    bank = SpeakerBank.load(finished / "speakers" / "lhuc" / "test", model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features = FeatureStore(finished / "features" / "test").array[:10]
    spliced = splice(torch.from_numpy(np.array(features)), model.config.context)
    with torch.no_grad():
        plain = bank.model(spliced)
        with bank.speaker("2001"):
            adapted = bank.model(spliced)
    assert not torch.equal(plain, adapted)
    bank.detach()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_record_tells_how_to_repeat_the_run(finished: Path) -> None:
    record = read_json(finished / "run.json")
    assert record["seed"] == 3
    assert {"lhuc_asr", "python", "packages", "command", "machine", "git"} <= set(record)
    config = load_config(ExperimentConfig, finished / "config.yaml")
    assert config.exp == finished
    assert config.dnn.hidden_units == 48


def test_the_metrics_hold_every_stage_and_epoch(finished: Path) -> None:
    rows = list(read_json_lines(finished / "metrics.jsonl"))
    assert [row["stage"] for row in rows if set(row) == {"stage", "time", "seconds"}] == STAGES
    assert len([row for row in rows if row["stage"] == "am/si"]) == 2
    assert all(row["time"] > 0 for row in rows)


# Run again.


def test_a_second_run_skips_every_stage_and_shows_the_same_table(finished: Path, copied: Path, run) -> None:
    assert run(copied) == []
    assert wer_files(copied) == wer_files(finished)
    for split in ("test", "control"):
        for name in ("table.txt", "comparison.json", "speakers.csv"):
            path = Path("decode") / split / name
            assert (copied / path).read_bytes() == (finished / path).read_bytes()


@pytest.mark.slow
def test_another_folder_gets_the_same_bytes(finished: Path, tmp_path: Path, run) -> None:
    folder = tmp_path / "again"
    assert run(folder) == STAGES
    assert wer_files(folder) == wer_files(finished)
    assert (folder / "lang" / "HCLG.fst").read_bytes() == (finished / "lang" / "HCLG.fst").read_bytes()
    for name in ("am/si/model.safetensors", "hmm/mono/gmm.safetensors", "speakers/lhuc/test/2001.safetensors"):
        again, before = load_file(folder / name), load_file(finished / name)
        assert again.keys() == before.keys()
        assert all(torch.equal(again[key], before[key]) for key in before)


OPTIONS = [
    ("seed=4", STAGES),
    ("heldout_speakers=2", STAGES),
    ("corpus.voices.training_utterances=5", STAGES),
    ("features.bins=23", [name for name in STAGES if name not in ("corpus", "lexicon", "language model")]),
    ("speeds=[1.0, 0.9]", [name for name in STAGES if name not in ("corpus", "lexicon", "language model")]),
    ("lexicon.silence_probability=0.4", [name for name in STAGES if name not in ("corpus", "features")]),
    ("lm.order=1", ["language model", "graph", *SEARCHES]),
    ("monophone.gaussians=110", ["monophones", "network si", "graph", *SEARCHES]),
    ("dnn.hidden_units=47", ["network si", *SEARCHES]),
    ("trainer.momentum=0.8", ["network si", *SEARCHES]),
    ("transition_scale=0.2", ["graph", *SEARCHES]),
    ("search.beam=12", SEARCHES),
    ("tuning.acoustic_scales=[0.1]", SEARCHES),
    ("lhuc.sweeps=1", SECOND_PASSES),
    ("passes={lhuc: {targets: {silence_weight: 1}}}", SECOND_PASSES),
    ("workers=2", []),
    ("name=other", []),
]


@pytest.mark.parametrize(("override", "expected"), OPTIONS)
def test_an_option_runs_exactly_the_stages_that_depend_on_it(
    override: str, expected: list[str], copied: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    real = Stages.run

    def without_action(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        real(self, name, lambda _: None, **arguments)

    monkeypatch.setattr(Stages, "run", without_action)
    assert [name for name in run(copied, override) if name in STAGES] == [name for name in STAGES if name in expected]


def test_other_amplitudes_change_the_second_pass_alone(finished: Path, copied: Path, run) -> None:
    assert run(copied, "lhuc.learning_rate=1e-6") == SECOND_PASSES
    for split in ("test", "control"):
        first, second = (read_json(copied / "decode" / split / name / "wer.json") for name in ("si", "lhuc"))
        assert first == read_json(finished / "decode" / split / "si" / "wer.json")
        assert second == first


REMOVED = {
    "corpus/test.jsonl": "corpus",
    "lang/lexicon.txt": "lexicon",
    "lang/lm.arpa": "language model",
    "features/control": "features",
    "features/train_mfcc": "features",
    "hmm/mono/topology.json": "monophones",
    "hmm/mono/gmm.safetensors": "monophones",
    "hmm/mono/train.ali": "monophones",
    "am/si/model.safetensors": "network si",
    "lang/HCLG.fst": "graph",
    "lang/words.txt": "graph",
    "lang/tuning/HCLG.fst": "graph",
    "decode/heldout/lhuc/search.json": "lhuc over heldout",
    "decode/test/lhuc/wer.json": "lhuc over test",
    "decode/control/si/hypotheses.jsonl": "si over control",
    "speakers/lhuc/test": "lhuc over test",
    "model.json": "model",
}


def in_rounds(outputs: dict[str, str]) -> list[dict[str, str]]:
    """Outputs in as few rounds as have one output of each stage."""
    rounds: list[dict[str, str]] = []
    for output, stage in outputs.items():
        free = next((each for each in rounds if stage not in each.values()), None)
        if free is None:
            rounds.append(free := {})
        free[output] = stage
    return rounds


@pytest.mark.parametrize("removed", in_rounds(REMOVED))
def test_a_stage_whose_output_is_gone_runs_again(
    removed: dict[str, str], copied: Path, monkeypatch: pytest.MonkeyPatch, run, tmp_path: Path
) -> None:
    """Each stage by itself: its key, and so the keys after it, stay the same."""
    kept = {stage: tmp_path / stage.replace(" ", "-") for stage in removed.values()}
    for output, stage in removed.items():
        (copied / output).rename(kept[stage])
    places = {stage: copied / output for output, stage in removed.items()}
    real = Stages.run

    def put_back(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        def done_before(_: object) -> list[Path]:
            kept[name].rename(places[name])
            return named_files(copied, name)

        real(self, name, done_before, **arguments)

    monkeypatch.setattr(Stages, "run", put_back)
    assert run(copied) == [stage for stage in STAGES if stage in kept]


def test_voices_that_are_gone_are_made_again(copied: Path, monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Contents are not compared, so that recordings made anew count as others."""
    voices = next(copied.glob("voices-*"))
    before = {path.relative_to(voices): path.read_bytes() for path in voices.rglob("*.flac")}
    shutil.rmtree(voices)
    real = Stages.run

    def corpus_alone(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        real(self, name, work if name == "corpus" else lambda _: None, **arguments)

    monkeypatch.setattr(Stages, "run", corpus_alone)
    assert run(copied) == STAGES
    assert {path.relative_to(voices): path.read_bytes() for path in voices.rglob("*.flac")} == before


def test_speakers_of_an_earlier_run_do_not_stay(copied: Path, run) -> None:
    stale = copied / "speakers" / "lhuc" / "test" / "gone.safetensors"
    shutil.copy(copied / "speakers" / "lhuc" / "test" / "2001.safetensors", stale)
    (copied / "decode" / "test" / "lhuc" / "wer.json").unlink()
    assert run(copied) == ["lhuc over test"]
    assert not stale.exists()


# Damage.


def cut(path: Path, by: int = 7) -> None:
    path.write_bytes(path.read_bytes()[:-by])


# A file, the stage that reads it, what its message says to delete, and the stage that then makes it anew.
DAMAGES = [
    ("am/si/model.safetensors", "si over test", "am/si/model.safetensors", "network si"),
    ("features/test/features.bin", "si over test", "features/test", "features"),
    ("features/train_mfcc/features.bin", "monophones", "features/train_mfcc", "features"),
    ("features/train/index.jsonl", "network si", "features/train", "features"),
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage that reads a file is run on a cut one; then what the message says is done."""
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
            if not path.exists():
                copy = shutil.copytree if (finished / remedy).is_dir() else shutil.copy
                copy(finished / remedy, path)
            return named_files(copied, name)

        real(self, name, put_back, **arguments)

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    monkeypatch.setattr(Stages, "run", mended)
    run(copied)
    assert rerun == [name for name in STAGES if name in (maker, stage)]


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
