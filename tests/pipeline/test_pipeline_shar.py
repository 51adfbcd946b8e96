"""A recipe on a corpus in shards: the features of its recordings, whatever they lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.features.store import FeatureStore


def test_a_recipe_reads_shards_that_lhotse_wrote(finished: Path, run, tmp_path: Path) -> None:
    from lhotse import CutSet, Recording, SupervisionSegment

    for name, splits in (("train", ("train", "heldout")), ("test", ("test",))):
        cuts = []
        for utterance in (each for split in splits for each in read_manifest(finished / "corpus" / f"{split}.jsonl")):
            recording = Recording.from_file(utterance.audio, recording_id=utterance.id)
            cut = recording.to_cut()
            said = {"text": utterance.text, "speaker": utterance.speaker}
            cut.supervisions = [SupervisionSegment(utterance.id, utterance.id, 0, cut.duration, **said)]
            cuts.append(cut)
        (tmp_path / name).mkdir()
        CutSet.from_cuts(cuts).to_shar(tmp_path / name, {"recording": "flac"}, shard_size=8)
    places = f"train: {tmp_path / 'train'}, test: {tmp_path / 'test'}"
    overrides = [f"corpus={{kind: shar, {places}}}", "lexicon.language=en-us"]
    made = run(tmp_path / "exp", *overrides)
    assert made[0] == "corpus"
    theirs, ours = (FeatureStore(folder / "features" / "test") for folder in (finished, tmp_path / "exp"))
    assert sorted(ours.by_id) == sorted(theirs.by_id)
    for name in theirs.by_id:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert run(tmp_path / "exp", *overrides) == []
