"""The whole recipe on six tiny voices: its files, the stages of a second run, and errors about damaged files."""

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
from lhuc_asr.base.stages import Stages
from lhuc_asr.features.context import splice
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.topology import load as load_topology
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.config import ExperimentConfig

SPLITS = ("train", "heldout", "test", "control")
LANGUAGE = ["lexicon", "language model", "perplexity"]
FEATURES = [
    *("features of train", "mfcc of train", "features of heldout", "mfcc of heldout"),
    *("features of test", "features of control"),
]
STAGES = [
    *("corpus", *LANGUAGE, *FEATURES, "monophones", "network si", "graph"),
    "si over heldout",
    *(f"{name} over {split}" for split in ("test", "control") for name in ("si", "lhuc", "lhuc__others_mean")),
    "model",
]
# The model's description comes after the tuned search.
SEARCHES = STAGES[STAGES.index("si over heldout") :]
SECOND_PASSES = [stage for stage in SEARCHES if stage.startswith("lhuc") or stage == "model"]


def named_files(folder: Path, stage: str) -> list[Path]:
    """The files that a stage named when it was run."""
    path = folder / "stages" / f"{stage}.files.jsonl"
    return [folder / row["path"] for row in read_json_lines(path)] if path.exists() else []


def wer_files(folder: Path) -> dict[str, bytes]:
    """The bytes of every wer.json."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("wer.json"))}


# The files of a finished experiment.


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
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert expected <= files
    assert not [name for name in files if "partial" in name or ".old" in name]
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
        alignment = Alignment(finished / "hmm" / "mono" / f"{split}.ali", store, topology.pdf_count)
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


OF_TESTS = ["features of test", "features of control"]
OPTIONS = [
    ("seed=4", [name for name in STAGES if name not in OF_TESTS]),  # the voices have a seed of their own
    ("heldout_speakers=2", [name for name in STAGES if name not in OF_TESTS]),
    ("corpus.voices.training_utterances=5", STAGES),
    ("features.bins=23", [name for name in STAGES if name not in ("corpus", *LANGUAGE) and "mfcc" not in name]),
    ("speeds=[1.0, 0.9]", ["features of train", "mfcc of train", *STAGES[STAGES.index("monophones") :]]),
    ("lexicon.silence_probability=0.4", [name for name in STAGES if name not in ("corpus", *FEATURES)]),
    ("lm.order=1", ["language model", "perplexity", "graph", *SEARCHES]),
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
    """The corpus is read, because the features of a split depend on what it says of that split alone."""
    real = Stages.run

    def without_action(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        real(self, name, work if name == "corpus" else lambda _: None, **arguments)

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
    "lang/perplexity.json": "perplexity",
    "features/control": "features of control",
    "features/train_mfcc": "mfcc of train",
    "hmm/mono/topology.json": "monophones",
    "hmm/mono/gmm.safetensors": "monophones",
    "hmm/mono/train.ali": "monophones",
    "am/si/model.safetensors": "network si",
    "lang/HCLG.fst": "graph",
    "lang/words.txt": "graph",
    "lang/tuning/HCLG.fst": "graph",
    "decode/heldout/si/search.json": "si over heldout",
    "decode/test/lhuc__others_mean/wer.json": "lhuc__others_mean over test",
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
    """They are the same to the bit, so that all that was made of them stays finished."""
    voices = next(copied.glob("voices-*"))
    before = {path.relative_to(voices): path.read_bytes() for path in voices.rglob("*.flac")}
    shutil.rmtree(voices)
    real = Stages.run

    def corpus_alone(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        real(self, name, work if name == "corpus" else lambda _: None, **arguments)

    monkeypatch.setattr(Stages, "run", corpus_alone)
    assert run(copied) == ["corpus"]
    assert {path.relative_to(voices): path.read_bytes() for path in voices.rglob("*.flac")} == before


def test_speakers_of_an_earlier_run_do_not_stay(copied: Path, run) -> None:
    stale = copied / "speakers" / "lhuc" / "test" / "gone.safetensors"
    shutil.copy(copied / "speakers" / "lhuc" / "test" / "2001.safetensors", stale)
    (copied / "decode" / "test" / "lhuc" / "wer.json").unlink()
    assert run(copied) == ["lhuc over test"]
    assert not stale.exists()
