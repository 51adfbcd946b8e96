"""Threads on one recognizer get what they would get one after the other, whoever adapts beside them.

Every round starts at a barrier, so that the threads are in the same work at the same time; the switch interval is
short, so that they change places often.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lhuc_asr.adapt.lhuc import InnerLhucConfig, LearnedLhucConfig, LhucConfig
from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.predicted import PredictedConfig
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.recognizer.model_folder import PREPARED_FOLDER, ModelFiles, read_model
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.speaker import Speaker

ROUNDS = 6


@pytest.fixture(autouse=True)
def short_switches() -> Iterator[None]:
    """Threads change places a hundred times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


def together(works: Sequence[Callable[[], Any]], rounds: int = ROUNDS) -> list[list[Any]]:
    """What each work returned in each round, a thread for each, all rounds begun together."""
    barrier = threading.Barrier(len(works))

    def repeated(work: Callable[[], Any]) -> list[Any]:
        results = []
        for _ in range(rounds):
            barrier.wait(timeout=60)
            results.append(work())
        return results

    with ThreadPoolExecutor(len(works)) as threads:
        return [each.result() for each in [threads.submit(repeated, work) for work in works]]


def bits(speaker: Speaker, folder: Path) -> dict[str, bytes]:
    """The speaker's tensors, from their file."""
    path = folder / f"{threading.get_ident()}.safetensors"
    speaker.save(path)
    state = SpeakerState.load(path)
    return {name: tensor.numpy().tobytes() for name, tensor in {**state.r, **state.extras}.items()}


def test_speakers_do_not_meet_in_the_network(exported: Path, heard: dict[str, list[Path]]) -> None:
    """Two speakers and nobody, each on the same recordings: only the amplitudes differ."""
    recognizer = load(exported)
    (first, own), (second, others) = list(heard.items())[:2]
    speakers = [recognizer.adapt(own, first), recognizer.adapt(others, second), None]
    expected = [recognizer.transcribe(own, speaker) for speaker in speakers]
    # Confidences are floats: that all differ shows that the amplitudes reach them.
    assert len({str(transcripts) for transcripts in expected}) == len(speakers)
    fresh = load(exported)  # that no thread has warmed up
    works = [lambda speaker=speaker: fresh.transcribe(own, speaker) for speaker in speakers]
    for results, transcripts in zip(together(works), expected, strict=True):
        assert results == [transcripts] * ROUNDS


def test_two_threads_may_share_a_speaker_and_their_file(
    exported: Path, heard: dict[str, list[Path]], tmp_path: Path
) -> None:
    recognizer, recordings = load(exported), next(iter(heard.values()))
    speaker = recognizer.adapt(recordings)
    speaker.save(tmp_path / "speaker.safetensors")
    expected = recognizer.transcribe(recordings, speaker)
    fresh = recognizer.load_speaker(tmp_path / "speaker.safetensors")
    given = (speaker, fresh, fresh, tmp_path / "speaker.safetensors")
    works = [lambda each=each: recognizer.transcribe(recordings, each) for each in given]
    assert together(works) == [[expected] * ROUNDS] * len(given)


METHODS = {
    "lhuc": LhucConfig(optimizer="adam", learning_rate=0.1, sweeps=2),
    "moments": MomentsConfig(descent=InnerLhucConfig(sweeps=1)),
    "predicted": PredictedConfig(dimensions=2, steps=20, joint_sweeps=0, lhuc=LearnedLhucConfig(sweeps=1)),
}


def with_method(finished: Path, config: MethodConfig, folder: Path) -> Recognizer:
    """The exported model, adapting by another method, which learned from the training speakers where it learns."""
    description, files = read_model(finished)
    *earlier, last = description.passes
    method = config.make(folder)
    if hasattr(method, "prepare"):
        _, experiment = read_experiment(finished)
        method.prepare(experiment.network("si"), training_data(finished), seed=1)
        learned = {f"{PREPARED_FOLDER}/{last.name}/{path.name}": path for path in folder.iterdir()}
        files = ModelFiles({**files.by_name, **learned})
    passes = (*earlier, last.model_copy(update={"method": config}))
    return Recognizer(description.model_copy(update={"passes": passes}), files)


def training_data(finished: Path) -> dict[str, Any]:
    from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
    from lhuc_asr.adapt.targets import alignment_targets
    from lhuc_asr.adapt.two_pass import TwoPass

    _, experiment = read_experiment(finished)
    features, aligned = experiment.features("train"), experiment.aligned(experiment.alignment, "train")
    loop = TwoPass(experiment.network("si"), features, experiment.topology.silence_pdfs)
    targets = alignment_targets({u.id: aligned[u.id] for u in features.utterances}, loop.silence_pdfs, 0.01)
    sets = adaptation_sets(features, {u.id: "" for u in features.utterances}, DataConfig(), 1)
    return {each.name: loop.speaker_data(targets, each.estimated_on) for each in sets}


@pytest.mark.parametrize("kind", METHODS)
def test_one_thread_adapts_while_others_transcribe(
    finished: Path, heard: dict[str, list[Path]], tmp_path: Path, kind: str
) -> None:
    recognizer = with_method(finished, METHODS[kind], tmp_path / "prepared")
    (first, own), (second, others) = list(heard.items())[:2]
    speaker, other = recognizer.adapt(own, first), recognizer.adapt(others, second)
    expected = [
        bits(speaker, tmp_path),
        bits(other, tmp_path),
        recognizer.transcribe(own, speaker),
        recognizer.transcribe(own),
    ]
    assert expected[0] != expected[1]
    works = [
        lambda: bits(recognizer.adapt(own, first), tmp_path),
        lambda: bits(recognizer.adapt(others, second), tmp_path),
        lambda: recognizer.transcribe(own, speaker),
        lambda: recognizer.transcribe(own),
    ]
    assert together(works, rounds=4) == [[result] * 4 for result in expected]


def test_the_network_is_as_it_was_after_all_of_it(exported: Path, heard: dict[str, list[Path]]) -> None:
    """No hook, no gradient, in evaluation mode, each weight and buffer bit for bit."""
    recognizer, recordings = load(exported), next(iter(heard.values()))
    network = recognizer._model.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    works = [lambda: recognizer.adapt(recordings), lambda: recognizer.transcribe(recordings)]
    together([lambda: [work() for work in works]] * 2, rounds=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())
    assert not any(module.training or module._forward_hooks for module in network.modules())
