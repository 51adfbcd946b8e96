"""Looks: the passes that they can be made of, and the memory and the device that they need."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shift_method import ShiftConfig

from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.adapt.two_pass import Scores, TwoPass
from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.study import looks
from lhuc_asr.study.looks import LOOKS
from lhuc_asr.study.run import pass_to_look_at, run_benchmark


def test_looks_at_amplitudes_need_a_pass_that_estimates_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "shift", ShiftConfig)

    def chosen(passes: str, name: str | None, look: str) -> str:
        config = load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [f"passes={passes}"])
        return pass_to_look_at(config, name, LOOKS[look])

    both = "{shifted: {method: {kind: shift}}, lhuc: {}}"
    assert chosen(both, None, "gains") == "shifted"
    for look in ("spread", "tsne"):
        assert chosen(both, None, look) == "lhuc"
        with pytest.raises(ConfigError, match="'shifted' does not estimate amplitudes; passes that do: lhuc"):
            chosen(both, "shifted", look)
        with pytest.raises(ConfigError, match="no pass of the recipe estimates amplitudes; passes that do: none, add"):
            chosen("{shifted: {method: {kind: shift}}}", None, look)


def test_frames_holds_the_scores_of_one_utterance_at_a_time(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    second_pass = TwoPass.second_pass

    def adapted(*arguments: Any) -> Iterator[Scores]:
        for scores in second_pass(*arguments):
            order.append("adapted")
            yield scores

    def unadapted(model: AcousticModel, features: np.ndarray) -> np.ndarray:
        order.append("unadapted")
        return score_utterance(model, features)

    monkeypatch.setattr(TwoPass, "second_pass", adapted)
    monkeypatch.setattr(looks, "score_utterance", unadapted)
    run_benchmark(copied, ["frames"])
    assert "unadapted" in order
    assert ("unadapted", "unadapted") not in pairwise(["unadapted", *order])


@pytest.mark.gpu
def test_the_top_layer_is_computed_where_the_network_is() -> None:
    model = Dnn(DnnConfig(hidden_layers=2, hidden_units=4, context=0), 3, 5).eval().requires_grad_(False)
    spliced = torch.ones(2, 3)
    on_cpu = looks._top_layer(model, spliced)
    np.testing.assert_allclose(looks._top_layer(model.to("cuda"), spliced), on_cpu, atol=1e-5)


def test_scales_are_those_of_the_tuning_and_the_tuned_one_gives_the_pass_errors(copied: Path) -> None:
    (folder,) = run_benchmark(copied, ["scale"]).values()
    rows = list(read_json_lines(folder / "table.jsonl"))
    chosen = read_json(copied / "decode" / "heldout" / "si" / "search.json")["chosen"]["acoustic_scale"]
    for split in ("test", "control"):
        for name in ("si", "lhuc", "lhuc__others_mean"):
            own = {row["acoustic_scale"]: row for row in rows if (row["split"], row["pass"]) == (split, name)}
            assert list(own) == [0.1, 0.2]
            wer = read_json(copied / "decode" / split / name / "wer.json")
            assert (own[chosen]["errors"], own[chosen]["words"]) == (wer["errors"], wer["words"])
    assert len(rows) == 2 * 3 * 2
    assert {path.name for path in folder.glob("*.png")} == {"test.png", "control.png"}
