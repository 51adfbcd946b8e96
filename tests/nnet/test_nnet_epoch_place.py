"""Runs that are killed within an epoch: they go on there and end with the same bits; other states are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corner_training import AVERAGED, CALM, DECAYING, KilledError, Run, corner_model, same
from watched_frames import watched

from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.loader import MiniBatch


@pytest.fixture
def every_block(monkeypatch):
    """Blocks of a hundred frames, and a state after each."""
    monkeypatch.setattr("lhuc_asr.nnet.frames.BLOCK_FRAMES", 100)
    monkeypatch.setattr("lhuc_asr.nnet.epoch_place.SECONDS", -1.0)


def _killed_at(source: FrameSource, where: tuple[int, int]) -> FrameSource:
    """Kills the process at a mini-batch of an epoch."""

    def kill(epoch: int, number: int, batch: MiniBatch) -> None:
        if (epoch, number) == where:
            raise KilledError

    return watched(source, kill)


# Blocks of 200, 300 and 100 frames are 7, 10 and 4 mini-batches, in another order in each epoch. When the eleventh has
# been taken, a block is done.
@pytest.mark.parametrize("config", [CALM, DECAYING, AVERAGED], ids=["calm", "decaying", "averaged"])
@pytest.mark.parametrize("where", [(0, 1), (1, 11), (2, 20)], ids=str)
def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(tmp_path, make_source, every_block, where, config):
    training, heldout = make_source(0), make_source(1, 300)
    whole = Run(tmp_path / "whole", training, heldout, config)
    expected = whole()
    killed = Run(tmp_path / "killed", _killed_at(training, where), heldout, config)
    with pytest.raises(KilledError):
        killed()
    assert (tmp_path / "killed-within").exists() == (where != (0, 1))
    read: list[tuple[int, int]] = []
    rest = watched(training, lambda epoch, number, batch: read.append((epoch, number)))
    resumed = Run(tmp_path / "killed", rest, heldout, config)
    assert same(resumed(model=corner_model(seed=99)), expected)
    losses = [[figures["train_loss"] for figures in run.epochs if "epoch" in figures] for run in (resumed, whole)]
    assert losses[0] == losses[1][where[0] :]
    steps = sum(1 for _ in training.shuffled(32, torch.Generator()))
    in_the_first = sum(1 for epoch, _ in read if epoch == 0)
    assert in_the_first == steps if where == (0, 1) else in_the_first < steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_a_state_within_an_epoch_that_has_ended_is_not_gone_on_from(tmp_path, make_source, every_block):
    """A run was killed between the two steps at the end of an epoch: its state was written, the other not deleted."""
    training, heldout = make_source(0), make_source(1, 300)
    expected = Run(tmp_path / "whole", training, heldout, CALM)()
    with pytest.raises(KilledError):
        Run(tmp_path / "killed", _killed_at(training, (1, 11)), heldout, CALM)()
    left = (tmp_path / "killed-within").read_bytes()
    with pytest.raises(KilledError):
        Run(tmp_path / "killed", training, heldout, CALM)(kill_after=2)
    (tmp_path / "killed-within").write_bytes(left)
    assert same(Run(tmp_path / "killed", training, heldout, CALM)(), expected)


@pytest.mark.parametrize("fault", ["damaged", "place", "generator", "dropout", "other frames"])
def test_a_state_within_an_epoch_that_does_not_fit_is_refused(tmp_path, make_source, every_block, fault):
    training, heldout = make_source(0), make_source(1, 300)
    with pytest.raises(KilledError):
        Run(tmp_path / "state", _killed_at(training, (1, 11)), heldout, CALM)()
    path = tmp_path / "state-within"
    tensors, description = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    elif fault == "other frames":
        training = replace(training, utterances=training.utterances[:1])
    else:
        names = {"place": "batches.place", "generator": "batches.generator", "dropout": "random.0.dropout.0"}
        name = f"place.{names[fault]}"
        tensors[name] = tensors[name][:1]
        save_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match="delete it to train from the beginning of the epoch"):
        Run(tmp_path / "state", training, heldout, CALM)()


def test_processes_that_are_killed_within_an_epoch_end_with_the_same_bits(tmp_path):
    """Each has masks of its own, which the first process keeps for all."""
    here = Path(__file__).parent
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])

    def train(folder, kill_at):
        folder.mkdir(exist_ok=True)
        command = [*torchrun, str(here / "rank_training.py"), str(folder), str(kill_at)]
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert (done.returncode == 0) == (kill_at == 0), done.stderr
        return folder

    # The second epoch, after one of its blocks.
    killed = train(tmp_path / "killed", 21 + 12)
    assert (killed / "state-within").exists()
    train(killed, 0)
    whole = train(tmp_path / "whole", 0)
    assert (killed / "network").read_bytes() == (whole / "network").read_bytes()
    assert (killed / "state").read_bytes() == (whole / "state").read_bytes()
    # Not even the block that had been done was read again.
    steps = [int((folder / "steps").read_text()) for folder in (killed, whole)]
    assert steps[1] - 21 - 10 <= steps[0] <= steps[1] - 21 - 4
