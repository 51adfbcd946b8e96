"""Training in bfloat16, and on a GPU, agrees with training in float32 on the CPU; also at the paper's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corner_frames import PDFS, corner_frames

from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

# Without dropout, whose random numbers are other ones on a GPU.
SHAPE = DnnConfig(hidden_layers=3, hidden_units=64, activation="relu", context=1)
PAPER = DnnConfig(activation="sigmoid", context=1)
SCHEDULE = NewbobConfig(learning_rate=0.02, halve_below=0.0, max_epochs=4)
# Largest relative difference of a held-out loss. bfloat16 has 8 bits, so that an activation is off by at most 0.4 %.
FLOAT32, BFLOAT16 = 1e-3, 2e-2


class _KilledError(Exception):
    """Raised in place of a killed process."""


def losses(
    path: Path, device: str, precision: str, shape: DnnConfig = SHAPE, epochs: int = 4, kill_after: int = 0
) -> list[float]:
    """Held-out losses of the epochs that are left, and that of the average of the last ones."""
    model = Dnn(shape, 2, PDFS)
    model.initialise(torch.Generator().manual_seed(0))
    config = TrainerConfig.model_validate(
        {
            "batch_size": 32,
            "precision": precision,
            "average_epochs": 2,
            "schedule": SCHEDULE.model_copy(update={"max_epochs": epochs}),
        }
    )
    rows: list[dict[str, Any]] = []

    def on_epoch(row: dict[str, Any]) -> None:
        rows.append(row)
        if row.get("epoch") == kill_after:
            raise _KilledError

    sources = corner_frames(0, noise=0.2), corner_frames(1, 300, noise=0.2)
    trained = train(model, *sources, config, path, 3, torch.device(device), on_epoch)
    assert all(parameter.dtype == torch.float32 for parameter in trained.parameters())
    return [row["heldout_loss"] for row in rows]


@pytest.mark.parametrize(
    ("device", "precision", "tolerance"),
    [
        ("cpu", "bfloat16", BFLOAT16),
        pytest.param("cuda", "float32", FLOAT32, marks=pytest.mark.gpu),
        pytest.param("cuda", "bfloat16", BFLOAT16, marks=pytest.mark.gpu),
    ],
)
def test_devices_and_precisions_agree(tmp_path, device, precision, tolerance):
    expected = losses(tmp_path / "cpu", "cpu", "float32")
    found = losses(tmp_path / "other", device, precision)
    assert found == pytest.approx(expected, rel=tolerance)
    if precision == "bfloat16":
        assert found != expected
    assert expected[-1] < 0.7 * torch.log(torch.tensor(float(PDFS)))


@pytest.mark.gpu
def test_a_run_on_a_gpu_that_was_killed_is_resumed_there(tmp_path):
    """The file is read back to the device: the momentum, too, and the weights that are averaged."""
    whole = losses(tmp_path / "whole", "cuda", "float32")
    with pytest.raises(_KilledError):
        losses(tmp_path / "killed", "cuda", "float32", kill_after=2)
    assert losses(tmp_path / "killed", "cuda", "float32") == pytest.approx(whole[2:], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_papers_network_is_trained_on_a_cpu(tmp_path, precision):
    """6 x 2048 sigmoid units: 21 million weights, whose state is written, averaged and read back."""
    found = losses(tmp_path / "state", "cpu", precision, PAPER, epochs=1)
    assert found[0] < torch.log(torch.tensor(float(PDFS)))
    assert losses(tmp_path / "state", "cpu", precision, PAPER, epochs=1) == found[-1:]
