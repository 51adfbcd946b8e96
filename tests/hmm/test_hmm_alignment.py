"""Alignments beside their features: round trips, frames without a pdf, files that do not fit."""

import numpy as np
import pytest

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.features.store import FeatureStore, write_store
from lhuc_asr.hmm.alignment import UNALIGNED, Alignment, write_alignment


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    items = [("a", "s", np.zeros((3, 2), np.float32)), ("b", "s", np.ones((5, 2), np.float32))]
    return write_store(tmp_path / "features", items, 2, normalise=False)


def test_what_was_written_is_read_back(tmp_path, store):
    pdfs = {"a": np.array([4, 4, 7]), "b": np.array([1, 2, 3, 3, 0], np.int32)}
    write_alignment(tmp_path / "train.ali", store, pdfs)
    alignment = Alignment(tmp_path / "train.ali", store, 9)
    assert alignment["a"].tolist() == [4, 4, 7]
    assert alignment["b"].tolist() == [1, 2, 3, 3, 0]
    assert alignment.aligned_share == 1.0


def test_an_utterance_left_out_is_unaligned(tmp_path, store):
    alignment = write_alignment(tmp_path / "train.ali", store, {"b": np.arange(5)})
    assert alignment["a"].tolist() == [UNALIGNED] * 3
    assert alignment.aligned_share == 5 / 8


def test_another_length_is_refused_and_nothing_is_left(tmp_path, store):
    with pytest.raises(AlignmentError, match="b: 4 pdfs for 5 frames"):
        write_alignment(tmp_path / "train.ali", store, {"b": np.arange(4)})
    assert not (tmp_path / "train.ali").exists()


def test_utterances_that_the_features_lack_are_refused(tmp_path, store):
    """Another split's alignment would else be written as one without any aligned frame."""
    with pytest.raises(AlignmentError, match=r"1 aligned utterances are not in .*features: z"):
        write_alignment(tmp_path / "train.ali", store, {"a": np.arange(3), "z": np.arange(5)})


@pytest.mark.parametrize("size", [0, 31, 36])
def test_a_file_of_another_size_is_refused(tmp_path, store, size):
    (tmp_path / "train.ali").write_bytes(bytes(size))
    with pytest.raises(AlignmentError, match=rf"train.ali: {size} bytes for 8 frames; it belongs to other features"):
        Alignment(tmp_path / "train.ali", store, 9)


def test_a_missing_file_is_told(tmp_path, store):
    with pytest.raises(AlignmentError, match=r"train\.ali: cannot be read \(No such file.*run the alignment stage"):
        Alignment(tmp_path / "train.ali", store, 9)


@pytest.mark.parametrize("pdf", [-2, 9, 2**31 - 1])
def test_a_pdf_that_the_topology_does_not_have_is_refused(tmp_path, store, pdf):
    np.array([0, 1, UNALIGNED, 8, pdf, 0, 0, 0], np.int32).tofile(tmp_path / "train.ali")
    with pytest.raises(AlignmentError, match=r"train\.ali: pdfs .*, expected -1 to 8; it belongs to another topology"):
        Alignment(tmp_path / "train.ali", store, 9)
