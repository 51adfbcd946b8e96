"""Cross-validation: folds that run side by side come to what they come to one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.run import run_recipe

RunFolds = Callable[..., Path]

# Four times the whole recipe: folds differ in their speakers, however small the models are.
SMALL = (
    "monophone={iterations: 2, growing_iterations: 1, gaussians: 60}",
    "trainer.schedule.max_epochs=1",
    "tuning.acoustic_scales=[0.1]",
    "search.beam=6",
)


@pytest.fixture
def run_folds(finished: Path, tiny_recipe: Path, tmp_path: Path) -> RunFolds:
    """Run the tiny recipe in two folds over all its voices; returns the experiment's folder."""
    source = (
        f"corpus={{kind: librispeech, dir: {next(finished.glob('voices-*'))}, train: [train, test], test: [control]}}"
    )

    def run_in(name: str, *overrides: str) -> Path:
        overrides = (f"exp={tmp_path / name}", source, "folds=2", "lexicon.language=en-us", *SMALL, *overrides)
        run_recipe(load_config(ExperimentConfig, tiny_recipe / "config.yaml", overrides))
        return tmp_path / name

    return run_in


def test_folds_side_by_side_are_those_one_after_the_other(
    run_folds: RunFolds, finished: Path, package_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    one = run_folds("one", "workers=1")
    package_log.setLevel(logging.INFO)
    capfd.readouterr()
    two = run_folds("two", "workers=2")
    log = capfd.readouterr().err
    # Each line says whose it is.
    for fold in (1, 2):
        assert f"INFO fold {fold}: network si" in log
        assert f"INFO fold {fold}: test, lhuc: WER" in log
    written = {path.relative_to(one) for path in one.rglob("*") if path.name in ("wer.json", "hypotheses.jsonl")}
    written |= {path.relative_to(one) for path in one.rglob("speakers/*/*/*.safetensors")}
    assert len(written) > 20
    for path in written:
        assert (two / path).read_bytes() == (one / path).read_bytes(), path
    # Every speaker is tested once, by the network of the fold that has not heard them.
    everybody = {
        utterance.speaker
        for split in ("train", "heldout", "test", "control")
        for utterance in read_manifest(finished / f"corpus/{split}.jsonl")
    }
    assert set(read_json(two / "decode/test/lhuc/wer.json")["speakers"]) == everybody
    for fold in ("fold1", "fold2"):
        tested = set(read_json(two / fold / "decode/test/lhuc/wer.json")["speakers"])
        heard = {
            u.speaker for split in ("train", "heldout") for u in read_manifest(two / fold / f"corpus/{split}.jsonl")
        }
        assert not tested & heard
        assert tested | heard == everybody


def test_what_is_wrong_in_a_fold_is_told_as_it_is_without_folds(run_folds: RunFolds) -> None:
    told = []
    for name in ("one", "two"):
        with pytest.raises(CorpusError) as caught:
            run_folds(name, f"workers={1 if name == 'one' else 2}", "heldout_speakers=7")
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "heldout_speakers" in told[0]
