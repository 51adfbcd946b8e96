"""Models whose passes adapt the features by fMLLR, with and without a method on top: the recipe's words exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.ivector import VectorSpeakers
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.errors import (
    CheckpointError,
    ExperimentError,
    LhucError,
    ModelMismatchError,
    OutputError,
    SpeakerError,
)
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.cli.main import app
from lhuc_asr.hmm.speaker_transforms import FORMAT
from lhuc_asr.pipeline.export import export
from lhuc_asr.recognizer.model_folder import MODEL_JSON, read_model
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.speaker import check_changes

# Each pass, the passes of its model, and the one that decodes without a speaker.
GAUSSIANS = ["fmllr_sat_si", "fmllr_gmm"]
CHAINS = {
    "twice": (["si", "lhuc", "twice"], "si"),
    "fmllr_gmm": (GAUSSIANS, "fmllr_gmm"),
    "fmllr": ([*GAUSSIANS, "fmllr"], "fmllr"),
    "from_si": (["si", "from_si"], "from_si"),
    "fmllr_lhuc": ([*GAUSSIANS, "fmllr", "fmllr_lhuc"], "fmllr"),
    "fmllr_moments": ([*GAUSSIANS, "fmllr", "fmllr_moments"], "fmllr"),
    "delayed": (["delayed_si", "delayed"], "delayed_si"),
    "smbr": (["smbr_si", "smbr"], "smbr_si"),
    "ivector": (["voices_si", "ivector"], "ivector"),
    "ivector_lhuc": (["voices_si", "ivector", "ivector_lhuc"], "ivector"),
    "ivector_moments": (["voices_si", "ivector", "ivector_moments"], "ivector"),
    "both": ([*GAUSSIANS, "both_fmllr", "both"], "both"),
}
SPEAKER = "2001"
Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def model_of(ladder: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The model that adapts like a pass, in a folder elsewhere."""
    elsewhere = tmp_path_factory.mktemp("models")

    def folder_of(name: str) -> Path:
        if not (elsewhere / name).exists():
            export(ladder, elsewhere / name, name)
        return elsewhere / name

    return folder_of


@pytest.fixture(scope="module")
def stacked(model_of: Models) -> Recognizer:
    return load(model_of("fmllr_lhuc"))


def words_of(recognizer: Recognizer, *arguments: object) -> dict[str, str]:
    return {each.recording: each.text for each in recognizer.transcribe(*arguments)}  # type: ignore[arg-type]


def decoded(folder: Path, name: str) -> dict[str, str]:
    said = {u.id for u in read_manifest(folder / "corpus" / "test.jsonl") if u.speaker == SPEAKER}
    rows = read_json_lines(folder / "decode" / "test" / name / "hypotheses.jsonl")
    return {row["utterance"]: row["words"] for row in rows if row["utterance"] in said}


@pytest.mark.parametrize("name", CHAINS)
def test_a_model_has_the_passes_that_it_needs(name: str, model_of: Models) -> None:
    description, _ = read_model(model_of(name))
    chain, without_speaker = CHAINS[name]
    assert [each.name for each in description.passes] == chain
    assert (description.with_speaker.name, description.without_speaker) == (name, without_speaker)


@pytest.mark.parametrize("name", CHAINS)
def test_the_words_and_parameters_are_those_of_the_recipe(
    name: str, ladder: Path, model_of: Models, audio: Path, tmp_path: Path
) -> None:
    """There the speaker adapted together with another, and the features were normalised in a store."""
    recognizer, file = load(model_of(name)), tmp_path / "alice.safetensors"
    recognizer.adapt(audio, SPEAKER).save(file)
    expected = load_file(ladder / "speakers" / name / "test" / f"{SPEAKER}.safetensors")
    tensors = load_file(file)
    assert tensors.keys() == expected.keys() | {"cmvn.mean", "cmvn.deviation"}
    for key, value in expected.items():
        torch.testing.assert_close(tensors[key], value, rtol=0, atol=0 if "transform" in key else 1e-6)
    words = decoded(ladder, name)
    assert words_of(recognizer, audio, file) == words
    # With the file, a recording does not depend on the others.
    alone = {path.stem: words_of(recognizer, path, file)[path.stem] for path in audio.iterdir()}
    assert alone == words
    # The experiment's own file has no statistics of features, but the same words.
    own = ladder / "speakers" / name / "test" / f"{SPEAKER}.safetensors"
    assert words_of(recognizer, audio, own) == words


