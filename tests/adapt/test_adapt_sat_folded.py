"""The folded network of SAT-LHUC: it computes what was trained, and is what new speakers adapt."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sat_training import CPU, sat_model, sat_source, tables_of, train_sat

from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.sat import SatConfig, fold_row_zero
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.errors import FoldError, ModelMismatchError
from lhuc_asr.features.context import splice
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model, save_model
from lhuc_asr.nnet.trainer import evaluate


@pytest.mark.parametrize("xi", ["exp", "identity"])
def test_the_folded_network_computes_what_was_trained(tmp_path, xi):
    figures: list[dict[str, Any]] = []
    bank = train_sat(tmp_path / "state", SatConfig(amplitude=xi, learning_rate=0.02), epochs=figures)
    model, folded = fold_row_zero(bank)
    spliced = next(sat_source(2).in_order(100))[0]
    bank.attach()
    joint = {name: _logits(bank, name, spliced) for name in ("", "ann", "bob", "cat")}
    # Outside any context: row 0, as in the evaluation that steers newbob.
    assert torch.equal(bank.model(spliced), joint[""])
    bank.detach()
    assert not torch.allclose(bank.model(spliced), joint[""], atol=1e-3)
    assert torch.allclose(model(spliced), joint[""], atol=1e-5)
    folded.attach()
    assert torch.equal(_logits(folded, "", spliced), model(spliced))
    for name, expected in joint.items():
        assert torch.allclose(_logits(folded, name, spliced), expected, atol=1e-5)
    assert not torch.allclose(joint["ann"], joint["bob"], atol=1e-2)
    best = min(f["heldout_loss"] for f in figures)
    folded.detach()
    assert evaluate(model, sat_source(1), CPU).loss == pytest.approx(best, abs=2e-5)


def _logits(bank: SpeakerBank, speaker: str, spliced: torch.Tensor) -> torch.Tensor:
    with bank.speaker(speaker), torch.no_grad():
        logits: torch.Tensor = bank.model(spliced)
    return logits


def test_a_new_speaker_on_the_folded_network_starts_at_row_zero(tmp_path):
    """Adapting the folded network from neutral is adapting the trained one from row 0: r = r_0 + r'."""
    bank = train_sat(tmp_path / "state", SatConfig(learning_rate=0.02))
    model, _ = fold_row_zero(bank)
    source = sat_source(4, {"new": (3.0, 0.5)}, 60)
    pdfs = np.maximum(source.targets, 0)
    frames = SpeakerData(source.features, (60,), FrameTargets.certain(pdfs, np.ones(60, np.float32)))
    adapted = (
        Lhuc(LhucConfig(preset="paper", learning_rate=0.8, batch_size=60, sweeps=3))
        .estimate(model, {"new": frames}, 1)
        .bank
    )

    bank.add(["new"])
    bank.attach()
    optimizer = bank.optimizer("sgd", lr=0.8)
    for _ in range(3):
        with bank.speaker("new"):
            logits = bank.model(splice(torch.from_numpy(source.features), 1))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(pdfs).long()).backward()
        optimizer.step()
    for ours, theirs in zip(tables_of(bank), tables_of(adapted), strict=True):
        assert torch.allclose(ours[-1], ours[0] + theirs[1], atol=1e-5)
        assert float(theirs[1].abs().max()) > 0.01


def test_the_training_speakers_files_belong_to_the_folded_network(tmp_path):
    bank = train_sat(tmp_path / "state", SatConfig(learning_rate=0.02))
    model, folded = fold_row_zero(bank)
    save_model(tmp_path / "model.safetensors", model)
    folded.save(tmp_path / "speakers")
    read = SpeakerBank.load(tmp_path / "speakers", load_model(tmp_path / "model.safetensors"))
    assert read.speakers == ("ann", "bob", "cat")
    assert all(map(torch.equal, tables_of(read), tables_of(folded)))
    with pytest.raises(ModelMismatchError):
        SpeakerBank.load(tmp_path / "speakers", bank.model)


def test_what_cannot_be_divided_is_refused():
    squashed = attach(sat_model().eval(), "hidden.*.activation", ["ann"], amplitude="2sigmoid")
    with pytest.raises(FoldError, match="'2sigmoid' cannot be divided by row 0's; train with exp or identity"):
        fold_row_zero(squashed)
    silent = attach(sat_model().eval(), "hidden.*.activation", ["ann"], amplitude="identity")
    with torch.no_grad():
        silent.tables[1][0, 5] = 0.0
    with pytest.raises(FoldError, match=r"site 'hidden\.1\.activation': row 0 has an amplitude of 0"):
        fold_row_zero(silent)
    broken = attach(sat_model().eval(), "hidden.*.activation", ["ann"])
    with torch.no_grad():
        broken.tables[0][1, 5] = math.nan
    with pytest.raises(FoldError, match=r"site 'hidden\.0\.activation': .* a row is not finite"):
        fold_row_zero(broken)
