"""Clusters of training speakers: known groups are found, and a cluster trains as one speaker would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sat_training import sat_source, tables_of, train_sat

from lhuc_asr.adapt import sat_clusters
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.adapt.sat_clusters import cluster_leaders, speaker_maps
from lhuc_asr.base.errors import AlignmentError, ConfigError
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import FrameSource

PDFS, DIMENSION, EACH = 30, 5, 400


def voices(groups: list[int], seed: int, spread: float = 0.0) -> FrameSource:
    """A speaker for each entry: a map of the pdfs' means for each group, and other pdfs for each speaker."""
    generator = np.random.default_rng(seed)
    means = generator.standard_normal((PDFS, DIMENSION))
    maps = np.eye(DIMENSION) + 0.4 * generator.standard_normal((max(groups) + 1, DIMENSION, DIMENSION))
    offsets = 0.4 * generator.standard_normal((max(groups) + 1, DIMENSION))
    features, targets, utterances = [], [], []
    for number, group in enumerate(groups):
        said = generator.choice(generator.choice(PDFS, PDFS // 2, replace=False), EACH)
        own = maps[group] + spread * generator.standard_normal((DIMENSION, DIMENSION))
        features.append(means[said] @ own.T + offsets[group] + 0.3 * generator.standard_normal((EACH, DIMENSION)))
        targets.append(said)
        for part in range(2):
            first = number * EACH + part * EACH // 2
            utterances.append(StoredUtterance(f"{number}-{part}", f"s{number}", first, EACH // 2))
    return FrameSource(
        np.concatenate(features).astype(np.float32),
        np.concatenate(targets).astype(np.int32),
        utterances,
        Context.both(0),
    )


def by_speaker(source: FrameSource) -> dict[str, list[StoredUtterance]]:
    speakers: dict[str, list[StoredUtterance]] = {}
    for utterance in source.utterances:
        speakers.setdefault(utterance.speaker, []).append(utterance)
    return speakers


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_voices_are_found_whatever_each_says(seed):
    groups = [0, 1, 2, 0, 1, 2, 2, 1, 0, 0]
    source = voices(groups, seed, spread=0.03)
    leaders = cluster_leaders(source, by_speaker(source), 3)
    assert leaders == {f"s{number}": f"s{groups.index(group)}" for number, group in enumerate(groups)}


def test_the_distance_of_maps_is_that_of_their_predictions(monkeypatch):
    """Without a prior |V^s - V^r|^2 is the mean squared difference of what the two maps predict."""
    monkeypatch.setattr(sat_clusters, "RIDGE", 1e-9)
    source = voices([0, 1, *[2] * 6], seed=1)  # eight speakers, so that every pdf is said
    once = by_speaker(source)
    first, second = speaker_maps(source, once)[:2]
    predicted = []
    everything = source.features.astype(np.float64)
    means = np.stack([everything[source.targets == pdf].mean(0) for pdf in range(PDFS)])
    extended = np.concatenate([means, np.ones((PDFS, 1))], axis=1)
    for utterances in list(once.values())[:2]:
        rows = np.concatenate([np.arange(u.rows.start, u.rows.stop) for u in utterances])
        said = source.targets[rows]
        solved, *_ = np.linalg.lstsq(extended[said], everything[rows] - means[said], rcond=None)
        predicted.append(extended[source.targets] @ solved)
    wanted = ((predicted[0] - predicted[1]) ** 2).sum(1).mean()
    assert ((first - second) ** 2).sum() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_found_where_some_say_little_and_others_much(seed):
    """A prior of so many frames would put all who say little into one cluster, whatever their voices."""
    groups = [0, 1, 2, 3] * 3
    source = voices(groups, seed, spread=0.03)
    speakers = by_speaker(source)
    for number, speaker in enumerate(list(speakers)):
        if number >= len(groups) // 2:
            speakers[speaker] = [replace(speakers[speaker][0], frames=40)]
        else:
            speakers[speaker] = speakers[speaker] * 5
    leaders = cluster_leaders(source, speakers, 4)
    assert leaders == {f"s{number}": f"s{groups.index(group)}" for number, group in enumerate(groups)}


def test_an_offset_of_all_features_changes_nothing():
    source = voices([0, 1, 0, 1], seed=4)
    moved = replace(source, features=source.features + np.float32(64.0))
    np.testing.assert_allclose(
        speaker_maps(moved, by_speaker(moved)), speaker_maps(source, by_speaker(source)), atol=1e-3
    )


def test_speakers_who_are_alike_are_not_parted():
    source = voices([0, 0], seed=5)
    twins = {f"s{n}": by_speaker(source)["s0"] for n in range(4)}
    assert set(cluster_leaders(source, twins, 3).values()) == {"s0"}


def test_without_a_frame_that_has_a_target_the_error_is_the_trainers(tmp_path):
    source = sat_source(0)
    silent = replace(source, targets=np.full_like(source.targets, -1))
    for config in (SatConfig(), SatConfig(clusters=2)):
        with pytest.raises(AlignmentError, match="no frame of 6 utterances has a target to train on"):
            train_sat(tmp_path / "state", config, training=silent)


def test_frames_without_a_target_and_directions_without_spread_count_for_nothing():
    source = voices([0, 1, 0, 1], seed=3)
    targets, features = source.targets.copy(), source.features.copy()
    targets[::7] = -1
    features[:, 4] = 0.0
    plain = replace(source, targets=targets, features=features)
    features = features.copy()
    features[::7] = 1e6
    assert np.array_equal(
        speaker_maps(plain, by_speaker(plain)), speaker_maps(replace(plain, features=features), by_speaker(plain))
    )
    assert np.isfinite(speaker_maps(plain, by_speaker(plain))).all()


def test_a_cluster_trains_the_row_that_one_speaker_with_its_frames_would(tmp_path):
    source = sat_source(0)
    leaders = cluster_leaders(source, by_speaker(source), 2)
    assert sorted(leaders.values()) != sorted(leaders)
    clustered = train_sat(tmp_path / "clusters", SatConfig(clusters=2, learning_rate=0.02), training=source)
    renamed = [replace(utterance, speaker=leaders[utterance.speaker]) for utterance in source.utterances]
    alone = train_sat(tmp_path / "renamed", SatConfig(learning_rate=0.02), training=replace(source, utterances=renamed))
    moved = 0.0
    for ours, theirs in zip(tables_of(clustered), tables_of(alone), strict=True):
        for speaker, leader in leaders.items():
            assert torch.equal(ours[clustered.row(speaker)], theirs[alone.row(leader)])
            moved = max(moved, float((ours[clustered.row(speaker)] - ours[0]).abs().max()))
    assert moved > 0.01


def test_a_cluster_for_each_speaker_is_no_clusters(tmp_path):
    ours = train_sat(tmp_path / "clusters", SatConfig(clusters=3))
    theirs = train_sat(tmp_path / "none", SatConfig())
    assert all(torch.equal(a, b) for a, b in zip(tables_of(ours), tables_of(theirs), strict=True))


def test_more_clusters_than_speakers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="4 clusters for 3 training speakers"):
        train_sat(tmp_path / "state", SatConfig(clusters=4))
