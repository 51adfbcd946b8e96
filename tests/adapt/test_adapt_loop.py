"""The whole two-pass loop, in a recipe and in the recognizer, with methods that change features or inputs.

The control speakers of the synthetic voices speak as the training speakers do. Their features are distorted, and fDLR
must undo it from its own first pass; a speaker code must say how a speaker differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from distortion import distorted
from heard_recordings import HEARD, HearingConfig
from speaker_codes import CodeConfig

import lhuc_asr
from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.methods import METHODS, load_speakers
from lhuc_asr.base.atomic import read_json
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.experiment import Experiment, read_experiment
from lhuc_asr.pipeline.export import export
from lhuc_asr.pipeline.transcripts import reference_pdfs
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.score.wer import score

Run = Callable[..., list[str]]
SPLIT = "control"

# Enough training for a first pass with few errors. Every pass is searched as the first, so that what differs is the
# adaptation alone.
FDLR = "{kind: fdlr, learning_rate: 0.01, sweeps: 40, kl_weight: 0, prior_deviation: 0.05}"
RECIPE = (
    "corpus.voices={training_speakers: 12, test_speakers: 2, control_speakers: 3, training_utterances: 12, "
    "test_utterances: 1, control_utterances: 16}",
    "heldout_speakers=2",
    "dnn={hidden_layers: 2, hidden_units: 64, activation: relu, context: 3}",
    "trainer={schedule: {learning_rate: 0.05, max_epochs: 6}}",
    "monophone={iterations: 8, growing_iterations: 5, gaussians: 200}",
    "passes={"
    f"fdlr: {{method: {FDLR}}}, again: {{method: {FDLR}, targets: {{source: fdlr}}}}, "
    "code: {method: {kind: code, steps: 25, learning_rate: 0.1}}, "
    "hearing: {method: {kind: hearing}}, "
    "none: {method: {kind: none}}}",
)


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    """The tests' own methods in the table, and nothing else changed."""
    with pytest.MonkeyPatch.context() as patch:
        for config in (CodeConfig, HearingConfig):
            patch.setitem(METHODS, config.model_fields["kind"].default, config)
        yield


@pytest.fixture(scope="module")
def undistorted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment's folder, everything as it was recorded."""
    folder = tmp_path_factory.mktemp("undistorted") / "exp"
    HEARD.clear()
    run(folder, *RECIPE)
    return folder


