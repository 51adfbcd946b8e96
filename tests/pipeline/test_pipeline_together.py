"""Training in several processes that torchrun starts: what one gives, a lost process, and another number of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.tensors import load_tensors

NETWORKS = (
    "networks={sat: {}, adam: {optimizer: sgd, learning_rate: 0.1, row_zero_learning_rate: 0.01}, "
    "tdnn: {shape: {kind: tdnn, offsets: [[-1, 0, 1]], channels: 24, hidden_layers: 1, hidden_units: 32}}, "
    "smbr: {sequence: {epochs: 2, learning_rate: 0.0001, batch_frames: 400}}}",
    "passes={sat_lhuc: {network: sat}, adam_lhuc: {network: adam}, tdnn_lhuc: {network: tdnn}, lhuc: {network: smbr}}",
    "first_passes=[]",
    "controls=[]",
)
# Largest difference of a weight, of size 1 or so, after three epochs of some tens of steps: rounding of float32.
TOLERANCE = 2e-4


def command(processes: int, *arguments: str | Path) -> list[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*run, "-m", "lhuc_asr", *map(str, arguments)]


def together(processes: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(processes, *arguments), capture_output=True, text=True, timeout=240, check=False)


def networks(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    paths = [path for path in sorted((folder / "am").rglob("*.safetensors")) if "lattices" not in path.parts]
    return {path.relative_to(folder / "am").as_posix(): load_tensors(path)[0] for path in paths}


@pytest.fixture(scope="module")
def start(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment without networks."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("start") / "exp"))
    shutil.rmtree(folder / "am")
    for path in (folder / "stages").glob("network *"):
        path.unlink()
    return folder


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_what_one_gives(processes: int, start: Path, tiny_recipe: Path, run, tmp_path: Path) -> None:
    """They train on the same mini-batches, without dropout, so only the order of the sums differs."""
    alone, both = (Path(shutil.copytree(start, tmp_path / name / "exp")) for name in ("alone", "both"))
    run(alone, *NETWORKS)
    done = together(processes, "run", tiny_recipe, f"exp={both}", *NETWORKS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("All figures of the table") == 1
    assert done.stderr.count("INFO network sat ") == 1
    ours, theirs = networks(both), networks(alone)
    assert ours.keys() == theirs.keys()
    for name, tensors in theirs.items():
        for key, value in tensors.items():
            torch.testing.assert_close(ours[name][key], value, rtol=0.0, atol=TOLERANCE, msg=f"{name} {key}")
    for split in ("am/si", "am/sat", "am/smbr"):
        rows = [[r for r in read_json_lines(f / "metrics.jsonl") if r["stage"] == split] for f in (both, alone)]
        assert [r["train_loss"] for r in rows[0]] == pytest.approx([r["train_loss"] for r in rows[1]], abs=2e-5)
        assert [r["heldout_loss"] for r in rows[0]] == pytest.approx([r["heldout_loss"] for r in rows[1]], abs=2e-5)


@pytest.mark.gpu
def test_one_process_on_a_gpu_gives_what_a_plain_run_gives(start: Path, tiny_recipe: Path, run, tmp_path: Path) -> None:
    """To the bit, but for rows of speakers, whose gradients a GPU sums in an order that differs between runs."""
    plain, started = (Path(shutil.copytree(start, tmp_path / name / "exp")) for name in ("plain", "started"))
    run(plain, *NETWORKS, "device=cuda")
    done = together(1, "run", tiny_recipe, f"exp={started}", *NETWORKS, "device=cuda")
    assert done.returncode == 0, done.stderr
    ours, theirs = networks(started), networks(plain)
    assert ours.keys() == theirs.keys()
    for name, tensors in theirs.items():
        with_rows = name.startswith(("sat/", "adam/"))
        for key, value in tensors.items():
            torch.testing.assert_close(
                ours[name][key], value, rtol=0.0, atol=TOLERANCE if with_rows else 0.0, msg=f"{name} {key}"
            )


def test_a_lost_process_ends_all_and_another_number_goes_on(start: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(start, tmp_path / "exp"))
    endless = "trainer.schedule.stop_below=0", "trainer.schedule.halve_below=0", "trainer.schedule.max_epochs=400"
    arguments, earlier = ("run", tiny_recipe, f"exp={folder}", *endless), epochs(folder)
    with subprocess.Popen(command(2, *arguments), stderr=subprocess.PIPE, text=True) as running:
        try:
            while epochs(folder) < earlier + 3:
                assert running.poll() is None
                time.sleep(0.05)
            os.kill(children(running.pid)[1], signal.SIGKILL)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 1
    # torchrun tells the process that is left to end: it says so, or that it has lost the other, which comes first.
    (line,) = (line for line in told.splitlines() if line.startswith("lhuc-asr:"))
    lost = "process 0 of 2: the training together ended" in line and "Run again: it goes on from its last state" in line
    assert lost or line == "lhuc-asr: interrupted; the same command resumes it after the last finished stage"
    assert 3 <= epochs(folder) - earlier < 400
    done = together(3, *arguments)
    assert done.returncode == 0, done.stderr
    resumed = re.search(r"training resumes after epoch (\d+)", done.stderr)
    assert resumed is not None
    assert 3 <= int(resumed[1]) < 400
    last = [row for row in read_json_lines(folder / "metrics.jsonl") if row["stage"] == "am/si"][-1]
    assert last["epoch"] > int(resumed[1])


def epochs(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return sum(row["stage"] == "am/si" for row in map(json.loads, path.read_text().splitlines()) if "epoch" in row)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sorted(map(int, listed))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("aligners=[mono, tri]", "process 1 expected the stage 'triphones', and the first one is at 'network si'"),
        ("trainer.schedule.learning_rate=0.01", "process 1: the stage 'network si' has other options here than in"),
        ("exp={elsewhere}", "does not have the stage 'corpus' as the first process has made it; give exp= a folder"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(
    other: str, message: str, start: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    folder, elsewhere = (Path(shutil.copytree(start, tmp_path / name)) for name in ("exp", "elsewhere"))
    (elsewhere / "stages" / "corpus.json").unlink()
    script = tmp_path / "other.py"
    script.write_text(
        "import os, sys\n"
        "from lhuc_asr.base import followed_stages\n"
        "from lhuc_asr.cli.entry import main\n"
        "followed_stages.SEEN_SECONDS = 0.5\n"
        "if os.environ['RANK'] == '1':\n"
        f"    sys.argv.append({other.format(elsewhere=elsewhere)!r})\n"
        "main()\n"
    )
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*run, "run", str(tiny_recipe), f"exp={folder}"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert not (folder / "am" / "si" / "model.safetensors").exists()


@pytest.mark.parametrize("optimizer", ["row_adam", "adamw"])
def test_rankers_are_trained_together(optimizer: str, tmp_path: Path) -> None:
    small = "data.users=40", "data.examples=60", "data.heldout=20", "seeds=[1]", "rival=null", "primary=null"
    ppnet = "{kind: ppnet, hidden_units: [16], gate: {unseen_share: 0}}"
    models = f"models={{dnn: {{kind: dnn, hidden_units: [16]}}, ppnet: {ppnet}}}"
    trainer = f"trainer={{batch_size: 100, epochs: 3, embedding_optimizer: {optimizer}, embedding_l2: 0.01}}"
    arguments = "ppnet", "train", "ppnet_synthetic", *small, models, trainer
    alone = subprocess.run(
        [sys.executable, "-m", "lhuc_asr", *arguments, f"exp={tmp_path / 'alone'}"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    done = together(2, *arguments, f"exp={tmp_path / 'both'}")
    assert done.returncode == 0, done.stderr
    for name in ("dnn", "ppnet"):
        ours, theirs = (
            load_tensors(tmp_path / place / name / "1" / "ranker" / "network.safetensors")[0]
            for place in ("both", "alone")
        )
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=0.0, atol=1e-5, msg=f"{name} {key}")
