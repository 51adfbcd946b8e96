"""Transforms of speakers: applied to their own utterances, composed, and files that say whose they are."""

import pytest
import torch
from mixture_world import affine

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError, TransformError
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.hmm.speaker_transforms import FORMAT, SpeakerTransforms

DIMENSION = 4


def _transforms(*names: str, seed: int = 0) -> SpeakerTransforms:
    return SpeakerTransforms(names, torch.stack([affine(seed + n, DIMENSION, 0.5) for n in range(len(names))]))


def test_every_utterance_meets_its_own_speakers_transform():
    transforms = _transforms("a", "b")
    features = torch.randn(9, DIMENSION, generator=torch.Generator().manual_seed(0))
    moved = transforms.apply(features, [4, 0, 2, 3], ["b", "a", "a", "b"])
    for frame, speaker in enumerate("bbbbaabbb"):
        matrix = transforms.of(speaker)
        expected = matrix @ torch.cat([features[frame].double(), torch.ones(1)])
        torch.testing.assert_close(moved[frame].double(), expected, atol=1e-5, rtol=1e-5)
    assert moved.dtype == torch.float32


def test_the_identity_changes_no_bit():
    features = torch.randn(50, DIMENSION)
    assert torch.equal(SpeakerTransforms.identity(["a"], DIMENSION).apply(features, [50], ["a"]), features)


def test_composed_transforms_are_one_after_the_other():
    first, second = _transforms("a", "b"), _transforms("b", "a", seed=5)
    features = torch.randn(7, DIMENSION)
    utterances = [3, 4], ["a", "b"]
    both = second.after(first)
    assert both.names == ("b", "a")
    expected = second.apply(first.apply(features, *utterances), *utterances)
    torch.testing.assert_close(both.apply(features, *utterances), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(SpeakerError, match="'b' has no transform of the features"):
        second.after(_transforms("a"))


def test_unknown_speakers_and_other_features_are_told():
    transforms = _transforms("a")
    with pytest.raises(SpeakerError, match=r"'c' has no transform of the features \(speakers that have one: 1\); est"):
        transforms.apply(torch.zeros(2, DIMENSION), [2], ["c"])
    with pytest.raises(TransformError, match="transforms of 4 features cannot be applied to 5"):
        transforms.apply(torch.zeros(2, 5), [2], ["a"])


def test_a_saved_speaker_is_the_same_bit_for_bit(tmp_path):
    transforms = _transforms("a", "b")
    transforms.save(tmp_path / "b.safetensors", "b", "model 7")
    loaded = SpeakerTransforms.load(tmp_path / "b.safetensors", DIMENSION, "model 7".__eq__)
    assert loaded.names == ("b",)
    assert torch.equal(loaded.of("b"), transforms.of("b"))


def test_files_that_do_not_fit_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    _transforms("a").save(path, "a", "model 7")
    with pytest.raises(ModelMismatchError, match="of 'a' was estimated with another model, model 7; estimate it again"):
        SpeakerTransforms.load(path, DIMENSION, "model 8".__eq__)
    with pytest.raises(CheckpointError, match=r"transform has shape \[4, 5\], expected \[6, 7\]"):
        SpeakerTransforms.load(path, 6, "model 7".__eq__)
    description = {"format": FORMAT, "speaker": "a", "model": "model 7"}
    own, moved = _transforms("a").of("a"), torch.eye(DIMENSION, DIMENSION + 1, dtype=torch.float64)
    moved[0, -1] = 1e9
    for damaged in (0 * own, 1e-30 * own, 1e6 * own, 1e300 * own, moved):
        save_tensors(path, {"transform": damaged}, description)
        with pytest.raises(CheckpointError, match="its transform is singular or damaged"):
            SpeakerTransforms.load(path, DIMENSION, "model 7".__eq__)
    save_tensors(path, {"transform": torch.zeros(DIMENSION, DIMENSION + 1)}, description | {"speaker": 3})
    with pytest.raises(CheckpointError, match="lacks the speaker or the model"):
        SpeakerTransforms.load(path, DIMENSION, "model 7".__eq__)
    save_tensors(path, {"transform": torch.zeros(1)}, {"format": "another"})
    with pytest.raises(CheckpointError, match="expected a file of a speaker's transform of format"):
        SpeakerTransforms.load(path, DIMENSION, "model 7".__eq__)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file of a speaker's transform"):
        SpeakerTransforms.load(path, DIMENSION, "model 7".__eq__)