@pytest.fixture(scope="module")
def with_distortion(undistorted: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same networks, the passes over the control speakers made again with distorted features."""
    folder = tmp_path_factory.mktemp("distorted") / "exp"
    shutil.copytree(undistorted, folder)
    shutil.rmtree(folder / "decode" / SPLIT)
    as_stored = Experiment.features

    def features(experiment: Experiment, split: str, kind: str = "") -> FeatureTable:
        table = as_stored(experiment, split, kind)
        return distorted(table) if split == SPLIT else table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "features", features)
        stages = run(folder, *RECIPE)
    assert {stage.partition(" over ")[2] for stage in stages} == {SPLIT}
    return folder


def errors(folder: Path, name: str) -> int:
    return int(read_json(folder / "decode" / SPLIT / name / "wer.json")["errors"])


# A method that changes features


def test_an_affine_distortion_is_undone_by_fdlr(undistorted, with_distortion):
    """With its own words as targets; a second adaptation, on the words of the first, undoes nearly all of it."""
    clean, harmed = errors(undistorted, "si"), errors(with_distortion, "si")
    assert harmed > 1.6 * clean
    assert errors(with_distortion, "fdlr") < 0.65 * harmed
    assert errors(with_distortion, "again") - clean < 0.25 * (harmed - clean)
    assert errors(undistorted, "fdlr") <= clean + 2


def test_without_adaptation_the_distortion_stays(with_distortion):
    assert errors(with_distortion, "none") == errors(with_distortion, "si")


def test_the_recognizer_undoes_the_distortion_too(undistorted, monkeypatch):
    from lhuc_asr.recognizer import adapting, decoding
    from lhuc_asr.recognizer.speech import read_speech

    recognizer, (_, experiment) = lhuc_asr.load(undistorted), read_experiment(undistorted)
    assert isinstance(recognizer.description.with_speaker.method, FdlrConfig)
    clean = _recognizer_errors(recognizer, experiment, adapt=False)

    def read_distorted(*arguments: object, **options: object) -> object:
        speech = read_speech(*arguments, **options)
        return replace(speech, features={kind: distorted(table) for kind, table in speech.features.items()})

    for module in (adapting, decoding):
        monkeypatch.setattr(module, "read_speech", read_distorted)
    harmed = _recognizer_errors(recognizer, experiment, adapt=False)
    assert harmed > 1.6 * clean
    assert _recognizer_errors(recognizer, experiment, adapt=True) < 0.65 * harmed


def _recognizer_errors(recognizer: Recognizer, experiment: Experiment, adapt: bool) -> int:
    """Errors over two of the control speakers, each adapted to on all that they say."""
    names = sorted({utterance.speaker for utterance in experiment.utterances(SPLIT)})[:2]
    utterances = {utterance.id: utterance for utterance in experiment.utterances(SPLIT) if utterance.speaker in names}
    words: dict[str, str] = {}
    for speaker in names:
        audio = [utterance.audio for utterance in utterances.values() if utterance.speaker == speaker]
        person = recognizer.adapt(audio, speaker) if adapt else None
        words |= {each.recording: each.text for each in recognizer.transcribe(audio, person)}
    assert words.keys() == utterances.keys()
    texts, speakers = ({u.id: getattr(u, what) for u in utterances.values()} for what in ("text", "speaker"))
    return score(texts, words, speakers, dict.fromkeys(utterances, "")).errors


# A method that changes inputs


def test_a_speaker_code_lowers_the_cross_entropy(undistorted, tmp_path):
    """Of frames along the references, which it was not estimated on; somebody else's code and the mean help less."""
    _, experiment = read_experiment(undistorted)
    model = experiment.network("si")
    coded = load_speakers(model, experiment.folder.speakers(SPLIT, "code"))
    plain = cross_entropy(experiment, lambda name, features: score_utterance(model, features))
    own = cross_entropy(experiment, lambda name, x: coded.log_likelihoods(name, [x]))
    following = dict(zip(coded.speakers, (*coded.speakers[1:], coded.speakers[0]), strict=True))
    swapped = cross_entropy(experiment, lambda name, x: coded.log_likelihoods(following[name], [x]))
    controls = {name: coded.pooled([name], [other for other in coded.speakers if other != name]) for name in following}
    pooled = cross_entropy(experiment, lambda name, x: controls[name].log_likelihoods(name, [x]))
    assert own < min(plain, swapped, pooled) - 0.01


def test_the_recognizers_speaker_code_lowers_the_cross_entropy_too(undistorted, tmp_path):
    _, experiment = read_experiment(undistorted)
    model = experiment.network("si")
    export(undistorted, tmp_path / "model", "code")
    recognizer = lhuc_asr.load(tmp_path / "model")
    people = {}
    for name in experiment.features(SPLIT).speakers:
        audio = [utterance.audio for utterance in experiment.utterances(SPLIT) if utterance.speaker == name]
        people[name] = recognizer.adapt(audio, name)
    plain = cross_entropy(experiment, lambda name, features: score_utterance(model, features))
    own = cross_entropy(experiment, lambda name, x: people[name].adapted.log_likelihoods(name, [x]))
    assert own < plain - 0.01
    people[name].save(tmp_path / "person.safetensors")
    loaded = recognizer.load_speaker(tmp_path / "person.safetensors")
    assert recognizer.transcribe(audio[:2], loaded) == recognizer.transcribe(audio[:2], people[name])


def cross_entropy(experiment: Experiment, scores: Callable[[str, np.ndarray], np.ndarray]) -> float:
    """Mean cross-entropy of the control speakers' frames, aligned along their references."""
    model, store = experiment.network("si"), experiment.features(SPLIT)
    pdfs, losses = reference_pdfs(experiment, SPLIT, ModelPlace(), model, 1.0), []
    for name, utterances in store.speakers.items():
        for utterance in utterances:
            if utterance.id in pdfs:
                log_posteriors = torch.from_numpy(scores(name, store[utterance.id])) + model.log_prior
                truth = torch.from_numpy(np.array(pdfs[utterance.id])).long()
                losses.append(torch.nn.functional.nll_loss(log_posteriors, truth, reduction="none"))
    return float(torch.cat(losses).mean())


# A method that reads recordings and the alignment model


def test_recordings_and_gaussians_reach_a_method_in_the_recipe(undistorted):
    _, experiment = read_experiment(undistorted)
    for name, utterances in experiment.features(SPLIT).speakers.items():
        _check_heard(name, experiment)
        assert sorted(HEARD[name].lengths) == sorted(utterance.frames for utterance in utterances)


def test_recordings_and_gaussians_reach_a_method_in_the_recognizer(undistorted, tmp_path):
    _, experiment = read_experiment(undistorted)
    export(undistorted, tmp_path / "model", "hearing")
    name = next(iter(experiment.features(SPLIT).speakers))
    audio = [utterance.audio for utterance in experiment.utterances(SPLIT) if utterance.speaker == name]
    lhuc_asr.load(tmp_path / "model").adapt(audio, "eve")
    _check_heard("eve", experiment)
    assert sum(HEARD["eve"].lengths) == sum(HEARD[name].lengths)


def _check_heard(name: str, experiment: Experiment) -> None:
    heard = HEARD[name]
    assert heard.waveform_frames == heard.lengths
    assert heard.waveform_type == np.float32
    trained = DiagonalGmm.load(experiment.folder.gmm("mono"), experiment.topology.pdf_count)
    for gmm in heard.gmms:
        assert torch.equal(gmm.mean, trained.mean)
