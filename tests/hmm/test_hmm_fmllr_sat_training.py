"""Speaker-adaptive training on speakers whose features known transforms have moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mixture_world import affine
from speaker_world import LEXICON, WIDTH, Spoken, speak

from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.aligner import align_utterances, transcript_graphs
from lhuc_asr.hmm.fmllr import FmllrEstimation
from lhuc_asr.hmm.fmllr_sat_training import FmllrSatConfig, SpeakerAdaptiveModel, align_adapted, train_fmllr_sat
from lhuc_asr.hmm.gaussian_features import AdaptedFeatures, GaussianFeatures, StoredFeatures
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms, compose
from lhuc_asr.hmm.topology import ContextDependency, MonophoneTopology
from lhuc_asr.hmm.training import TrainingData
from lhuc_asr.hmm.tree_building import TreeConfig
from lhuc_asr.hmm.triphone_training import AlignedModel, train_triphones

CONFIG = FmllrSatConfig(
    tree=TreeConfig(leaves=30, min_frames=20),
    iterations=11,
    growing_iterations=3,
    gaussians=60,
    fmllr=FmllrEstimation(min_counts={"full": 150.0}, sweeps=20),
)
TRUE = {name: affine(seed, WIDTH, 0.15) for seed, name in enumerate(("a", "b", "c", "d", "new", "other"))}
TRAINING, UNSEEN = ("a", "b", "c", "d"), ("new", "other")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Spoken:
    folder = tmp_path_factory.mktemp("training") / "store"
    return speak(folder, {name: TRUE[name] for name in TRAINING}, 15, seed=0)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> Spoken:
    folder = tmp_path_factory.mktemp("unseen") / "store"
    return speak(folder, {name: TRUE[name] for name in UNSEEN}, 12, seed=1)


@pytest.fixture(scope="module")
def before(spoken) -> AlignedModel:
    features = StoredFeatures(spoken.store)
    monophone = MonophoneConfig(iterations=10, growing_iterations=3, gaussians=40)
    return AlignedModel.of(train_monophones(features, spoken.data, monophone, 0), features, spoken.data)


@pytest.fixture(scope="module")
def model(spoken, before) -> SpeakerAdaptiveModel:
    return train_fmllr_sat(before, spoken.data, CONFIG, 0)


@pytest.fixture(scope="module")
def transforms(spoken, model) -> SpeakerTransforms:
    return align_adapted(model, StoredFeatures(spoken.store), spoken.data, CONFIG)[0]


@pytest.fixture(scope="module")
def unseen_transforms(unseen, model) -> SpeakerTransforms:
    return align_adapted(model, StoredFeatures(unseen.store), unseen.data, CONFIG)[0]


def spread(transforms: dict[str, torch.Tensor]) -> float:
    """Root of the mean squared distance of transforms from their mean."""
    stacked = torch.stack(list(transforms.values()))
    return float((stacked - stacked.mean(0)).square().mean().sqrt())


def inverse(transform: torch.Tensor) -> torch.Tensor:
    square = torch.linalg.inv(transform[:, :-1])
    return torch.cat([square, -(square @ transform[:, -1:])], dim=1)


def aligned(
    topology: ContextDependency, gmm: DiagonalGmm, features: GaussianFeatures, spoken: Spoken
) -> tuple[float, float]:
    """Share of the frames whose phone is right, and mean log-probability of a frame along the best paths."""
    graphs = transcript_graphs(spoken.store.utterances, spoken.transcripts, LEXICON, topology)
    paths, log_prob = align_utterances(gmm, features, spoken.store.utterances, graphs, 1, 0.1)
    monophones = MonophoneTopology.initial(LEXICON.phones)
    phones = {name: AlignedPhones.of(path, graphs[name], LEXICON.phones) for name, path in paths.items()}
    right = [phones[name].pdfs(monophones) == truth for name, truth in spoken.truth.items()]
    return float(np.concatenate(right).mean()), log_prob


def log_det(transforms: SpeakerTransforms, spoken: Spoken) -> float:
    """Mean log |det A| of the frames."""
    values = [float(torch.linalg.slogdet(transforms.of(u.speaker)[:, :-1])[1]) for u in spoken.store.utterances]
    return float(np.average(values, weights=[u.frames for u in spoken.store.utterances]))


def test_unseen_speakers_are_aligned_better_than_without_transforms(spoken, before, model, unseen, unseen_transforms):
    triphones = train_triphones(before, spoken.data, CONFIG, 0)
    features = StoredFeatures(unseen.store)
    without = aligned(triphones.topology, triphones.gmm, features, unseen)
    adapted = AdaptedFeatures(features, unseen_transforms)
    right, log_prob = aligned(model.topology, model.adapted, adapted, unseen)
    assert right > without[0] + 0.02
    assert log_prob + log_det(unseen_transforms, unseen) > without[1] + 0.3


def test_the_transforms_undo_the_known_ones_up_to_one_that_is_common(transforms, unseen_transforms):
    """What comes out of the observed features is C times the features before they were moved, for one C."""
    both = {name: each.of(name) for each in (transforms, unseen_transforms) for name in each.names}
    assert both.keys() == TRUE.keys()
    left = {name: compose(transform, inverse(TRUE[name])) for name, transform in both.items()}
    moved = {name: inverse(transform) for name, transform in TRUE.items()}
    assert spread(left) < 0.35 * spread(moved)


def test_the_twin_fits_unadapted_frames_better_and_adapted_ones_worse(spoken, model, transforms):
    """Both have the same Gaussians, of the same pdfs."""
    assert torch.equal(model.unadapted.pdf, model.adapted.pdf)
    features = StoredFeatures(spoken.store)
    adapted = AdaptedFeatures(features, transforms)
    graphs = transcript_graphs(spoken.store.utterances, spoken.transcripts, LEXICON, model.topology)
    paths, _ = align_utterances(model.adapted, adapted, spoken.store.utterances, graphs, 1, 0.1)
    pdfs = np.concatenate([paths[u.id].pdfs for u in spoken.store.utterances])
    chosen = torch.from_numpy(pdfs).long().unsqueeze(1)
    values = {
        (name, kind): float(gmm.log_likelihoods(each.of(spoken.store.utterances)).gather(1, chosen).mean())
        for name, gmm in (("twin", model.unadapted), ("model", model.adapted))
        for kind, each in (("unadapted", features), ("adapted", adapted))
    }
    assert values["twin", "unadapted"] > values["model", "unadapted"] + 0.5
    assert values["model", "adapted"] > values["twin", "adapted"] + 0.5


def test_a_speakers_transform_does_not_depend_on_who_else_is_estimated(unseen, model, unseen_transforms):
    theirs = [utterance for utterance in unseen.store.utterances if utterance.speaker == "other"]
    data = TrainingData(theirs, unseen.transcripts, LEXICON, 1, 0.1)
    alone, _ = align_adapted(model, StoredFeatures(unseen.store), data, CONFIG)
    assert alone.names == ("other",)
    assert torch.equal(alone.of("other"), unseen_transforms.of("other"))


def test_a_speaker_with_one_utterance_and_one_of_silence_keep_their_features(unseen, model, caplog):
    """One has too few frames, all of the other's are alike; the third gets the transform as before."""
    array = np.array(unseen.store.array)
    first = [utterance for utterance in unseen.store.utterances if utterance.speaker == "new"]
    for utterance in first:
        array[utterance.rows] = 0.0

    class Broken:
        dimension = WIDTH

        def of(self, block):
            return torch.from_numpy(np.concatenate([array[utterance.rows] for utterance in block]))

    data = TrainingData(unseen.store.utterances[: len(first) + 1], unseen.transcripts, LEXICON, 1, 0.1)
    assert {utterance.speaker for utterance in data.utterances} == {"new", "other"}
    transforms, pdfs = align_adapted(model, Broken(), data, CONFIG)
    identity = torch.eye(WIDTH, WIDTH + 1, dtype=torch.float64)
    assert all(torch.equal(transforms.of(name), identity) for name in ("new", "other"))
    assert len(pdfs) == len(data.utterances)
    assert "1 of 2 speakers stay unadapted, their frames are too much alike, or not finite: new" in caplog.text
    assert "1 of 2 speakers have fewer than 150 frames of speech and keep their features as they are: other" in (
        caplog.text
    )


def test_the_same_seed_gives_the_same_model(spoken, before):
    short = CONFIG.model_copy(update={"iterations": 2, "growing_iterations": 1})
    one, two = (train_fmllr_sat(before, spoken.data, short, 3) for _ in range(2))
    assert torch.equal(one.adapted.mean, two.adapted.mean)
    assert torch.equal(one.unadapted.mean, two.unadapted.mean)
