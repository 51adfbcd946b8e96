"""The i-vectors of a recipe's network: whose frames they are made of, and what a pass gives the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lhuc_asr.adapt.ivector import space_of
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.hmm.ivector import VoiceSpace
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.voices import read_vectors, read_voices

# Utterances that share a vector, in VoicesConfig.
SHARED = 4


@pytest.fixture
def experiment(ladder: Path) -> AlignedExperiment:
    return read_experiment(ladder)[1]


def speech(experiment: AlignedExperiment, split: str, utterances: list[str]) -> torch.Tensor:
    """The frames of utterances that are aligned with another phone than silence."""
    store, aligned = experiment.features(split), experiment.aligned(experiment.alignment, split)
    silence = set(experiment.topology.silence_pdfs.tolist())
    rows = [
        store[name][[pdf >= 0 and pdf not in silence for pdf in aligned[name].tolist()]]
        for name in utterances
        if len(store[name])
    ]
    return torch.from_numpy(np.concatenate(rows))


@pytest.mark.parametrize("split", [TRAIN, HELDOUT])
def test_some_utterances_of_a_speaker_share_the_vector_of_their_speech(
    split: str, experiment: AlignedExperiment
) -> None:
    store = experiment.features(split)
    space = read_voices(experiment, "voices", store.dimension)
    vectors = read_vectors(experiment, "voices", split, store)
    groups = 0
    for theirs in store.speakers.values():
        shared: dict[bytes, list[str]] = {}
        for utterance in theirs:
            shared.setdefault(vectors[utterance.id].tobytes(), []).append(utterance.id)
        assert sorted(map(len, shared.values()), reverse=True)[:-1] == [SHARED] * (len(shared) - 1)
        assert len(shared) == -(-len(theirs) // SHARED)
        for group in shared.values():
            expected = space.vectors(space.statistics(speech(experiment, split, group)))[0]
            np.testing.assert_allclose(vectors[group[0]], expected.numpy(), rtol=1e-4, atol=1e-5)
        groups += len(shared)
    assert len({vector.tobytes() for vector in vectors.values()}) == groups, "speakers differ"


def test_the_network_has_the_space_in_its_file(experiment: AlignedExperiment) -> None:
    network = experiment.network("voices")
    space = read_voices(experiment, "voices", network.feature_dimension)
    assert network.vector_dimension == space.dimension == 2
    assert torch.equal(space_of(network).loading, space.loading)


def test_a_pass_gives_each_test_speaker_the_vector_of_all_recordings(
    ladder: Path, experiment: AlignedExperiment
) -> None:
    space: VoiceSpace = space_of(experiment.network("voices"))
    store, silence = experiment.features("test"), experiment.topology.silence_pdfs
    for speaker, theirs in store.speakers.items():
        first = np.fromfile(ladder / "decode" / "test" / "voices_si" / "pdfs.ali", np.int32)
        pdfs = np.concatenate([first[each.rows] for each in theirs])
        weights = torch.from_numpy(np.where(np.isin(pdfs, silence), 0.01, 1.0)).float()
        frames = torch.from_numpy(np.concatenate([store[each.id] for each in theirs]))
        expected = space.vectors(space.statistics(frames, weights))[0]
        written = load_file(ladder / "speakers" / "ivector" / "test" / f"{speaker}.safetensors")["vector"]
        torch.testing.assert_close(written, expected, rtol=1e-4, atol=1e-5)
        on_top = load_file(ladder / "speakers" / "ivector_lhuc" / "test" / f"{speaker}.safetensors")
        assert torch.equal(on_top["below.vector"], written)


def test_vectors_of_other_utterances_are_refused(ladder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ladder, tmp_path / "exp"))
    experiment = read_experiment(folder)[1]
    path = folder / "am" / "voices" / "vectors_train.safetensors"
    vectors = load_file(path)["vectors"]
    for damaged in (vectors[1:].contiguous(), torch.full_like(vectors, torch.nan)):
        save_file({"vectors": damaged}, path)
        with pytest.raises(CheckpointError, match=r"vectors_train\.safetensors.*; delete it and run again"):
            read_vectors(experiment, "voices", TRAIN, experiment.features(TRAIN))
