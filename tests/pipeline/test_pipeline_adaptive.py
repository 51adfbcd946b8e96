"""The stage of SAT-LHUC: what it leaves in the network's folder, and that all of it fits together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.an4 import An4Source
from lhuc_asr.features.context import Context
from lhuc_asr.features.store import write_store
from lhuc_asr.hmm.alignment import write_alignment
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lang.phones import PhoneSet
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.schedule import NewbobConfig
from lhuc_asr.nnet.trainer import TrainerConfig, evaluate
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Aligned, Experiment
from lhuc_asr.pipeline.networks import NetworkOptions, network_stage

TRAINER = TrainerConfig(batch_size=32, schedule=NewbobConfig(max_epochs=2))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Features and alignments of three training speakers, one of them at two speeds, and of a held-out one."""
    folder = ExperimentFolder(tmp_path)
    topology = MonophoneTopology.initial(PhoneSet(("SIL",), ("A",)))
    generator = np.random.default_rng(0)
    for split, speakers in (("train", ["ann", "bob", "sp0.9-ann"]), ("heldout", ["cat"])):
        pdfs = {f"{speaker}-1": generator.integers(topology.pdf_count, size=80) for speaker in speakers}
        items = [
            (f"{speaker}-1", speaker, np.eye(8, 10)[pdfs[f"{speaker}-1"]] + 0.3 * generator.standard_normal((80, 10)))
            for speaker in speakers
        ]
        store = write_store(folder.features(split), items, 10)
        write_alignment(folder.alignment("mono", split), store, pdfs)
    topology.save(folder.topology("mono"))
    config = ExperimentConfig(name="x", exp=folder.folder, corpus=An4Source(dir=tmp_path), realignments=0, workers=1)
    return Experiment.of(config)


def test_the_network_and_its_training_speakers_lie_side_by_side(experiment: Experiment) -> None:
    dnn = DnnConfig(hidden_layers=2, hidden_units=16, activation="relu", dropout=0.2, context=1)
    options = NetworkOptions(dnn, TRAINER, 10, seed=1, sat=SatConfig(learning_rate=0.02))
    folder = experiment.folder.network("sat").parent
    (folder / "speakers").mkdir(parents=True)
    (folder / "speakers" / "of-an-earlier-run.safetensors").write_bytes(b"")
    stages = Stages(experiment.folder.folder, experiment.folder.metrics)
    stages.run("mono", lambda _: None, options=None)
    network_stage(stages, experiment, "sat", options, Aligned("mono", "mono"))

    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "speakers"]
    model = load_model(folder / "model.safetensors")
    bank = SpeakerBank.load(folder / "speakers", model)
    assert bank.speakers == ("ann", "bob", "sp0.9-ann")
    # The held-out loss in the log is what the saved network, by itself, gives: it was measured with row 0.
    store = experiment.features("heldout")
    targets = np.fromfile(experiment.folder.alignment("mono", "heldout"), np.int32)
    source = FrameSource(store.array, targets, store.utterances, Context.both(1))
    evaluation = evaluate(model, source, torch.device("cpu"))
    logged = [
        row["heldout_loss"] for row in read_json_lines(experiment.folder.metrics.path) if row["stage"] == "am/sat"
    ]
    assert len(logged) == 2
    assert evaluation.loss == pytest.approx(min(logged), abs=2e-5)
    # Priors are the alignment's, as for any network that decodes; a pseudo-count moves them by a little.
    counts = np.bincount(np.fromfile(experiment.folder.alignment("mono", "train"), np.int32), minlength=8)
    assert model.log_prior.exp().tolist() == pytest.approx((counts / counts.sum()).tolist(), abs=0.005)
    assert counts.max() - counts.min() > 5


def test_a_network_that_goes_on_from_si_begins_as_si_and_is_searched_as_si(copied: Path, run) -> None:
    """With steps of no length it ends as si too: other weights, another search or a lost prior would show."""
    still = "networks={sat: {start: si, learning_rate: 1e-12, schedule: {learning_rate: 1e-12, max_epochs: 1}}}"
    made = run(copied, still, "passes={lhuc: {}, sat_lhuc: {network: sat}}", "controls=[others_mean, without_rows]")
    assert [stage for stage in made if "sat" in stage] == [
        "network sat",
        "network sat__without_rows",
        *(
            f"{name} over {split}"
            for split in ("test", "control")
            for name in (
                "sat_si", "sat__without_rows_si", "sat_lhuc", "sat_lhuc__others_mean", "sat_lhuc__without_rows",
            )
        ),
    ]  # fmt: skip
    si, *others = (
        load_model(copied / "am" / name / "model.safetensors").state_dict()
        for name in ("si", "sat", "sat__without_rows")
    )
    for other in others:
        for name, weights in si.items():
            torch.testing.assert_close(other[name], weights, rtol=0, atol=1e-6)
    for split in ("test", "control"):
        decoded = copied / "decode" / split
        for name in ("hypotheses.jsonl", "search.json"):
            for other in ("sat_si", "sat__without_rows_si"):
                assert (decoded / other / name).read_bytes() == (decoded / "si" / name).read_bytes()
    rows = read_json(copied / "decode" / "test" / "comparison.json")
    controls = {name for name, row in rows.items() if row["role"] == "control"}
    assert controls == {"sat__without_rows_si", "sat_lhuc__without_rows", "lhuc__others_mean", "sat_lhuc__others_mean"}
    # The same settings from random weights are another network.
    run(copied, still.replace("start: si, ", ""), "passes={lhuc: {}, sat_lhuc: {network: sat}}")
    random = load_model(copied / "am" / "sat" / "model.safetensors").state_dict()
    assert not torch.allclose(random["output.weight"], si["output.weight"], atol=1e-2)


def test_the_control_of_a_network_is_trained_as_often_without_rows(copied: Path, run) -> None:
    """Other weights than the network with rows, by as many epochs, from the same start."""
    trained = "networks={sat: {start: si, schedule: {learning_rate: 0.01, max_epochs: 2, stop_below: 0}}}"
    run(copied, trained, "passes={sat_lhuc: {network: sat}}", "controls=[without_rows]")
    epochs = [row["stage"] for row in read_json_lines(copied / "metrics.jsonl") if "epoch" in row]
    assert epochs.count("am/sat") == epochs.count("am/sat__without_rows") == 2
    si, sat, plain = (
        load_model(copied / "am" / name / "model.safetensors").state_dict()["output.weight"]
        for name in ("si", "sat", "sat__without_rows")
    )
    assert not torch.allclose(plain, si)
    assert not torch.allclose(plain, sat)
    # Without a network to start from, si is the control.
    executed = run(copied, trained.replace("start: si, ", ""), "passes={sat_lhuc: {network: sat}}")
    assert not any("without_rows" in stage for stage in executed)
