"""Sequence training in a recipe: lattices and references of the training recordings, and what is trained on them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.n_best import best_paths
from lhuc_asr.decode.word_lattice import WordLatticeConfig, determinized
from lhuc_asr.hmm.alignment import UNALIGNED, Alignment
from lhuc_asr.nnet.lattice_store import LatticeStore
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.pipeline.curves import epoch_of
from lhuc_asr.pipeline.earlier_pass import tuned_search
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.sequence_networks import sequence_stages

# Twice the recordings, of which the lattices are those at their own speed; a network that takes vectors.
SPEEDS = (
    "speeds=[1.0, 1.1]",
    """networks={
      voices: {ivector: {background: {gaussians: 8, iterations: 4, growing_iterations: 2}, extractor: {dimension: 2}}},
      mmi: {start: voices, lm_order: 2, sequence: {objective: mmi, epochs: 1}}
    }""",
    "passes={lhuc: {}, mmi: {network: mmi, method: {kind: ivector}}}",
)


@pytest.fixture
def experiment(ladder: Path) -> AlignedExperiment:
    return read_experiment(ladder)[1]


def test_each_recording_has_the_word_lattice_of_a_weak_language_model(
    ladder: Path, experiment: AlignedExperiment
) -> None:
    config, _ = read_experiment(ladder)
    search = tuned_search(experiment, passes_of(config)["si"])
    graph, model = DecodingGraph.load(ladder / "lang" / "order1"), experiment.network("si")
    searcher = LatticeSearcher(graph, search, LatticeConfig())
    for split in (TRAIN, HELDOUT):
        store = LatticeStore(ladder / "am" / "smbr" / "lattices" / split)
        features = experiment.features(split)
        assert sorted(store) == sorted(utterance.id for utterance in experiment.utterances(split))
        for name in list(store)[:4]:
            states = searcher.search(name, score_utterance(model, features[name]))
            expected, written = determinized(name, states, WordLatticeConfig()), store[name]
            np.testing.assert_array_equal(written.graph_cost, expected.graph_cost)
            np.testing.assert_array_equal(written.pdf, expected.pdf)
            assert written.frames == len(features[name])


def test_the_network_aligns_the_references(ladder: Path, experiment: AlignedExperiment) -> None:
    """Where the best path of a lattice has the words that were said, it is mostly the reference, pdf by pdf."""
    config, _ = read_experiment(ladder)
    search = tuned_search(experiment, passes_of(config)["si"])
    graph, model = DecodingGraph.load(ladder / "lang" / "order1"), experiment.network("si")
    searcher, features = LatticeSearcher(graph, search, LatticeConfig()), experiment.features(TRAIN)
    references = Alignment(ladder / "am" / "smbr" / "lattices" / "train.ali", features, model.pdf_count)
    right = []
    for utterance in experiment.utterances(TRAIN):
        lattice = determinized(
            "u", searcher.search("u", score_utterance(model, features[utterance.id])), WordLatticeConfig()
        )
        path, _ = best_path(lattice)
        if lattice.words_of(path, graph.words) == tuple(utterance.words):
            right.append(float((lattice.pdfs_of(path) == references[utterance.id]).mean()))
    assert len(right) > 3
    assert np.mean(right) > 0.95


def test_the_references_are_paths_of_the_lattices(ladder: Path, experiment: AlignedExperiment) -> None:
    """Where a lattice has the words of the transcript, its best path with these words is the reference."""
    words, model = DecodingGraph.load(ladder / "lang" / "order1").words, experiment.network("si")
    config, _ = read_experiment(ladder)
    search = tuned_search(experiment, passes_of(config)["si"])
    searcher = LatticeSearcher(DecodingGraph.load(ladder / "lang" / "order1"), search, LatticeConfig())
    features = experiment.features(TRAIN)
    references = Alignment(ladder / "am" / "smbr" / "lattices" / "train.ali", features, model.pdf_count)
    there, inside = 0, 0
    for utterance in experiment.utterances(TRAIN):
        states = searcher.search("u", score_utterance(model, features[utterance.id]))
        lattice = determinized("u", states, WordLatticeConfig())
        for path in best_paths(lattice, 2000):
            if lattice.words_of(path.arcs, words) == tuple(utterance.words):
                there += 1
                inside += np.array_equal(lattice.pdfs_of(path.arcs), references[utterance.id])
    assert there > 10
    assert inside >= 0.9 * there  # the graph's costs are rounded


class Declared(Stages):
    """Stages whose work is kept, and not run."""

    def run(self, name: str, work: Any, *, options: Any, **others: Any) -> None:
        self._keys[name] = name
        self.work = getattr(self, "work", {}) | {name: partial(work, options)}


class ReachedError(Exception):
    """Training would begin."""


def test_training_has_the_scale_of_the_search_the_references_and_one_class_of_silence(
    ladder: Path, experiment: AlignedExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = read_experiment(ladder)
    stages = Declared(ladder, Metrics(ladder / "none.jsonl"))
    sequence_stages(stages, experiment, config, "smbr", passes_of(config), "aligner")
    given: dict[str, Any] = {}

    def noted(*arguments: Any) -> None:
        given.update(zip(("model", "training", "heldout", "config", "scale"), arguments, strict=False))
        raise ReachedError

    monkeypatch.setattr("lhuc_asr.pipeline.sequence_networks.train_sequences", noted)
    with pytest.raises(ReachedError):
        stages.work["network smbr"]()
    search = read_json(ladder / "decode" / "heldout" / "si" / "search.json")["chosen"]
    assert given["scale"] == search["acoustic_scale"] < 1.0
    assert given["config"] == config.networks["smbr"].sequence
    count, silence = experiment.topology.pdf_count, experiment.topology.silence_pdfs
    assert len(silence) > 1
    for split, source in ((TRAIN, given["training"]), (HELDOUT, given["heldout"])):
        classes = source.classes
        assert set(classes[silence]) == {silence[0]}
        assert len(set(classes)) == count - len(silence) + 1
        references = Alignment(ladder / "am" / "smbr" / "lattices" / f"{split}.ali", experiment.features(split), count)
        np.testing.assert_array_equal(source.frames.targets, references.array)


def test_the_network_goes_on_from_the_other(ladder: Path, experiment: AlignedExperiment) -> None:
    start, trained = experiment.network("si"), experiment.network("smbr")
    rows = read_json_lines(ladder / "metrics.jsonl")
    epochs = [row for row in rows if row["stage"] == "am/smbr" and "epoch" in row]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert torch.equal(start.log_prior, trained.log_prior)
    before, after = (torch.nn.utils.parameters_to_vector(each.parameters()).detach() for each in (start, trained))
    assert torch.equal(before, after) == (not any(row["kept"] for row in epochs))
    assert float(torch.nn.functional.cosine_similarity(before, after, dim=0)) > 0.9
    rows = [row for row in read_json_lines(ladder / "metrics.jsonl") if row["stage"] == "am/smbr"]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["heldout_loss"] == pytest.approx(1.0 - row["heldout_accuracy"], abs=1e-4) for row in rows)
    # The search is tuned anew: scores that a sequence objective has sharpened need another scale.
    assert (ladder / "decode" / "heldout" / "smbr_si" / "search.json").is_file()


def test_recordings_at_other_speeds_take_no_part_and_vectors_do(finished: Path, run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "exp"))
    stages = run(folder, *SPEEDS)
    assert stages.index("lattices of mmi") > stages.index("voices_si over heldout")
    experiment = read_experiment(folder)[1]
    store = LatticeStore(folder / "am" / "mmi" / "lattices" / TRAIN)
    utterances = experiment.utterances(TRAIN)
    assert sorted(store) == sorted(utterance.id for utterance in utterances)
    features = experiment.features(TRAIN)
    assert len(features.utterances) == 2 * len(utterances)
    references = Alignment(folder / "am" / "mmi" / "lattices" / "train.ali", features, store.pdf_count)
    for utterance in features.utterances:
        assert (references[utterance.id] == UNALIGNED).all() == (utterance.id not in store)
    network = experiment.network("mmi")
    assert network.vector_dimension == 2
    assert torch.equal(network.vectors.by_name()["loading"], experiment.network("voices").vectors.by_name()["loading"])
    assert (folder / "decode" / "test" / "mmi" / "wer.json").is_file()


def test_curves_of_sequence_training_are_not_called_cross_entropy(ladder: Path) -> None:
    rows = [row for row in read_json_lines(ladder / "metrics.jsonl") if row["stage"] in ("am/smbr", "am/si")]
    named = {row["stage"]: set(epoch_of(row).scalars) for row in rows}
    shared = {"learning rate", "seconds of an epoch", "frame error/held out"}
    assert named["am/smbr"] == {"smbr/training", "smbr/held out"} | shared
    assert named["am/si"] == {"cross-entropy/training", "cross-entropy/held out"} | shared


def test_a_pass_of_another_network_is_also_compared_with_its_first_pass(ladder: Path) -> None:
    """With ``si`` alone the gain of the network and that of the speaker could not be told apart."""
    decode = ladder / "decode" / "test"
    rows = read_json(decode / "comparison.json")
    for name, first in (("smbr", "smbr_si"), ("delayed", "delayed_si"), ("ivector", "voices_si")):
        assert rows[name]["base"] == "si"
        ((reference, row),) = rows[name]["also_against"].items()
        assert reference == first
        wer = [read_json(decode / each / "wer.json")["wer"] for each in (first, name)]
        assert [row["before"], row["after"]] == pytest.approx(wer)
    assert rows["lhuc"]["also_against"] == {}
