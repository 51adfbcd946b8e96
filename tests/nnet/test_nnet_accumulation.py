"""Mini-batches whose parts go through the network one after the other."""

from pathlib import Path

import pytest
import torch

from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, train

SHAPE = DnnConfig(hidden_layers=1, hidden_units=8, activation="relu", dropout=0.0, context=1)
WHOLE = TrainerConfig(
    batch_size=32, max_gradient_norm=0.3, schedule=NewbobConfig(learning_rate=0.05, max_epochs=6, stop_below=0.0)
)


def model() -> Dnn:
    untrained = Dnn(SHAPE, 2, 4)
    untrained.initialise(torch.Generator().manual_seed(0))
    return untrained


@pytest.mark.parametrize("steps", [2, 3, 1000])
def test_a_mini_batch_in_parts_is_the_same_step(steps: int, tmp_path: Path, make_source) -> None:
    """But for the order of its sums; also where a part would have less than a frame."""
    sources = make_source(0), make_source(1, 300)

    def trained(config: TrainerConfig, name: str) -> dict[str, torch.Tensor]:
        made = train(model(), *sources, config, tmp_path / name, 3, torch.device("cpu"), lambda figures: None)
        return made.state_dict()

    one = trained(WHOLE, "whole")
    other = trained(WHOLE.model_copy(update={"accumulation_steps": steps}), "parts")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0.0, atol=2e-5)
    assert any(not torch.equal(one[name], value) for name, value in model().named_parameters())
