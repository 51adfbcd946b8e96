"""SAT-LHUC of time-delay and normalised networks: row 0 folded, and a resumed run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sat_training import AVERAGED, BUMPY, CALM, CPU, PDFS, SEED, sat_source, tables_of

from lhuc_asr.adapt.sat import SatConfig, fold_row_zero, train_speaker_adaptive
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import LayeredNetwork, NetworkShape
from lhuc_asr.nnet.tdnn import TdnnConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate

# Both see one frame on either side, as the source's splicing does; the lower layer of the second has two positions.
DNN = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", context=1)
TDNN = TdnnConfig(offsets=((0, 1), (-1, 0)), channels=16, hidden_units=16)
SHAPES: dict[str, NetworkShape] = {
    "dnn batch": DNN.model_copy(update={"normalisation": "batch"}),
    "dnn layer": DNN.model_copy(update={"normalisation": "layer"}),
    "tdnn": TDNN,
    "tdnn batch": TDNN.model_copy(update={"normalisation": "batch"}),
}
CONFIG = SatConfig(learning_rate=0.02)


def trained(
    name: str, path: Path, trainer: TrainerConfig = CALM, seed: int = 0, copies: Path | None = None
) -> tuple[SpeakerBank, list[dict[str, Any]]]:
    """Rows and the figures of each epoch; a copy of the state after each goes to ``copies``."""
    model, figures = SHAPES[name].make(2, PDFS), []
    model.initialise(torch.Generator().manual_seed(seed))

    def on_epoch(epoch: dict[str, Any]) -> None:
        figures.append(epoch)
        if copies is not None and "epoch" in epoch:
            shutil.copy(path, copies / str(epoch["epoch"]))

    return train_speaker_adaptive(
        model, sat_source(0), sat_source(1), CONFIG, trainer, path, SEED, CPU, on_epoch
    ), figures


def logits_of(bank: SpeakerBank, speaker: str, spliced: torch.Tensor) -> torch.Tensor:
    with bank.speaker(speaker), torch.no_grad():
        logits: torch.Tensor = bank.model(spliced)
    return logits


@pytest.mark.parametrize("name", SHAPES)
def test_the_folded_network_computes_what_was_trained(tmp_path, name):
    bank, figures = trained(name, tmp_path / "state")
    model, folded = fold_row_zero(bank)
    assert isinstance(model, LayeredNetwork)
    spliced = next(sat_source(2).in_order(100))[0]
    bank.attach()
    joint = {speaker: logits_of(bank, speaker, spliced) for speaker in ("", "ann", "bob", "cat")}
    bank.detach()
    assert not torch.allclose(bank.model(spliced), joint[""], atol=1e-3)
    torch.testing.assert_close(model(spliced), joint[""], rtol=1e-4, atol=1e-4)
    folded.attach()
    for speaker, expected in joint.items():
        torch.testing.assert_close(logits_of(folded, speaker, spliced), expected, rtol=1e-4, atol=1e-4)
    folded.detach()
    assert not torch.allclose(joint["ann"], joint["bob"], atol=1e-2)
    best = min(epoch["heldout_loss"] for epoch in figures)
    assert evaluate(model, sat_source(1), CPU).loss == pytest.approx(best, abs=2e-5)
    save_model(tmp_path / "model.safetensors", model)
    assert torch.equal(load_model(tmp_path / "model.safetensors")(spliced), model(spliced))


@pytest.mark.parametrize("trainer", [BUMPY, AVERAGED], ids=["bumpy", "averaged"])
@pytest.mark.parametrize("name", ["dnn batch", "tdnn batch"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(tmp_path, name, trainer):
    (tmp_path / "copies").mkdir()
    bank, figures = trained(name, tmp_path / "state", trainer, copies=tmp_path / "copies")
    expected = {**bank.model.state_dict(), **dict(enumerate(tables_of(bank)))}
    for epoch in range(1, sum("epoch" in each for each in figures) + 1):
        resumed, _ = trained(name, tmp_path / "copies" / str(epoch), trainer, seed=99)
        again = {**resumed.model.state_dict(), **dict(enumerate(tables_of(resumed)))}
        assert again.keys() == expected.keys()
        assert all(torch.equal(again[key], expected[key]) for key in expected), f"after epoch {epoch}"
