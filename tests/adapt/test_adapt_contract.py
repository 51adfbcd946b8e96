"""The contract of adaptation methods and of what they estimate, for every method whatever it changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_methods import (
    OPTIONS,
    TARGETS_BELOW,
    WITHOUT_TARGETS,
    above,
    add_test_methods,
    gaussians,
    prepared_method,
)
from scaled_speakers import PDFS, UNITS, VECTOR, WIDTH, frames_of, small_dnn

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, PreparedMethod
from lhuc_asr.adapt.methods import METHODS, load_speakers
from lhuc_asr.adapt.speaker_data import AlignmentModel, SpeakerData
from lhuc_asr.adapt.targets import FrameTargets, no_targets
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.lhuc.identity import model_hash
from lhuc_asr.nnet.dnn import Dnn
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.recognizer.speaker_files import delete, files_of_speakers, merge, speaker_file

# Where the sums of a mini-batch may be rounded otherwise: speakers together against each alone.
CLOSE = {"rtol": 0, "atol": 1e-5}
# A scaled network rounds otherwise than the network itself.
ROUNDED = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    add_test_methods(monkeypatch)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> AlignmentModel:
    return gaussians(small_dnn(), tmp_path_factory.mktemp("gaussians"))


@pytest.fixture(params=OPTIONS)
def name(request) -> str:
    return request.param


@pytest.fixture
def small(name: str) -> Dnn:
    return small_dnn(activation="relu" if name == "prelu" else "sigmoid", vectors="ivector" in name)


@pytest.fixture
def method(name: str, small: Dnn, tmp_path: Path, mixtures: AlignmentModel) -> AdaptationMethod:
    return prepared_method(name, small, tmp_path / "prepared", mixtures)


@pytest.fixture
def people(small: Dnn) -> dict[str, SpeakerData]:
    """Three speakers with units scaled in ways of their own."""
    generator = torch.Generator().manual_seed(11)
    scales = {name: 0.4 * torch.randn(2, UNITS, generator=generator) for name in ("ann", "bob", "cat")}
    return {name: frames_of(small, 20 + n, 90 + 30 * n, r) for n, (name, r) in enumerate(scales.items())}


def utterance(seed: int, frames: int = 25) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, WIDTH)).astype(np.float32)


def empty(lengths: tuple[int, ...] = ()) -> SpeakerData:
    return SpeakerData(np.zeros((0, WIDTH), np.float32), lengths, no_targets(0))


def without_targets(frames: SpeakerData) -> SpeakerData:
    """The data of a speaker in whose recordings the first pass found nothing."""
    return SpeakerData(frames.features, frames.lengths, no_targets(len(frames.features)))


def assert_unadapted(adapted: AdaptedSpeakers, name: str, model: Dnn) -> None:
    """A speaker gets the network's own scores; amplitudes are 1 exactly."""
    scores = adapted.log_likelihoods(name, [utterance(1)])
    np.testing.assert_allclose(scores, score_utterance(model, utterance(1)), **ROUNDED)
    if isinstance(adapted, Amplitudes):
        for site in adapted.bank.sites:
            assert torch.equal(adapted.bank.xi(site.name, adapted.bank.rows_of([name]))[0], torch.ones(site.width))


def learns(name: str) -> bool:
    return name != "none"


def test_the_contract_covers_every_method():
    assert set(METHODS) == {str(options.get("kind", name)) for name, options in OPTIONS.items()}


# What a method estimates