def test_a_file_without_its_transform_is_refused(
    ladder: Path, stacked: Recognizer, model_of: Models, audio: Path, tmp_path: Path
) -> None:
    """The network does not know features that no transform has moved, so that its words would be wrong."""
    folder, file = ladder / "speakers" / "fmllr_lhuc" / "test", tmp_path / "x.safetensors"
    tensors, description = load_tensors(folder / f"{SPEAKER}.safetensors")
    transform = tensors.pop("below.transform")
    save_tensors(file, tensors, {**description, "extras": []})
    for path in (file, folder / "speaker-independent.safetensors"):
        with pytest.raises(
            ModelMismatchError,
            match=f"{path.name}: has amplitudes only; this model also needs the speaker's transform; adapt the speaker",
        ):
            stacked.transcribe(audio, path)
    save_tensors(file, {"transform": transform, "below.transform": transform.clone()}, {
        "format": FORMAT, "speaker": SPEAKER, "model": description["model"], "extras": ["below.transform"]
    })  # fmt: skip
    with pytest.raises(ModelMismatchError, match=r"x\.safetensors: changes the features twice, and this model"):
        load(model_of("fmllr")).transcribe(audio, file)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("delayed", "pdfs, 2 frames of context before and 3 after"),  # offsets -1 to 1, then -1 and 2
        ("ivector", "pdfs, 2 frames of context on each side, a speaker vector of 2 values"),
    ],
)
def test_info_tells_what_a_network_takes(name: str, shown: str, model_of: Models) -> None:
    result = CliRunner().invoke(app, ["info", str(model_of(name))])
    (line,) = [each for each in result.output.splitlines() if each.startswith("network ")]
    assert line.endswith(shown)


