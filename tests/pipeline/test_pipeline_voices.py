"""The i-vectors of a recipe's network: whose frames they are made of, and what a pass gives the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lhuc_asr.adapt.ivector import extractor_of
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.moments import MOMENTS_FILE
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.ivector import IvectorExtractor, VoiceStatistics
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.networks import NetworkOptions, frame_source
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.voices import VoicesOptions, _drop, _learn_voices, read_vectors, read_voices

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
    extractor = read_voices(experiment, "voices", store.dimension)
    vectors = read_vectors(experiment, "voices", split, store)
    groups = 0
    for theirs in store.speakers.values():
        shared: dict[bytes, list[str]] = {}
        for utterance in theirs:
            shared.setdefault(vectors[utterance.id].tobytes(), []).append(utterance.id)
        assert sorted(map(len, shared.values()), reverse=True)[:-1] == [SHARED] * (len(shared) - 1)
        assert len(shared) == -(-len(theirs) // SHARED)
        for group in shared.values():
            frames = speech(experiment, split, group)
            expected = extractor.vectors(VoiceStatistics.of(extractor.background, frames))[0]
            np.testing.assert_allclose(vectors[group[0]], expected.numpy(), rtol=1e-4, atol=1e-5)
        groups += len(shared)
    assert len({vector.tobytes() for vector in vectors.values()}) == groups, "speakers differ"


def test_the_network_has_the_space_in_its_file(experiment: AlignedExperiment) -> None:
    network = experiment.network("voices")
    extractor = read_voices(experiment, "voices", network.feature_dimension)
    assert network.vector_dimension == extractor.dimension == 2
    assert torch.equal(extractor_of(network).loading, extractor.loading)


def test_a_pass_gives_each_test_speaker_the_vector_of_all_recordings(
    ladder: Path, experiment: AlignedExperiment
) -> None:
    extractor: IvectorExtractor = extractor_of(experiment.network("voices"))
    store, silence = experiment.features("test"), experiment.topology.silence_pdfs
    for speaker, theirs in store.speakers.items():
        first = np.fromfile(ladder / "decode" / "test" / "voices_si" / "pdfs.ali", np.int32)
        pdfs = np.concatenate([first[each.rows] for each in theirs])
        weights = torch.from_numpy(np.where(np.isin(pdfs, silence), 0.01, 1.0)).float()
        frames = torch.from_numpy(np.concatenate([store[each.id] for each in theirs]))
        expected = extractor.vectors(VoiceStatistics.of(extractor.background, frames, weights))[0]
        written = load_file(ladder / "speakers" / "ivector" / "test" / f"{speaker}.safetensors")["vector"]
        torch.testing.assert_close(written, expected, rtol=1e-4, atol=1e-5)
        on_top = load_file(ladder / "speakers" / "ivector_lhuc" / "test" / f"{speaker}.safetensors")
        assert torch.equal(on_top["below.vector"], written)


def test_a_tenth_of_the_groups_have_the_vector_of_nobody_in_training(experiment: AlignedExperiment) -> None:
    """One of the ten groups of five training speakers with six utterances each; nobody that is held out."""
    for split, dropped in ((TRAIN, 1), (HELDOUT, 0)):
        store = experiment.features(split)
        own, shown = (read_vectors(experiment, "voices", split, store, dropped=each) for each in (False, True))
        groups = {vector.tobytes() for vector in own.values()}
        assert len(groups) == 2 * len(store.speakers)
        changed = [name for name in own if not np.array_equal(own[name], shown[name])]
        assert len({own[name].tobytes() for name in changed}) == dropped
        assert not any(shown[name].any() for name in changed)
        assert changed == [name for name in own if own[name].tobytes() in {own[each].tobytes() for each in changed}]


def test_a_network_is_trained_on_the_vectors_with_dropout(experiment: AlignedExperiment) -> None:
    config = read_experiment(experiment.folder.folder)[0]
    options, store = NetworkOptions.of(config, "voices"), experiment.features(TRAIN)
    source = frame_source(experiment, experiment.alignment, TRAIN, options)
    expected = read_vectors(experiment, "voices", TRAIN, store, dropped=True)
    assert source.vectors is not None
    assert all(np.array_equal(source.vectors[name], vector) for name, vector in expected.items())


def test_the_share_of_groups_is_chosen_by_the_seed() -> None:
    groups = [[3 * number, 3 * number + 1, 3 * number + 2] for number in range(50)]
    chosen = _drop(groups, 0.1, seed=1)
    assert len(chosen) == 15
    assert sorted(chosen) == sorted(row for rows in groups if rows[0] in chosen for row in rows)
    assert chosen == _drop(groups, 0.1, seed=1)
    assert set(chosen) != set(_drop(groups, 0.1, seed=2))
    assert _drop(groups, 0.0, seed=1) == []


def test_memory_is_that_of_one_speakers_statistics(
    experiment: AlignedExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of statistics are one a training speaker at first, then those of a single speaker."""
    at_once: list[int] = []
    of_groups = VoiceStatistics.of_groups

    def noted(background: DiagonalGmm, groups: Sequence[Iterable[torch.Tensor]]) -> VoiceStatistics:
        at_once.append(len(groups))
        return of_groups(background, groups)

    monkeypatch.setattr(VoiceStatistics, "of_groups", noted)
    config, written = read_experiment(experiment.folder.folder)[0], []
    monkeypatch.setattr("lhuc_asr.pipeline.voices.save_tensors", lambda *arguments: written.append(arguments))
    monkeypatch.setattr(IvectorExtractor, "save", lambda self, path: written.append((path,)))
    folder = experiment.folder.network("voices").parent
    _learn_voices(experiment, folder, experiment.alignment, VoicesOptions.of(config, "voices"))
    assert at_once == [5, *[2] * 5, 2]
    # As the run wrote them.
    for path, tensors, _ in written[:2]:
        for name, tensor in load_file(path).items():
            assert torch.equal(tensors[name], tensor)