def test_the_same_speakers_unadapted_have_the_networks_own_scores(small, method, people, tmp_path):
    neutral = method.estimate(small, people, seed=1).unadapted()
    assert neutral.speakers == tuple(people)
    for person in people:
        assert_unadapted(neutral, person, small)
    neutral.save_speaker("ann", tmp_path / "ann.safetensors", {})
    assert_unadapted(load_speakers(small, tmp_path / "ann.safetensors"), "ann", small)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_bit_for_bit(small, method, name, people, training):
    small.train(training)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    # Warps are learned from recordings, without the network.
    if isinstance(method, PreparedMethod) and name != "vtln":
        method.prepare(small, {f"t-{name}": data for name, data in people.items()}, seed=0)
    method.estimate(small, people, seed=1)
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in small.parameters())
    assert all(module.training is training for module in small.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


def test_a_network_in_training_mode_is_adapted_without_its_dropout(small, method, people):
    expected = method.estimate(small, people, seed=1)
    in_training = method.estimate(small.train(), people, seed=1)
    small.eval()
    for person in people:
        scores = in_training.log_likelihoods(person, [utterance(1)])
        np.testing.assert_array_equal(scores, expected.log_likelihoods(person, [utterance(1)]))


def test_speakers_together_are_each_alone_and_a_seed_gives_the_same_bits(small, method, people, name):
    together, again = (method.estimate(small, people, seed=1) for _ in range(2))
    assert set(together.speakers) == set(people)
    for person, data in people.items():
        scores = together.log_likelihoods(person, [utterance(1)])
        alone = method.estimate(small, {person: data}, seed=1)
        np.testing.assert_allclose(alone.log_likelihoods(person, [utterance(1)]), scores, **CLOSE)
        np.testing.assert_array_equal(again.log_likelihoods(person, [utterance(1)]), scores)
        changed = np.abs(scores - score_utterance(small, utterance(1))).max()
        assert (changed > 0.05) == learns(name)


def test_nobody_to_adapt_to_is_not_an_error(small, method):
    assert method.estimate(small, {}, seed=1).speakers == ()


@pytest.mark.parametrize("lengths", [(), (0,)])
def test_a_speaker_without_data_stays_unadapted(small, method, lengths):
    assert_unadapted(method.estimate(small, {"nothing": empty(lengths)}, seed=1), "nothing", small)


def test_a_speaker_without_targets_stays_unadapted_if_the_method_looks_at_targets(small, method, people, name):
    adapted = method.estimate(small, {"mute": without_targets(people["ann"]), "bob": people["bob"]}, seed=1)
    if name in WITHOUT_TARGETS:
        scores = adapted.log_likelihoods("mute", [utterance(1)])
        told = method.estimate(small, {"ann": people["ann"], "bob": people["bob"]}, seed=1)
        np.testing.assert_array_equal(scores, told.log_likelihoods("ann", [utterance(1)]))
    elif name in TARGETS_BELOW:
        # The vector below looks at targets, the method above does not.
        vectors = {who: adapted.below.transformed(who, utterance(1))[:, -VECTOR:] for who in ("mute", "bob")}
        assert not vectors["mute"].any()
        assert vectors["bob"].any()
    else:
        assert_unadapted(adapted, "mute", small)


def test_awkward_speakers_harm_nobody(small, method, people):
    awkward = {
        "nothing": empty(),
        "one frame": frames_of(small, 22, 1),
        "first pass failed": without_targets(frames_of(small, 23, 40)),
        "only silence": frames_of(small, 24, 40, weight=0.01),
        "loud": frames_of(small, 25, 40, scale=1e4),
    }
    together = method.estimate(small, {**awkward, **people}, seed=1)
    for person in awkward:
        assert np.isfinite(together.log_likelihoods(person, [utterance(1)])).all(), person
    well = method.estimate(small, people, seed=1)
    for person in people:
        np.testing.assert_allclose(*(a.log_likelihoods(person, [utterance(1)]) for a in (together, well)), **CLOSE)


def test_features_that_are_not_finite_leave_a_speaker_unadapted_with_a_warning(small, method, people, name, caplog):
    broken = frames_of(small, 26, 40)
    broken.features[7] = np.nan
    adapted = method.estimate(small, {"broken": broken, "ann": people["ann"]}, seed=1)
    assert_unadapted(adapted, "broken", small)
    assert np.isfinite(adapted.log_likelihoods("ann", [utterance(1)])).all()
    assert ("1 of 2 speakers stay unadapted" in caplog.text and "broken" in caplog.text) == learns(name)


def test_targets_of_another_tree_are_refused(small, method, people, name):
    frames = people["ann"]
    pdf = frames.targets.pdf.copy()
    pdf[4] = PDFS
    other = replace(frames, targets=FrameTargets(pdf, frames.targets.posterior, frames.targets.weight))
    if name in WITHOUT_TARGETS:
        told, expected = (method.estimate(small, {"ann": data}, seed=1) for data in (other, frames))
        np.testing.assert_array_equal(*(a.log_likelihoods("ann", [utterance(1)]) for a in (told, expected)))
        return
    with pytest.raises(AlignmentError, match=f"'ann'.*{PDFS}"):
        method.estimate(small, {"ann": other}, seed=1)


# The adapted speakers


@pytest.fixture
def adapted(small, method, people) -> AdaptedSpeakers:
    return method.estimate(small, people, seed=1)


def test_a_mixed_batch_is_each_utterance_by_itself(adapted):
    names, lengths = ["cat", "ann", "cat", "bob", "bob"], (7, 1, 30, 2, 11)
    batch = [utterance(n, frames) for n, frames in enumerate(lengths)]
    one_by_one = [adapted.log_likelihoods(name, [each]) for name, each in zip(names, batch, strict=True)]
    mixed = adapted.log_likelihoods(names, batch)
    assert mixed.shape == (sum(lengths), PDFS)
    assert mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed, np.concatenate(one_by_one))
    of_one = [adapted.log_likelihoods("ann", [each]) for each in batch]
    np.testing.assert_array_equal(adapted.log_likelihoods("ann", batch), np.concatenate(of_one))
    assert adapted.log_likelihoods([], []).shape == (0, PDFS)


