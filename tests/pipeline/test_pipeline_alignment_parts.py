"""Alignments from a cluster: the files of this machine, to the bit, whatever aligns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.pipeline import alignment_parts
from lhuc_asr.pipeline.acoustic_models import CEPSTRA, LDA, SAT
from lhuc_asr.pipeline.alignment_parts import aligned_splits
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.split_alignment import AlignmentPlan

pytestmark = pytest.mark.usefixtures("a_part_for_each_speaker")
Run = Callable[..., list[str]]


@pytest.fixture
def cluster(two_machines: Any, bucket: str) -> tuple[str, ...]:
    return "executor=ray", f"ray.store={bucket}", f"ray.address={two_machines.address}"


def files_of(folder: Path, *wanted: str) -> dict[str, bytes]:
    paths = [path for each in wanted for path in folder.glob(each) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_ladder_aligns_as_on_this_machine(
    cluster: tuple[str, ...],
    ladder: Path,
    tmp_path: Path,
    run_ladder: Run,
    ladder_passes: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Speaker-adaptive Gaussians: transforms, alignments, and features that are moved. All that follows stands."""
    copy = Path(shutil.copytree(ladder, tmp_path / "exp"))
    made = "hmm/fmllr_sat/*", "features/*fmllr_sat/*"
    here = files_of(copy, *made)
    assert {"hmm/fmllr_sat/train.ali", "hmm/fmllr_sat/heldout.ali"} < here.keys()
    for path in [copy / place for place in here] + [copy / "stages" / "fmllr_sat.json"]:
        path.unlink()
    monkeypatch.setattr(alignment_parts, "align_split", None)
    assert run_ladder(copy, ladder_passes, *cluster) == ["fmllr_sat"]
    assert files_of(copy, *made) == here


def test_gaussians_and_networks_align_as_on_this_machine(
    cluster: tuple[str, ...], copied: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "realignments=1", "realignment_epochs=1", "speeds=[1.0, 0.9]"
    run(copied, *options)
    made = "hmm/*/*.ali", "hmm/*/topology.json"
    here = files_of(copied, *made)
    assert len(here) == 6
    stages = ["monophones", "realign1"]
    for place in [*here, *(f"stages/{stage}.json" for stage in stages)]:
        (copied / place).unlink()
    monkeypatch.setattr(alignment_parts, "align_split", None)
    assert run(copied, *options, *cluster) == stages
    assert files_of(copied, *made) == here


@pytest.mark.parametrize("rung", ["mono", SAT])
def test_what_cannot_be_aligned_is_counted_over_all_parts(
    rung: str, ladder: Path, tmp_path: Path, two_machines: Any, bucket: str
) -> None:
    """A speaker of whom nothing can be aligned is one of many."""
    config, experiment = read_experiment(Path(shutil.copytree(ladder, tmp_path / "exp")))
    manifest = experiment.folder.manifest("train")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    speaker = rows[0]["speaker"]
    theirs = [row["id"] for row in rows if row["speaker"] == speaker]
    for row in rows:
        if row["speaker"] == speaker:
            row["text"] = " ".join([row["text"]] * 30)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    together = replace(experiment, ray=RayConfig(address=two_machines.address, store=bucket))
    plan = AlignmentPlan(rung, CEPSTRA, (1.0,), 0.5)
    if rung == SAT:
        plan = replace(plan, features=LDA, adaptive=config.fmllr_sat)
    for (_, here), (_, there) in zip(aligned_splits(experiment, plan), aligned_splits(together, plan), strict=True):
        assert here.pdfs.keys() == there.pdfs.keys()
        assert all(np.array_equal(pdfs, there.pdfs[name]) for name, pdfs in here.pdfs.items())
        assert not here.pdfs.keys() & set(theirs)
        if here.transforms is not None and there.transforms is not None:
            names = here.transforms.names
            assert sorted(names) == sorted(there.transforms.names)
            assert all(torch.equal(here.transforms.of(name), there.transforms.of(name)) for name in names)
        assert (there.transforms is None) == (rung == "mono")
    for each in (experiment, together):
        with pytest.raises(AlignmentError, match=rf"{len(theirs)} of {len(rows)} utterances cannot be aligned .*0%"):
            list(aligned_splits(each, replace(plan, max_unaligned=0.0)))