def test_a_method_on_vectors_learns_with_the_training_vectors(experiment: AlignedExperiment) -> None:
    """Mean activations of the first layer, by hand, with the vectors and with that of nobody."""
    config = read_experiment(experiment.folder.folder)[0]
    preparation = passes_of(config)["ivector_moments"].preparation
    assert preparation is not None
    assert preparation.voices == "voices"
    network, store = experiment.network("voices"), experiment.features(TRAIN)
    learned = load_file(experiment.folder.prepared(preparation.name) / MOMENTS_FILE)["mean.0"]
    vectors, aligned = read_vectors(experiment, "voices", TRAIN, store), experiment.aligned(experiment.alignment, TRAIN)
    silence = experiment.topology.silence_pdfs
    means = []
    for share in (1.0, 0.0):
        total, weight = torch.zeros(48, dtype=torch.float64), 0.0
        for utterance in store.utterances:
            pdfs = aligned[utterance.id]
            weights = torch.from_numpy(np.where(pdfs < 0, 0.0, np.where(np.isin(pdfs, silence), 0.01, 1.0)))
            rows = [store[utterance.id], np.tile(share * vectors[utterance.id], (utterance.frames, 1))]
            spliced = network.splicing.utterance(torch.from_numpy(np.concatenate(rows, axis=1)))
            with torch.no_grad():
                total += weights @ network.hidden[0](spliced).double()
            weight += float(weights.sum())
        means.append((total / weight).float())
    torch.testing.assert_close(learned, means[0], rtol=1e-4, atol=1e-5)
    assert (means[0] - means[1]).abs().max() > 1e-3


def test_the_vectors_of_a_network_on_transformed_features_are_of_these_features(
    ladder: Path, experiment: AlignedExperiment
) -> None:
    """In training they are moved by the training speakers' transforms, in a pass by those of the pass below."""
    store, extractor = experiment.features(TRAIN, "fmllr_sat"), extractor_of(experiment.network("both"))
    vectors = read_vectors(experiment, "both", TRAIN, store)
    aligned, silence = experiment.aligned(experiment.alignment, TRAIN), experiment.topology.silence_pdfs
    group = [name for name, vector in vectors.items() if np.array_equal(vector, next(iter(vectors.values())))]
    frames = [store[name][(aligned[name] >= 0) & ~np.isin(aligned[name], silence)] for name in group]
    statistics = VoiceStatistics.of(extractor.background, torch.from_numpy(np.concatenate(frames)))
    np.testing.assert_allclose(vectors[group[0]], extractor.vectors(statistics)[0], rtol=1e-4, atol=1e-5)

    network = experiment.network("both")
    below, on_top = (load_speakers(network, ladder / "speakers" / name / "test") for name in ("both_fmllr", "both"))
    assert isinstance(below, ChangedFeatures)
    assert isinstance(on_top, Stacked)
    assert isinstance(on_top.above, ChangedFeatures)
    test = experiment.features("test", "lda_mllt")
    first = np.fromfile(ladder / "decode" / "test" / "both_fmllr" / "pdfs.ali", np.int32)
    for speaker, theirs in test.speakers.items():
        pdfs = np.concatenate([first[each.rows] for each in theirs])
        weights = torch.from_numpy(np.where(np.isin(pdfs, silence), 0.01, 1.0)).float()
        moved = np.concatenate([below.transformed(speaker, test[each.id]) for each in theirs])
        expected = extractor.vectors(VoiceStatistics.of(extractor.background, torch.from_numpy(moved), weights))[0]
        torch.testing.assert_close(on_top.above.of(speaker), expected, rtol=1e-4, atol=1e-5)


def test_vectors_of_other_utterances_or_of_another_space_are_refused(ladder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ladder, tmp_path / "exp"))
    experiment = read_experiment(folder)[1]
    path = folder / "am" / "voices" / "vectors_train.safetensors"
    tensors, description = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    vectors, ids = tensors["vectors"], description["utterances"]
    for changed, names, message in (
        ({"vectors": vectors[1:]}, ids, "vectors has shape"),
        ({"vectors": torch.full_like(vectors, torch.nan)}, ids, "vectors is not finite"),
        ({"vectors": vectors.repeat(1, 2)}, ids, r"vectors has shape \[\d+, 4\], expected \[\d+, 2\]"),
        ({}, [ids[1], ids[0], *ids[2:]], "vectors of other utterances than those of "),
        ({}, None, "vectors of other utterances than those of "),
    ):
        save_tensors(path, tensors | changed, {"utterances": names})
        with pytest.raises(CheckpointError, match=rf"vectors_train\.safetensors: {message}.*; delete it and run again"):
            read_vectors(experiment, "voices", TRAIN, experiment.features(TRAIN))