def test_two_threads_with_two_speakers_do_not_meet(adapted):
    batch = [utterance(n, 60) for n in range(30)]
    turns = {name: [adapted.log_likelihoods(name, [each]) for each in batch] for name in ("ann", "bob")}
    with ThreadPoolExecutor(2) as threads:
        running = {
            name: threads.submit(lambda name=name: [adapted.log_likelihoods(name, [each]) for each in batch])
            for name in turns
        }
    for name, expected in turns.items():
        np.testing.assert_array_equal(running[name].result(), expected)


def test_saved_and_loaded_speakers_give_the_same_bits(small, adapted, tmp_path):
    folder = tmp_path / "speakers"
    folder.mkdir()
    adapted.save(folder)
    loaded = load_speakers(small, folder)
    assert type(loaded) is type(adapted)
    assert loaded.speakers == adapted.speakers
    adapted.save_speaker("bob", tmp_path / "bob.safetensors", {"cmvn.mean": torch.arange(3.0)})
    bob = load_speakers(small, tmp_path / "bob.safetensors")
    assert bob.speakers == ("bob",)
    assert load_tensors(tmp_path / "bob.safetensors")[0]["cmvn.mean"].tolist() == [0, 1, 2]
    for name in adapted.speakers:
        scores = adapted.log_likelihoods(name, [utterance(1)])
        assert (folder / f"{name}.safetensors").is_file()
        np.testing.assert_array_equal(loaded.log_likelihoods(name, [utterance(1)]), scores)
    np.testing.assert_array_equal(*(a.log_likelihoods("bob", [utterance(1)]) for a in (bob, adapted)))


