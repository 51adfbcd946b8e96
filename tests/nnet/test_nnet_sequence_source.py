"""Whole utterances in mini-batches: each once, bounded, with its own rows; what cannot be trained on is counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from corner_frames import PDFS
from hypothesis import given
from hypothesis import strategies as st
from reference_lattices import store_of
from segment_lattices import segment_frames, segment_lattice, segment_source

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.nnet.losses import NO_TARGET
from lhuc_asr.nnet.sequence_source import SequenceSource, sequence_source


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> SequenceSource:
    return segment_source(tmp_path_factory.mktemp("source") / "lattices", 0)


@given(most=st.integers(1, 700), seed=st.none() | st.integers(0, 99))
def test_every_utterance_comes_once_whole_and_batches_are_bounded(source, most, seed):
    order = None if seed is None else torch.Generator().manual_seed(seed)
    batches = [source.batch(group) for group in source.groups(most, order)]
    seen = [utterance.id for batch in batches for utterance in batch.utterances]
    assert sorted(seen) == sorted(utterance.id for utterance in source.frames.utterances)
    if seed is None:
        assert seen == [utterance.id for utterance in source.frames.utterances]
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(batch.targets) <= most or len(batch.utterances) == 1
        if following is not None:
            assert len(batch.targets) + following.utterances[0].frames > most
        for utterance, rows in zip(batch.utterances, batch.rows, strict=True):
            own = source.frames.splicing.utterance(torch.from_numpy(source.frames.features[utterance.rows]))
            assert torch.equal(batch.spliced[rows], own)
            assert batch.targets[rows].tolist() == source.frames.targets[utterance.rows].tolist()


def test_the_order_is_the_generators(source):
    orders = [
        [each.id for group in source.groups(100, torch.Generator().manual_seed(seed)) for each in group]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_what_has_no_lattice_or_no_reference_is_left_out_and_counted(tmp_path, caplog):
    frames = segment_frames(0)
    first, second, third, *rest = frames.utterances
    frames.targets[second.rows] = -1
    frames.targets[third.first] = -1
    lattices = [(utterance.id, segment_lattice(utterance.frames)) for utterance in (second, third, *rest)]
    source = sequence_source(frames, store_of(tmp_path / "lattices", lattices, PDFS), [])
    assert source.frames.utterances == [third, *rest]
    assert (source.without_lattice, source.without_reference) == (1, 1)
    assert "2 of 12 utterances left out: 1 without a lattice, 1 without a reference" in caplog.text
    batch = source.batch(source.groups(1000)[0])
    assert batch.countable[0] == NO_TARGET
    assert torch.equal(batch.countable[1:], batch.targets[1:])
    assert first.id not in [utterance.id for utterance in batch.utterances]


def test_silence_is_one_class(tmp_path):
    store = segment_source(tmp_path / "lattices", 0).lattices
    assert sequence_source(segment_frames(0), store, [3, 1]).classes.tolist() == [0, 3, 2, 3]


def test_none_left_is_an_error(tmp_path):
    frames = segment_frames(0)
    frames.targets[:] = -1
    store = store_of(tmp_path / "lattices", [("u0", segment_lattice(30))], PDFS)
    with pytest.raises(
        LatticeError, match=r"of 12 utterances 11 have no lattice here, 1 no reference, and none is left"
    ):
        sequence_source(frames, store, [])


def test_a_lattice_of_other_features_is_refused(tmp_path):
    store = store_of(tmp_path / "lattices", [("u0", segment_lattice(40))], PDFS)
    with pytest.raises(
        LatticeError, match=r"u0: a lattice of 40 frames, expected 30; the lattices were made from other"
    ):
        sequence_source(segment_frames(0), store, [])


def test_a_reference_of_another_network_is_refused(tmp_path):
    frames, store = segment_frames(0), segment_source(tmp_path / "lattices", 0).lattices
    targets = frames.targets.copy()
    targets[35] = PDFS
    with pytest.raises(
        LatticeError, match=r"^u1: target 4, but the lattices in .* have pdfs 0 to 3; make them with the"
    ):
        sequence_source(replace(frames, targets=targets.astype(np.int32)), store, [])