def test_a_file_without_its_vector_is_refused(ladder: Path, model_of: Models, audio: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensors, description = load_tensors(ladder / "speakers" / "ivector_lhuc" / "test" / f"{SPEAKER}.safetensors")
    del tensors["below.vector"]
    save_tensors(file, tensors, {**description, "extras": []})
    for name, also in (("ivector_lhuc", "also needs"), ("ivector", "needs")):
        with pytest.raises(
            ModelMismatchError,
            match=rf"x\.safetensors: has amplitudes only; this model {also} the speaker's i-vector; adapt the speaker",
        ):
            load(model_of(name)).transcribe(audio, file)


def test_a_vector_is_not_a_transform(model_of: Models) -> None:
    """Both change features; a network is given the one that its model's pass gives."""
    model = load(model_of("ivector_lhuc"))._model
    vector = VectorSpeakers(model.network, {"me": torch.zeros(model.network.vector_dimension)})
    amplitudes = LhucConfig().make(None).estimate(model.network, {}, seed=1)
    check_changes(Stacked(vector, amplitudes), model.description, "me")
    passes = tuple(
        each.model_copy(update={"method": FdlrConfig()}) if each.name == "ivector" else each
        for each in model.description.passes
    )
    by_fdlr = model.description.model_copy(update={"passes": passes})
    with pytest.raises(
        ModelMismatchError, match=r"^me: has a vector only; this model also needs the speaker's transform; adapt"
    ):
        check_changes(Stacked(vector, amplitudes), by_fdlr, "me")


def test_a_file_with_more_in_it_is_not_replaced(ladder: Path, model_of: Models, tmp_path: Path) -> None:
    file = Path(shutil.copy(ladder / "speakers" / "fmllr_lhuc" / "test" / f"{SPEAKER}.safetensors", tmp_path))
    load(model_of("fmllr_lhuc")).check_output(file, SPEAKER)
    load(model_of("fmllr_moments")).check_output(file, SPEAKER)
    transforms = load(model_of("fmllr"))
    problem = f"is the file of the speaker '{SPEAKER}', with amplitudes on transform in place of transform; choose"
    with pytest.raises(OutputError, match=problem):
        transforms.check_output(file, SPEAKER)
    transforms.check_output(file, SPEAKER, overwrite=True)


@pytest.mark.parametrize("name", ["", "../../evil", "a\x1b[2Jb", "x" * 300, 3])
def test_a_name_that_cannot_be_a_speakers_is_refused_in_a_transforms_file(
    name: object, ladder: Path, model_of: Models, audio: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.safetensors"
    tensors, description = load_tensors(ladder / "speakers" / "fmllr" / "test" / f"{SPEAKER}.safetensors")
    save_tensors(file, tensors, {**description, "speaker": name})
    with pytest.raises((SpeakerError, CheckpointError), match=r"x\.safetensors: "):
        load(model_of("fmllr")).transcribe(audio, file)


def test_the_passes_differ(ladder: Path) -> None:
    """Otherwise the tests here would compare one thing with itself."""
    for chain in (
        ["si", "lhuc"],
        ["fmllr_sat_si", "fmllr_gmm", "fmllr", "fmllr_lhuc"],
        ["fmllr_si", "fmllr", "from_si"],
    ):
        assert len({tuple(sorted(decoded(ladder, name).items())) for name in chain}) == len(chain)


@pytest.mark.parametrize("name", CHAINS)
def test_without_a_speaker_features_adapt_to_the_recordings(
    name: str, ladder: Path, model_of: Models, audio: Path
) -> None:
    assert words_of(load(model_of(name)), audio) == decoded(ladder, CHAINS[name][1])


def test_without_a_speaker_all_recordings_count(stacked: Recognizer, audio: Path) -> None:
    """Also those that need no transcript."""
    whole = stacked.transcribe(audio)
    assert {each.speaker for each in whole} == {""}
    assert list(stacked.transcripts(audio, done={whole[0].recording})) == whole[1:]


def test_a_corpus_adapts_as_the_recipe_does(ladder: Path, stacked: Recognizer, tmp_path: Path) -> None:
    for utterance in read_manifest(ladder / "corpus" / "test.jsonl"):
        (tmp_path / "people" / utterance.speaker).mkdir(parents=True, exist_ok=True)
        shutil.copy(utterance.audio, tmp_path / "people" / utterance.speaker)
    adapted = {each.speaker.name: each for each in stacked.adapt_corpus(tmp_path / "people")}
    for file in (ladder / "speakers" / "fmllr_lhuc" / "test").glob("2*.safetensors"):
        each = adapted[file.stem]
        assert each.moved is not None
        assert each.moved > 0.001
        each.speaker.save(tmp_path / "x.safetensors")
        tensors = load_file(tmp_path / "x.safetensors")
        for key, value in load_file(file).items():
            assert torch.equal(tensors[key], value)
    assert len(adapted) == 2


def test_too_little_speech_leaves_features_as_they_are(
    model_of: Models, audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples, rate = soundfile.read(min(audio.iterdir()))
    soundfile.write(tmp_path / "short.wav", samples[: int(0.9 * rate)], rate)
    recognizer = load(model_of("fmllr"))
    recognizer.adapt(tmp_path / "short.wav", "bob").save(tmp_path / "bob.safetensors")
    assert "fewer than 100 frames of speech and keep their features as they are: bob (" in caplog.text
    transform = load_file(tmp_path / "bob.safetensors")["transform"]
    assert torch.equal(transform, torch.eye(16, 17, dtype=torch.float64))
    caplog.clear()
    (transcript,) = recognizer.transcribe(tmp_path / "short.wav")
    assert "fewer than 100 frames of speech and keep their features as they are: unknown (" in caplog.text
    assert transcript.text == words_of(recognizer, tmp_path / "short.wav", tmp_path / "bob.safetensors")["short"]


def test_silence_has_no_words(stacked: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", torch.zeros(16000).numpy(), 16000)
    assert words_of(stacked, tmp_path / "silence.wav") == {"silence": ""}


def test_known_words_are_aligned_by_each_pass(
    stacked: Recognizer, audio: Path, known: dict[str, tuple[str, ...]], tmp_path: Path, monkeypatch
) -> None:
    """Nothing is searched; a recording that does not fit is told once, though three passes align it."""
    searched = stacked.adapt(audio, SPEAKER)
    for search in ("search_all", "lattices_all"):
        monkeypatch.setattr(type(stacked._model.pool), search, lambda *_: pytest.fail("searched"))
    bad: list[LhucError] = []
    wrong = known | {min(known): ("NOWORD",)}
    (each,) = stacked.adapt_corpus(_one(audio, tmp_path), wrong, on_bad=bad.append)
    assert len(bad) == 1
    assert "NOWORD" in str(bad[0])
    assert each.words == sum(len(words) for name, words in known.items() if name != min(known))
    searched.save(tmp_path / "searched.safetensors")
    each.speaker.save(tmp_path / "known.safetensors")
    one, other = (load_file(tmp_path / f"{which}.safetensors") for which in ("searched", "known"))
    assert (one["below.transform"] - other["below.transform"]).abs().max() > 1e-3


def _one(audio: Path, folder: Path) -> Path:
    """A corpus of one speaker."""
    shutil.copytree(audio, folder / "corpus" / SPEAKER)
    return folder / "corpus"


def test_alignment_without_a_speaker_is_that_of_a_speaker_of_the_same_words(
    model_of: Models, audio: Path, known: dict[str, tuple[str, ...]]
) -> None:
    recognizer = load(model_of("fmllr"))
    person = recognizer.adapt(audio, "unknown", known)
    aligned = list(recognizer.align(audio, known))
    expected = list(recognizer.align(audio, known, person))
    assert [replace(each, speaker="unknown") for each in aligned] == expected
    assert {each.recording: tuple(word.word for word in each.words) for each in aligned} == known


def test_a_speaker_belongs_to_the_model(
    model_of: Models, stacked: Recognizer, audio: Path, tmp_path: Path, said: list[Utterance]
) -> None:
    """To the network, however it was adapted; not to the Gaussians that its features come from."""
    load(model_of("fmllr")).adapt(audio, SPEAKER).save(tmp_path / "network.safetensors")
    assert words_of(stacked, audio, tmp_path / "network.safetensors").keys() == {u.id for u in said}
    load(model_of("fmllr_gmm")).adapt(audio, SPEAKER).save(tmp_path / "gaussians.safetensors")
    with pytest.raises(ModelMismatchError):
        stacked.transcribe(audio, tmp_path / "gaussians.safetensors")


def test_info_names_the_passes(model_of: Models) -> None:
    done = CliRunner().invoke(app, ["info", str(model_of("fmllr_lhuc"))])
    assert done.exit_code == 0
    shown = done.stdout
    for words in (
        "Gaussian mixtures, 39 mfcc at 16000 Hz in LDA space, by fmllr on best_path targets of fmllr_sat_si",
        "network fmllr, 39 mfcc at 16000 Hz in LDA space, by lhuc on top of fmllr, on best_path targets of",
        "as in pass fmllr_lhuc",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["passes"].reverse(), "needs 'fmllr', which does not come before it"),
        (lambda tree: tree["passes"].append(tree["passes"][0]), "two are named 'fmllr_sat_si'"),
        (lambda tree: tree["passes"][2:] and tree["passes"].__delitem__(slice(1, None)), "does not adapt"),
        (lambda tree: tree.update(without_speaker="nobody"), "'nobody' is not one of the passes"),
        (lambda tree: tree["sha256"].pop("space.safetensors"), "space.safetensors: not one of the files"),
        (lambda tree: tree["passes"][2].update(network="../am"), "network: String should match pattern"),
        (lambda tree: tree["passes"][2].update(network="si"), "networks/si.safetensors: not one of the files"),
        (lambda tree: tree["passes"][2].update(targets=None), "has a method, targets, and a source of these, or none"),
        (lambda tree: tree["passes"][3]["method"].update(on="fmllr_sat_si"), "which does not transform features"),
    ],
)
def test_passes_that_do_not_fit_are_refused(
    model_of: Models, tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    model = Path(shutil.copytree(model_of("fmllr_lhuc"), tmp_path / "model"))
    tree = json.loads((model / MODEL_JSON).read_text())
    change(tree)
    (model / MODEL_JSON).write_text(json.dumps(tree))
    with pytest.raises(ExperimentError, match=r"model\.json: ") as caught:
        read_model(model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
