"""The loop that every rung of the ladder trains by, and the rung of LDA and MLLT on top of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from speaker_world import WIDTH, Spoken, speak

from lhuc_asr.base.errors import AlignmentError, TransformError
from lhuc_asr.hmm import lda_mllt_training
from lhuc_asr.hmm.aligner import align_utterances, pdfs_of, transcript_graphs
from lhuc_asr.hmm.feature_space import SplicedLinear, load_feature_space
from lhuc_asr.hmm.gaussian_features import FeaturesInSpace, GaussianFeatures, StoredFeatures
from lhuc_asr.hmm.lda_mllt_training import LdaMlltConfig, train_lda_mllt
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.training import GaussianModel, Growth, TrainingState, estimated, speech_weights, train_mixtures
from lhuc_asr.hmm.tree_building import TreeConfig
from lhuc_asr.hmm.triphone_training import AlignedModel, TriphoneConfig, tied_start, train_triphones

TREE = TreeConfig(leaves=30, min_frames=20)
MONOPHONE = MonophoneConfig(iterations=8, growing_iterations=3, gaussians=25)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Spoken:
    return speak(tmp_path_factory.mktemp("spoken") / "store", {"a": None, "b": None}, 25, seed=0)


@pytest.fixture(scope="module")
def before(spoken) -> AlignedModel:
    features = StoredFeatures(spoken.store)
    return AlignedModel.of(train_monophones(features, spoken.data, MONOPHONE, 0), features, spoken.data)


@pytest.fixture(scope="module")
def start(spoken, before) -> TrainingState:
    return tied_start(before.phones, before.features, spoken.data, TREE)


def log_likelihood(model: GaussianModel, features: GaussianFeatures, pdfs: dict[str, np.ndarray], spoken: Spoken):
    """Mean log p(x | pdf) of the frames of an alignment, in nats."""
    utterances = [utterance for utterance in spoken.store.utterances if utterance.id in pdfs]
    scores = model.gmm.log_likelihoods(features.of(utterances)).double()
    aligned = torch.from_numpy(np.concatenate([pdfs[utterance.id] for utterance in utterances])).long()
    return float(scores.gather(1, aligned.unsqueeze(1)).mean())


class Watched:
    """A refinement that changes nothing, and notes the states that it is given."""

    def __init__(self) -> None:
        self.states: list[TrainingState] = []

    def __call__(self, iteration: int, state: TrainingState) -> TrainingState:
        assert iteration == len(self.states) + 1
        self.states.append(state)
        return state


@pytest.mark.parametrize("config", [MonophoneConfig, TriphoneConfig])
def test_gaussians_that_would_never_be_reached_are_refused(config):
    with pytest.raises(ValidationError, match="growing_iterations: 11, of 10 iterations: 500 Gaussians would never be"):
        config(iterations=10, growing_iterations=11, gaussians=500)
    growth = Growth("test", 10, 10, config(iterations=10, growing_iterations=10, gaussians=500).gaussians, bool)
    assert growth.target(100, 10) == 500


def test_the_likelihood_rises_at_every_estimation_of_one_alignment(spoken, start):
    grown = start.model.gmm.grown(60, start.occupancy, torch.Generator().manual_seed(1))
    start = replace(start, model=replace(start.model, gmm=grown))
    watched = Watched()
    growth = Growth("test", 8, 8, 60, lambda _: False)
    end = train_mixtures(start, spoken.data, growth, 0, watched)
    values = [log_likelihood(state.model, state.features, state.pdfs, spoken) for state in (*watched.states, end)]
    assert all(after > before - 1e-5 for before, after in pairwise(values))
    assert values[-1] > values[1] + 0.01
    assert all(state.pdfs is start.pdfs for state in watched.states)


def test_an_iteration_aligns_then_grows_then_refines_then_estimates(spoken, start):
    watched, growth = Watched(), Growth("test", 5, 4, 140, {2, 5}.__contains__)
    end = train_mixtures(start, spoken.data, growth, 0, watched)
    begin = start.model.gmm.gaussians
    sizes = [state.model.gmm.gaussians for state in watched.states]
    assert begin < sizes[0] < sizes[1] < sizes[2] < sizes[3] == sizes[4] <= 140 + begin
    assert [growth.target(20, iteration) for iteration in (1, 2, 3, 4, 5)] == [50, 80, 110, 140, 140]
    assert [growth.target(150, iteration) for iteration in (1, 5)] == [150, 150]
    pdfs = [start.pdfs, *(state.pdfs for state in watched.states)]
    assert [after is not before for before, after in pairwise(pdfs)] == [
        False,
        True,
        False,
        False,
        True,
    ]
    # The alignment of the fifth iteration is that of the model that the fourth one left.
    model = estimated(watched.states[3], spoken.store.utterances).model
    graphs = transcript_graphs(spoken.store.utterances, spoken.transcripts, spoken.data.lexicon, model.topology)
    paths, _ = align_utterances(model.gmm, start.features, spoken.store.utterances, graphs, 1, 0.1)
    expected = pdfs_of(paths)
    assert all(np.array_equal(expected[name], aligned) for name, aligned in watched.states[4].pdfs.items())
    # What comes back is the estimate from the last state.
    last = estimated(watched.states[4], spoken.store.utterances)
    assert torch.equal(end.model.gmm.mean, last.model.gmm.mean)


def test_triphones_fit_better_than_monophones_of_as_many_gaussians(spoken, before):
    config = TriphoneConfig(tree=TREE, iterations=11, growing_iterations=4, gaussians=100)
    model = train_triphones(before, spoken.data, config, 0)
    aligned = AlignedModel.of(model, before.features, spoken.data)
    pdfs = {name: phones.pdfs(model.topology) for name, phones in aligned.phones.items()}
    larger = MONOPHONE.model_copy(update={"gaussians": 100})
    monophones = train_monophones(before.features, spoken.data, larger, 0)
    of_monophones = AlignedModel.of(monophones, before.features, spoken.data)
    theirs = {name: phones.pdfs(monophones.topology) for name, phones in of_monophones.phones.items()}
    assert model.topology.context_width == 3
    assert log_likelihood(model, before.features, pdfs, spoken) > log_likelihood(
        monophones, before.features, theirs, spoken
    )


def test_the_same_seed_gives_the_same_triphones(spoken, before):
    config = TriphoneConfig(tree=TREE, iterations=2, growing_iterations=2, gaussians=100)
    one, two, other = (train_triphones(before, spoken.data, config, seed).gmm.mean for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_tree_of_fewer_leaves_than_roots_is_refused(spoken, before):
    with pytest.raises(
        AlignmentError, match="a tree of 8 leaves is wanted, and its phones have 9 roots; raise the num"
    ):
        train_triphones(before, spoken.data, TriphoneConfig(tree=TreeConfig(leaves=8)), 0)


def test_silence_counts_less():
    weights = speech_weights(torch.tensor([0, 4, 5, 2, 9]), np.array([0, 2, 5], np.int32), 0.25)
    assert weights.tolist() == [0.25, 1.0, 0.25, 0.25, 1.0]
    assert weights.dtype == torch.float32


def test_nothing_aligned_is_told(spoken, start):
    with pytest.raises(AlignmentError, match="no utterance is aligned, so nothing can be estimated; check transcripts"):
        estimated(replace(start, pdfs={}), spoken.store.utterances)


# LDA and MLLT

LDA = LdaMlltConfig(tree=TREE, iterations=5, growing_iterations=3, gaussians=40, context=1, dimension=8)


def test_mllt_raises_the_likelihood_of_the_same_frames(spoken, before, monkeypatch):
    """The likelihood is that of the LDA features: log |det| of what MLLT made of them is added."""
    model, space = train_lda_mllt(before, spoken.store, WIDTH, spoken.data, LDA, 0)
    monkeypatch.setattr(lda_mllt_training, "MLLT_ITERATIONS", ())
    plain, lda = train_lda_mllt(before, spoken.store, WIDTH, spoken.data, LDA, 0)
    turn = torch.linalg.lstsq(lda.matrix.double().T, space.matrix.double().T).solution.T
    torch.testing.assert_close(turn @ lda.matrix.double(), space.matrix.double(), rtol=0, atol=1e-4)
    values = []
    for trained, its_space in ((model, space), (plain, lda)):
        features = FeaturesInSpace(spoken.store, its_space)
        aligned = AlignedModel.of(trained, features, spoken.data)
        pdfs = {name: phones.pdfs(trained.topology) for name, phones in aligned.phones.items()}
        values.append(log_likelihood(trained, features, pdfs, spoken))
    assert values[0] + float(torch.linalg.slogdet(turn)[1]) > values[1] + 0.1
    assert not torch.allclose(turn, torch.eye(8, dtype=torch.float64), atol=0.05)


def test_the_frames_of_speech_have_the_identity_as_covariance_within_pdfs(spoken, before, monkeypatch):
    monkeypatch.setattr(lda_mllt_training, "MLLT_ITERATIONS", ())
    _, space = train_lda_mllt(before, spoken.store, WIDTH, spoken.data, LDA, 0)
    pdfs = np.concatenate([before.phones[u.id].pdfs(before.model.topology) for u in spoken.store.utterances])
    values = FeaturesInSpace(spoken.store, space).of(spoken.store.utterances).double().numpy()
    speech = ~np.isin(pdfs, before.model.topology.silence_pdfs)
    values, pdfs = values[speech], pdfs[speech]
    centred = (
        values
        - np.stack([values[pdfs == pdf].mean(0) for pdf in range(pdfs.max() + 1) if (pdfs == pdf).any()])[
            np.unique(pdfs, return_inverse=True)[1]
        ]
    )
    np.testing.assert_allclose(centred.T @ centred / len(centred), np.eye(8), atol=1e-3)


def test_the_space_of_the_model_is_saved_and_loaded(spoken, before, tmp_path):
    config = LDA.model_copy(update={"iterations": 2})
    model, space = train_lda_mllt(before, spoken.store, WIDTH, spoken.data, config, 0)
    space.save(tmp_path / "space.safetensors")
    loaded = load_feature_space(tmp_path / "space.safetensors", WIDTH)
    assert isinstance(loaded, SplicedLinear)
    assert torch.equal(loaded.matrix, space.matrix)
    assert model.gmm.dimension == loaded.dimension == 8


def test_more_features_than_pdfs_are_refused(spoken, before):
    config = LDA.model_copy(update={"dimension": 17})
    with pytest.raises(TransformError, match="LDA: 17 features from 18 coordinates of 12 classes"):
        train_lda_mllt(before, spoken.store, WIDTH, spoken.data, config, 0)
