"""Feature spaces against a loop over frames, with other matrices, and their files."""

import pytest
import torch

from lhuc_asr.base.errors import CheckpointError, TransformError
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.hmm.feature_space import FORMAT, AsStored, SplicedLinear, load_feature_space, spliced_cepstra

COLUMNS, CEPSTRA, CONTEXT = 6, 2, 2
SPLICED = CEPSTRA * (2 * CONTEXT + 1)


def _space(dimension: int = 3) -> SplicedLinear:
    matrix = torch.randn(dimension, SPLICED, generator=torch.Generator().manual_seed(0))
    return SplicedLinear(COLUMNS, CEPSTRA, CONTEXT, matrix)


def test_stored_columns_are_taken_as_they_are():
    rows = torch.randn(7, COLUMNS)
    space = AsStored(COLUMNS)
    assert space.dimension == COLUMNS
    assert torch.equal(space.apply(rows, [3, 4]), rows)


def test_spliced_cepstra_stay_within_their_utterance():
    lengths = [1, 5, 3]
    rows = torch.randn(sum(lengths), COLUMNS)
    space = _space()
    spliced, features = spliced_cepstra(rows, lengths, CEPSTRA, CONTEXT), space.apply(rows, lengths)
    first = 0
    for length in lengths:
        for frame in range(length):
            near = [min(max(frame + offset, 0), length - 1) for offset in range(-CONTEXT, CONTEXT + 1)]
            expected = torch.cat([rows[first + other, :CEPSTRA] for other in near])
            assert torch.equal(spliced[first + frame], expected)
            torch.testing.assert_close(features[first + frame], space.matrix @ expected, atol=1e-5, rtol=1e-5)
        first += length
    assert features.shape == (9, space.dimension)


def test_another_matrix_multiplies_into_the_space():
    rows, space = torch.randn(5, COLUMNS), _space()
    turn = torch.randn(2, 3, dtype=torch.float64)
    turned = space.multiplied(turn)
    assert turned.dimension == 2
    torch.testing.assert_close(turned.apply(rows, [5]), space.apply(rows, [5]) @ turn.T.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("space", [AsStored(COLUMNS), _space()], ids=["as stored", "spliced linear"])
def test_rows_of_another_store_are_refused(space):
    with pytest.raises(TransformError, match="features of 5 columns and 4 frames, expected 6 columns and 4 frames"):
        space.apply(torch.zeros(4, 5), [4])
    with pytest.raises(TransformError, match="4 frames, expected 6 columns and 3 frames"):
        space.apply(torch.zeros(4, COLUMNS), [1, 2])


@pytest.mark.parametrize("space", [AsStored(COLUMNS), _space()], ids=["as stored", "spliced linear"])
def test_a_saved_space_makes_the_same_features(tmp_path, space):
    path = tmp_path / "space.safetensors"
    space.save(path)
    rows = torch.randn(5, COLUMNS)
    assert torch.equal(load_feature_space(path, COLUMNS).apply(rows, [2, 3]), space.apply(rows, [2, 3]))
    with pytest.raises(CheckpointError, match=r"space\.safetensors: for features of 6 columns, expected 7; delete it"):
        load_feature_space(path, COLUMNS + 1)


@pytest.mark.parametrize(
    ("change", "tensors", "message"),
    [
        ({"context": 3}, {"matrix": torch.zeros(3, SPLICED)}, r"matrix of shape \[3, 10\] for 14 spliced cepstra"),
        ({"cepstra": 7}, {"matrix": torch.zeros(3, 35)}, "7 cepstra of 6 columns"),
        ({"context": -1}, {"matrix": torch.zeros(3, SPLICED)}, "with -1 neighbours"),
        ({"context": "2"}, {"matrix": torch.zeros(3, SPLICED)}, "not that of a feature space"),
        ({"kind": "squared"}, {"matrix": torch.zeros(3, SPLICED)}, "not that of a feature space"),
        ({"kind": "as stored"}, {"matrix": torch.zeros(3, SPLICED)}, "unknown tensor 'matrix'"),
        ({}, {}, "the tensor 'matrix' is missing"),
        ({}, {"matrix": torch.zeros(0, SPLICED)}, "and a row or more"),
        ({}, {"matrix": torch.full((3, SPLICED), torch.nan)}, "not finite"),
        ({}, {"matrix": torch.ones(3, SPLICED)}, "its matrix is singular"),
        ({"format": "gmm"}, {"matrix": torch.zeros(3, SPLICED)}, "expected a feature space of format"),
    ],
)
def test_files_that_contradict_themselves_are_told(tmp_path, change, tensors, message):
    path = tmp_path / "space.safetensors"
    kind = {"format": FORMAT, "kind": "spliced linear", "columns": COLUMNS, "cepstra": CEPSTRA, "context": CONTEXT}
    save_tensors(path, tensors, kind | change)
    with pytest.raises(CheckpointError, match=message):
        load_feature_space(path, COLUMNS)
