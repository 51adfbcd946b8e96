"""A whole recipe through the ladder of aligners: Gaussians, a network on moved features, and methods on top."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.stacked import Stacked
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.hmm.feature_space import SplicedLinear, load_feature_space
from lhuc_asr.pipeline import rungs
from lhuc_asr.pipeline.experiment import read_experiment

pytestmark = pytest.mark.slow

Run = Callable[..., list[str]]
COUNTS = "min_counts: {full: 150, diagonal: 30}"
SIZES = "tree: {leaves: 150}, iterations: 3, growing_iterations: 1, gaussians: 160"
RECIPE = (
    "aligners=[mono, tri, lda_mllt, fmllr_sat]",
    "speeds=[1.0, 1.1]",
    f"tri={{{SIZES}}}",
    f"lda_mllt={{{SIZES}, dimension: 20}}",
    f"fmllr_sat={{{SIZES}, fmllr: {{{COUNTS}}}}}",
    "networks={sat: {start: moved, schedule: {learning_rate: 0.01, max_epochs: 1}}, moved: {features: fmllr_sat}, "
    "fresh: {like: moved, schedule: {max_epochs: 1}}}",
    "controls=[without_rows]",
    "first_passes=[mono]",
    f"passes={{plain: {{}}, gaussian: {{network: fmllr_sat, method: {{kind: fmllr, {COUNTS}}}}}, "
    f"fmllr: {{network: moved, method: {{kind: fmllr, {COUNTS}}}, targets: {{source: gaussian}}}}, "
    "lhuc: {network: moved, method: {kind: lhuc, on: fmllr}, targets: {source: fmllr}}, "
    f"fresh: {{network: fresh, method: {{kind: fmllr, {COUNTS}}}, targets: {{source: gaussian}}}}, "
    f"sat_fmllr: {{network: sat, method: {{kind: fmllr, {COUNTS}}}, targets: {{source: gaussian}}}}, "
    "sat_lhuc: {network: sat, method: {kind: lhuc, on: sat_fmllr}, targets: {source: sat_fmllr}}}",
)
RUNGS = ["monophones", "triphones", "lda_mllt", "fmllr_sat"]


@pytest.fixture(scope="module")
def climbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished experiment; a first run is ended in the middle of a rung."""
    folder = tmp_path_factory.mktemp("ladder") / "exp"
    real = rungs.write_features

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rungs, "write_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, *RECIPE)
    assert rungs.write_features is real
    made = run(folder, *RECIPE)
    assert made[:2] == ["lda_mllt", "fmllr_sat"]
    return folder


def test_a_second_run_finds_everything_done(climbed: Path, run: Run) -> None:
    assert run(climbed, *RECIPE) == []


def test_a_changed_rung_makes_later_stages_again_only(climbed: Path, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(climbed, tmp_path / "exp"))
    made = run(folder, *RECIPE, "lda_mllt.gaussians=140")
    assert made[:2] == RUNGS[2:]
    assert not {"corpus", "features of test", "mfcc of train", "graph of mono", "mono_si over test"} & set(made)
    assert {"graph", "network moved", "gaussian over heldout", "sat_lhuc over test"} <= set(made)


def test_an_option_of_a_pass_does_not_touch_the_ladder(climbed: Path, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(climbed, tmp_path / "exp"))
    changed = RECIPE[-1].replace("kind: lhuc, on: fmllr", "kind: lhuc, on: fmllr, sweeps: 1")
    made = run(folder, *RECIPE[:-1], changed)
    assert {stage.split()[0].split("__")[0] for stage in made} == {"lhuc"}


def test_the_features_and_speakers_are_those_of_the_rungs(climbed: Path) -> None:
    _, experiment = read_experiment(climbed)
    folder = experiment.folder
    space = load_feature_space(folder.space("lda_mllt"), 39)
    assert isinstance(space, SplicedLinear)
    for split in ("train", "heldout", "test"):
        cepstra, linear = (FeatureStore(folder.features(split, kind)) for kind in ("mfcc", "lda_mllt"))
        assert [u.id for u in cepstra.utterances] == [u.id for u in linear.utterances]
        utterance = cepstra.utterances[-1]
        expected = space.apply(torch.from_numpy(np.array(cepstra[utterance.id])), [utterance.frames]).numpy()
        np.testing.assert_allclose(linear[utterance.id], expected, atol=1e-4)
    moved = FeatureStore(folder.features("train", "fmllr_sat"))
    before = FeatureStore(folder.features("train", "lda_mllt"))
    assert set(moved.speakers) == set(FeatureStore(folder.features("train")).speakers)
    assert any(speaker.startswith("sp1.1-") for speaker in moved.speakers)
    for speaker, utterances in moved.speakers.items():
        rows = [np.concatenate([store[u.id] for u in utterances]).astype(np.float64) for store in (before, moved)]
        # One affine transform of each speaker's, and not the identity.
        inputs = np.concatenate([rows[0], np.ones((len(rows[0]), 1))], 1)
        transform = np.linalg.lstsq(inputs, rows[1], rcond=None)[0]
        np.testing.assert_allclose(inputs @ transform, rows[1], atol=1e-3, err_msg=speaker)
        assert not np.allclose(rows[0], rows[1], atol=0.01)


def test_the_speakers_of_the_passes_are_stacked_or_not(climbed: Path) -> None:
    _, experiment = read_experiment(climbed)
    for name, network in (("lhuc", "moved"), ("sat_lhuc__without_rows", "sat__without_rows")):
        speakers = load_speakers(experiment.network(network), experiment.folder.speakers("test", name))
        assert isinstance(speakers, Stacked)
        below = name.replace("lhuc", "fmllr")
        transforms = load_speakers(experiment.network(network), experiment.folder.speakers("test", below))
        assert isinstance(transforms, TransformedSpeakers)
        assert torch.equal(speakers.below.transforms.matrices, transforms.transforms.matrices)


def test_a_damaged_twin_is_named_by_the_pass_that_reads_it(climbed: Path, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(climbed, tmp_path / "exp"))
    _, experiment = read_experiment(folder)
    path = experiment.folder.unadapted_gmm("fmllr_sat")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{path.name}"):
        _ = experiment.alignment_model.gmms
    made = run(folder, *RECIPE)
    assert "fmllr_sat" in made
    assert len(experiment.alignment_model.gmms) == 2
