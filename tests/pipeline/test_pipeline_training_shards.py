"""Training from shards: what Lhotse reads in them, in a folder and behind S3."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.nnet.frame_shards import read_index

# A few seconds a shard, so that a tiny corpus has several; blocks of some of them.
MINUTES = "shards.minutes=0.05"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("frames", "frame_shards"):
        monkeypatch.setattr(f"lhuc_asr.nnet.{module}.BLOCK_FRAMES", 700)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The tiny experiment, finished without shards."""
    return Path(shutil.copytree(finished, tmp_path / "exp"))


def _network(folder: Path, name: str = "si") -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_tensors(folder / f"am/{name}/model.safetensors")[0].items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Lhotse leaves its files open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_lhotse_reads_the_shards_that_networks_were_trained_from(folder: Path, run, tmp_path: Path) -> None:
    from lhotse import CutSet

    made = run(folder, f"shards.store={tmp_path / 'store'}", MINUTES)
    assert "shards of features" in made
    assert "network si" in made
    shards = read_index(folder / "features" / "shards_features.jsonl")
    assert len(shards) > 4
    place = (tmp_path / "store" / shards[0].files["features"]).parent
    cuts = list(CutSet.from_shar(in_dir=place))
    store = FeatureStore(folder / "features" / "train")
    assert [cut.id for cut in cuts] == [name for shard in shards for name in shard.utterances]
    assert sorted(cut.id for cut in cuts) == sorted(store.by_id)
    assert [cut.id for cut in cuts] != [utterance.id for utterance in store.utterances]
    pdfs = np.fromfile(next(folder.glob("hmm/mono/train.ali")), np.int32)
    for cut in cuts:
        stored = store.by_id[cut.id]
        np.testing.assert_array_equal(cut.load_features(), store[cut.id])
        np.testing.assert_array_equal(cut.load_pdfs(), pdfs[stored.rows])
        assert cut.supervisions[0].speaker == stored.speaker
        assert cut.supervisions[0].text
        assert cut.num_frames == stored.frames


def test_a_folder_and_s3_give_the_same_network(folder: Path, bucket: str, run, tmp_path: Path) -> None:
    before = _network(folder)
    run(folder, f"shards.store={tmp_path / 'store'}", MINUTES)
    ours = _network(folder)
    assert not _same(ours, before), "the order of the frames is another one"
    # Another place is not another network: nothing is made again.
    assert run(folder, f"shards.store={bucket}", MINUTES) == []
    shutil.rmtree(folder / "am")
    (folder / "features" / "shards_features.jsonl").unlink()
    shutil.rmtree(tmp_path / "store")
    run(folder, f"shards.store={bucket}", MINUTES)
    assert _same(_network(folder), ours)
    assert not (tmp_path / "store").exists()
