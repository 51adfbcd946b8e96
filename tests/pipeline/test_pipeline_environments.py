"""The tiny recipe with two noises: every recording in its environments, passes for speaker, environment and both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from shift_method import ShiftConfig
from typer.testing import CliRunner

from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.cli.main import app
from lhuc_asr.features.context import splice
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.alignment import Alignment
from lhuc_asr.hmm.topology import load as load_topology
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.pipeline.acoustic_models import CEPSTRA
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.export import export
from lhuc_asr.recognizer.model_folder import read_model

Run = Callable[..., list[str]]

RATE = 16_000
ENVIRONMENTS = ("clean", "hum", "hiss")
PASSES = """{
  r_s: {data: {environments: [clean]}},
  r_e: {data: {unit: environment, seconds: 4}},
  r_se: {data: {unit: joint}, method: {kind: moments}},
  clean: {data: {environments: [clean]}, method: {kind: moments}},
  together: {combine: {speaker: r_s, environment: r_e}},
  between: {combine: {speaker: r_s, environment: r_e, alpha: 0.7}},
  all_speaker: {combine: {speaker: r_s, environment: r_e, alpha: 1.0}},
  anywhere: {},
}"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(1)
    lines = ["path\tclass"]
    for name in ENVIRONMENTS[1:]:
        for number in range(4):
            samples = generator.standard_normal(2 * RATE)
            if name == "hum":
                samples = np.cumsum(samples - samples.mean()) / 100
            soundfile.write(folder / f"{name}{number}.flac", 0.05 * samples / samples.std(), RATE)
            lines.append(f"{name}{number}.flac\t{name}")
    (folder / "noise.tsv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def noisy(noise: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """The finished experiment, and the overrides that it was made with."""
    folder = tmp_path_factory.mktemp("noisy") / "exp"
    overrides = (
        f"noise={{dir: {noise}, classes: [hum, hiss], training_conditions: 2}}",
        "normalised_by=environment",
        "heldout_speakers=2",
        "tuning.acoustic_scales=[0.1]",
        "search.beam=6",
        "corpus.voices.test_utterances=2",
        "corpus.voices.control_utterances=1",
        f"passes={PASSES}",
    )
    run(folder, *overrides)
    return folder, overrides


def wer_of(folder: Path, split: str, name: str) -> dict:
    return read_json(folder / "decode" / split / name / "wer.json")


def test_manifests_name_environments_and_recordings_that_are_there(noisy) -> None:
    folder, _ = noisy
    for split, copies in (("train", 2), ("heldout", 3), ("test", 3), ("control", 3)):
        utterances = read_manifest(folder / "corpus" / f"{split}.jsonl")
        spoken = {u.id.rsplit(".", 1)[0] for u in utterances}
        assert len(utterances) == copies * len(spoken)
        for utterance in utterances:
            assert utterance.environment == utterance.id.rsplit(".", 1)[1]
            assert utterance.audio.is_file()
            assert (folder / "corpus" / "noisy" in utterance.audio.parents) == (utterance.environment != "clean")


@pytest.mark.parametrize("kind", [None, CEPSTRA])
def test_features_are_normalised_in_each_environment(noisy, kind: str | None) -> None:
    """Those of the networks in each split, and those of the Gaussians, which test sets do not need."""
    layout = ExperimentFolder(noisy[0])
    for split in ("train", "heldout", *(("test", "control") if kind is None else ())):
        store = FeatureStore(layout.features(split) if kind is None else layout.features(split, kind))
        frames: dict[tuple[str, str], list[np.ndarray]] = {}
        for utterance in read_manifest(layout.manifest(split)):
            frames.setdefault((utterance.speaker, utterance.environment), []).append(store[utterance.id])
        assert {environment for _, environment in frames} == set(ENVIRONMENTS)
        for values in map(np.concatenate, frames.values()):
            np.testing.assert_allclose(values.mean(axis=0, dtype=np.float64), 0.0, atol=1e-4)
            np.testing.assert_allclose(values.std(axis=0, dtype=np.float64), 1.0, atol=1e-4)


def test_a_model_says_how_its_features_were_normalised(noisy, finished: Path, tmp_path: Path) -> None:
    for folder, name, by in ((noisy[0], "anywhere", "environment"), (finished, "lhuc", "speaker")):
        export(folder, tmp_path / by, name)
        assert read_model(tmp_path / by)[0].normalised_by == by
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "environment")]).output
    assert "normalised for each speaker in each environment; give recordings of one together" in shown


def test_the_language_model_counts_a_sentence_once_in_however_many_environments(noisy, finished: Path) -> None:
    folder, _ = noisy
    assert (folder / "lang" / "lm.arpa").read_bytes() == (finished / "lang" / "lm.arpa").read_bytes()


@pytest.mark.parametrize("split", ["test", "control"])
def test_error_rates_by_environment_add_up(noisy, split: str) -> None:
    folder, _ = noisy
    table = (folder / "decode" / split / "environments.txt").read_text(encoding="utf-8")
    assert all(heading in table.splitlines()[1] for heading in (*ENVIRONMENTS, "noisy", "all"))
    environment_of = {u.id: u.environment for u in read_manifest(folder / "corpus" / f"{split}.jsonl")}
    for name in ("si", "r_s", "r_e", "r_se", "together", "between"):
        report = wer_of(folder, split, name)
        assert set(report["environments"]) == set(ENVIRONMENTS)
        for environment, row in report["environments"].items():
            there = [u for u in report["utterances"] if environment_of[u["id"]] == environment]
            assert row["words"] == sum(u["words"] for u in there)
            assert row["errors"] == sum(u["substitutions"] + u["deletions"] + u["insertions"] for u in there)
            assert f"{100 * row['wer']:.2f}" in table


def test_rows_are_named_for_what_they_are_of(noisy) -> None:
    folder, _ = noisy
    names = {
        name: {path.stem for path in (folder / "speakers" / name / "test").iterdir()} - {"speaker-independent"}
        for name in ("r_s", "r_e", "r_se", "between")
    }
    assert names["r_s"] == {"2001", "2002"}
    assert names["r_e"] == names["r_se"] == {f"{s}.{e}" for s in (2001, 2002) for e in ENVIRONMENTS}
    assert names["between"] == {f"{s}+{s}.{e}" for s in (2001, 2002) for e in ENVIRONMENTS}


def amplitudes(folder: Path, name: str, row: str) -> torch.Tensor:
    state = SpeakerState.load(folder / "speakers" / name / "test" / f"{row}.safetensors")
    (r,) = state.r.values()
    return {"exp": torch.exp, "identity": torch.clone}[state.amplitude](r.double())


def test_what_clean_recordings_are_compared_with_is_clean_speech(noisy) -> None:
    """The mean activations of the clean training recordings, summed here frame by frame."""
    folder, _ = noisy
    layout = ExperimentFolder(folder)
    model, store = load_model(layout.network("si")), FeatureStore(layout.features("train"))
    pdfs = Alignment(layout.hmm("mono") / "train.ali", store, model.pdf_count)
    silence = load_topology(layout.hmm("mono") / "topology.json").silence_pdfs
    means = {}
    for environments in (("clean",), ENVIRONMENTS):
        total, weights = torch.zeros(model.config.hidden_units, dtype=torch.float64), 0.0
        for utterance in read_manifest(layout.manifest("train")):
            if utterance.environment in environments:
                weight = torch.from_numpy(np.where(np.isin(pdfs[utterance.id], silence), 0.01, 1.0))
                spliced = splice(torch.from_numpy(np.array(store[utterance.id])), model.config.context)
                with torch.no_grad():
                    total += (weight[:, None] * model.hidden[0](spliced).double()).sum(0)
                weights += float(weight.sum())
        means[environments] = total / weights
    prepared = [
        load_file(path)["mean.0"] for path in (folder / "speakers" / "prepared").glob("moments-*/*.safetensors")
    ]
    assert len(prepared) == 2
    for mean in means.values():
        assert any(torch.allclose(learned.double(), mean, rtol=1e-4, atol=1e-5) for learned in prepared)
    assert not torch.allclose(*means.values(), rtol=1e-2)


def test_combined_passes_have_the_amplitudes_of_equation_10(noisy) -> None:
    folder, _ = noisy
    for environment in ENVIRONMENTS:
        row = f"2001+2001.{environment}"
        s, e = amplitudes(folder, "r_s", "2001"), amplitudes(folder, "r_e", f"2001.{environment}")
        assert not torch.allclose(s, e, atol=0.01)
        torch.testing.assert_close(amplitudes(folder, "between", row), 0.7 * s + 0.3 * e, rtol=1e-6, atol=0)
        torch.testing.assert_close(amplitudes(folder, "together", row), s * e, rtol=1e-6, atol=0)


def test_all_of_the_speaker_and_nothing_of_the_environment_is_the_speakers_pass(noisy) -> None:
    folder, _ = noisy
    for split in ("test", "control"):
        assert wer_of(folder, split, "all_speaker") == wer_of(folder, split, "r_s")


def test_a_pass_is_made_again_when_what_it_combines_is(noisy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, overrides = noisy
    assert run(folder, *overrides) == []
    # Which stages are made again is asked, not what they make.
    monkeypatch.setattr("lhuc_asr.pipeline.order.make_pass", lambda *_: None)
    executed = run(folder, *overrides, "passes.between.combine.alpha=0.6")
    passes = ("between", "between__others_mean")
    assert executed == [f"{name} over {split}" for split in ("test", "control") for name in passes]
    executed = run(folder, *overrides, "passes.r_e.data.seconds=5", "passes.between.combine.alpha=0.6")
    changed = [
        f"{name}{kind}" for name in ("r_e", "together", "between", "all_speaker") for kind in ("", "__others_mean")
    ]
    assert executed == [f"{name} over {split}" for split in ("test", "control") for name in changed]


def test_the_corpus_is_prepared_again_when_the_noise_is_another(
    noisy, noise: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, overrides = noisy
    prepared = []

    def prepare_corpus(*_: object) -> None:
        prepared.append(True)
        raise CorpusError("only asked")

    monkeypatch.setattr("lhuc_asr.pipeline.corpus_stage._prepare", prepare_corpus)
    samples, rate = soundfile.read(noise / "hum0.flac")
    soundfile.write(noise / "hum0.flac", -samples, rate)
    with pytest.raises(CorpusError, match="only asked"):
        run(folder, *overrides)
    assert prepared


REFUSED = {
    "passes={a: {data: {unit: joint}}}": "'a' asks for the environments of the corpus; noise: makes these: none",
    "passes={a: {data: {environments: [clean]}}}": "'a' asks for the environments clean; noise: makes these: none",
    "passes={a: {combine: {speaker: b, environment: b}}, b: {}}": "'a' combines 'b'; passes that adapt before it: none",
    "passes={a: {}, b: {combine: {speaker: a, environment: si}}}": "'b' combines 'si'; passes that adapt before it: a",
    "passes={a: {}, b: {network: sat, combine: {speaker: a, environment: a}}}": "combines 'a' of another",
    "passes={a: {}, b: {combine: {speaker: a, environment: a}, data: {seconds: 3}}}": "leave out data, targets and",
    "passes={a: {}, b: {combine: {speaker: a, environment: a, alpha: 2}}}": "alpha",
    "passes={a: {}, b: {method: {kind: lhuc, layers: [0]}}, c: {combine: {speaker: a, environment: b}}}": (
        "'c' combines 'a' and 'b', which have amplitudes at different layers"
    ),
    "noise={dir: x, classes: [rain, rain]}": "expected each once",
    "normalised_by=environment": "normalised_by: environment, but the recordings have no environments; make some with",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_made_is_refused_before_anything_runs(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [override])
    assert REFUSED[override] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_amplitudes_are_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "shift", ShiftConfig)
    override = "passes={a: {}, b: {method: {kind: shift}}, c: {combine: {speaker: a, environment: b}}}"
    with pytest.raises(ConfigError, match="'c' combines 'b', which does not estimate amplitudes; give it another"):
        load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [override])


def test_features_are_normalised_in_environments_that_noise_or_the_corpus_may_have() -> None:
    for places in ("noise={dir: x, classes: [rain]}", "corpus={kind: kaldi, train: a, test: b}"):
        config = load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [places, "normalised_by=environment"])
        assert config.normalised_by == "environment"


def test_an_environment_that_the_noise_does_not_make_is_named() -> None:
    overrides = ["noise={dir: x, classes: [rain]}", "passes={a: {data: {environments: [clean, snow]}}}"]
    with pytest.raises(ConfigError, match="'a' asks for the environments snow; noise: makes these: clean, rain"):
        load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), overrides)