def test_files_of_every_method_are_found_by_name_listed_merged_and_deleted(adapted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapted.save_speaker("ann", tmp_path / "ann.safetensors", {"cmvn.mean": torch.zeros(3)})
    assert speaker_file("ann") == Path("ann.safetensors")
    assert merge(Path("all"), [Path("ann.safetensors")]) == ["ann"]
    (file,) = files_of_speakers([Path("all")])
    stacked = above(adapted) is not adapted
    assert (file.speaker, file.format) == ("ann", above(adapted).format)
    below = adapted.below.below if stacked else ""
    assert set(file.extras) == ({"cmvn.mean", f"below.{below}"} if stacked else {"cmvn.mean"})
    assert file.holds.endswith(f" on {below}") is stacked
    spreads = file.spreads()
    numbers = load_tensors(tmp_path / "ann.safetensors")[0]
    assert sum(spread.count for spread in spreads) == sum(numbers[n].numel() for n in numbers.keys() - set(file.extras))
    assert all(spread.lowest <= spread.mean <= spread.highest for spread in spreads)
    assert delete(Path("all"), ["ann"]) == [Path("all/ann.safetensors")]


def test_an_unknown_speaker_is_refused(adapted, tmp_path):
    for ask in (
        lambda: adapted.log_likelihoods("eve", [utterance(1)]),
        lambda: adapted.log_likelihoods(["ann", "eve"], [utterance(1), utterance(2)]),
        lambda: adapted.pooled(["eve"], ["ann"]),
        lambda: adapted.pooled(["ann"], ["eve"]),
        lambda: adapted.save_speaker("eve", tmp_path / "eve.safetensors", {}),
    ):
        with pytest.raises(SpeakerError, match="'eve'"):
            ask()
    with pytest.raises(ValueError, match="zip"):
        adapted.log_likelihoods(["ann"], [utterance(1), utterance(2)])


def test_speakers_of_another_network_are_refused(adapted, tmp_path):
    folder = tmp_path / "speakers"
    folder.mkdir()
    adapted.save(folder)
    other = small_dnn()
    with torch.no_grad():
        other.output.bias += 1
    with pytest.raises(ModelMismatchError):
        load_speakers(other, folder)


def test_two_files_of_one_speaker_are_refused(small, adapted, tmp_path):
    for name in ("ann", "copy"):
        adapted.save_speaker("ann", tmp_path / f"{name}.safetensors", {})
    with pytest.raises(SpeakerError, match="'ann'"):
        load_speakers(small, tmp_path)


def test_speakers_belong_to_the_network_in_a_wrapper_too(small, adapted, tmp_path):
    """As any that ``is_model`` takes for the same; a wrapper adds to the names of all tensors."""
    if isinstance(above(adapted), Amplitudes):
        pytest.skip("their sites have the wrapper's names too: see tests/lhuc")
    adapted.save_speaker("ann", tmp_path / "ann.safetensors", {})
    tensors, description = load_tensors(tmp_path / "ann.safetensors")
    wrapped = torch.nn.Sequential(small)
    save_tensors(tmp_path / "ann.safetensors", tensors, {**description, "model": model_hash(wrapped)})
    scores = load_speakers(small, tmp_path).log_likelihoods("ann", [utterance(1)])
    np.testing.assert_array_equal(scores, adapted.log_likelihoods("ann", [utterance(1)]))


def test_damaged_and_foreign_files_are_refused(small, adapted, tmp_path):
    path = tmp_path / "ann.safetensors"
    adapted.save_speaker("ann", path, {})
    tensors, description = load_tensors(path)
    save_tensors(path, tensors, {**description, "format": "tomorrow-1"})
    with pytest.raises(CheckpointError, match=rf"ann.safetensors: format 'tomorrow-1' .*{above(adapted).format}"):
        load_speakers(small, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"ann\.safetensors"):
        load_speakers(small, path)
    with pytest.raises(CheckpointError, match="no speaker's file"):
        load_speakers(small, _bare(tmp_path))


def _bare(folder: Path) -> Path:
    bare = folder / "bare"
    bare.mkdir()
    return bare


def test_pooled_speakers_have_what_the_others_have_and_nothing_of_their_own(small, method, people, adapted):
    adapted = above(adapted)
    twins = above(method.estimate(small, {"ann": people["ann"], "bob": people["bob"], "twin": people["bob"]}, seed=1))
    control = twins.pooled(["ann"], ["bob", "twin"])
    assert control.speakers == ("ann",)
    scores = control.log_likelihoods("ann", [utterance(1)])
    np.testing.assert_allclose(scores, twins.log_likelihoods("bob", [utterance(1)]), **CLOSE)
    other = above(method.estimate(small, {"ann": people["cat"], "bob": people["bob"], "twin": people["bob"]}, seed=1))
    same = other.pooled(["ann"], ["bob", "twin"])
    np.testing.assert_allclose(same.log_likelihoods("ann", [utterance(1)]), scores, **CLOSE)
    both = adapted.pooled(["ann", "bob"], ["cat"])
    assert both.speakers == ("ann", "bob")
    np.testing.assert_array_equal(*(both.log_likelihoods(name, [utterance(1)]) for name in both.speakers))
    np.testing.assert_allclose(
        *(a.log_likelihoods(name, [utterance(1)]) for a, name in ((both, "ann"), (adapted, "cat"))), **ROUNDED
    )
    with pytest.raises(SpeakerError, match="no other speakers to average over"):
        adapted.pooled(people, [])


def test_pooled_speakers_are_saved_and_loaded(small, adapted, tmp_path):
    control = adapted.pooled(["ann"], [name for name in adapted.speakers if name != "ann"])
    folder = tmp_path / "speakers"
    folder.mkdir()
    control.save(folder)
    loaded = load_speakers(small, folder)
    np.testing.assert_array_equal(*(a.log_likelihoods("ann", [utterance(1)]) for a in (control, loaded)))
