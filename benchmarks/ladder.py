"""The ladder of an experiment: times of its rungs and trees, alignment, times and memory of its graphs, search.

    python benchmarks/ladder.py [EXPERIMENT]        # exp/an4 unless given

The seconds of the rungs are those that the run noted, with its workers and on its machine, busy or not. The rest is
measured, on one core. Aims: in all no more than Kaldi's scripts took on two idle cores (AN4 at one speed 144 s; 5.6
hours of LibriSpeech 141, 187, 255 and 306 s), a tree in less than a minute, a graph of 20,000 words in less than
three minutes and 2.5 GB, a search in at most 0.013 of real time. Each graph is built in a process of its own, since a
process does not give its peak of memory back.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from timing import show

from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.units import frames_of
from lhuc_asr.corpus.splits import TRAIN
from lhuc_asr.decode.graph import build_graph
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.hmm.aligner import transcript_graphs
from lhuc_asr.hmm.gaussian_features import StoredFeatures
from lhuc_asr.hmm.monophone import MonophoneConfig
from lhuc_asr.hmm.tree_building import build_tree
from lhuc_asr.hmm.triphone_training import AlignedModel, TriphoneConfig, tree_statistics
from lhuc_asr.hmm.viterbi import BEAM, best_path
from lhuc_asr.lang.language_model import ARPA_FILE
from lhuc_asr.pipeline.acoustic_models import features_of_rung
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import tuned_search, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.order import graphs_of
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.rungs import read_model, rung_stage, training_data

GIGABYTE = 1e9
# Number of utterances that are aligned, or a few more.
ALIGNED = 500


def main(path: Path) -> None:
    """Measure an experiment that is finished."""
    torch.set_num_threads(1)
    try:
        config, experiment = read_experiment(path)
    except (LhucError, FileNotFoundError) as error:
        sys.exit(f"{error}\nrun a recipe first, or name another experiment: benchmarks/ladder.py exp/demo")
    show(f"Rungs of {path.name}, as noted", ["rung", "s"], list(noted(config, experiment)))
    show("Trees on one core", ["rung", "frames", "statistics, s", "tree, s"], list(trees(config, experiment)))
    show(
        f"Alignment on one core: a beam of {BEAM:g} nats against a search of all paths, scores not counted",
        ["rung", "utterances", "with another path", "of the time"],
        list(beams(config, experiment)),
    )
    show("Graphs on one core", ["states of", "s", "peak, GB"], list(graphs(config, experiment)))
    show(
        "First passes on one core, of real time",
        ["pass", "speech, min", "scores", "search"],
        list(first_passes(config, experiment)),
    )


def noted(config: ExperimentConfig, experiment: AlignedExperiment) -> Iterator[list[str]]:
    """The seconds of each rung's stage, the last that the run noted."""
    lines = [json.loads(line) for line in experiment.folder.metrics.path.read_text(encoding="utf-8").splitlines()]
    seconds = {line["stage"]: line["seconds"] for line in lines if "seconds" in line}
    taken = {rung: seconds[rung_stage(rung)] for rung in config.aligners if rung_stage(rung) in seconds}
    for rung, value in taken.items():
        yield [rung, f"{value:.1f}"]
    yield ["together", f"{sum(taken.values()):.1f}"]


def trees(config: ExperimentConfig, experiment: AlignedExperiment) -> Iterator[list[str]]:
    """Seconds of the statistics and the tree of each rung, from the alignment of the one before."""
    for before, rung in zip(config.aligners, config.aligners[1:], strict=False):
        options: TriphoneConfig = getattr(config, rung)
        features = StoredFeatures(experiment.features(TRAIN, features_of_rung(config, before)))
        data = training_data(experiment, features, options.max_unaligned)
        phones = AlignedModel.of(read_model(experiment, before), features, data).phones
        start = time.process_time()
        statistics = tree_statistics(phones, features, data.utterances)
        summed = time.process_time()
        build_tree(statistics, data.lexicon.phones, options.tree)
        built = time.process_time()
        frames = sum(len(each.phone) for each in phones.values())
        yield [rung, f"{frames:,}", f"{summed - start:.1f}", f"{built - summed:.1f}"]


def beams(config: ExperimentConfig, experiment: AlignedExperiment) -> Iterator[list[str]]:
    """Utterances that another path is found for in a search of all, and the time of the beam's, for each rung."""
    for rung in config.aligners:
        options: TriphoneConfig | MonophoneConfig = config.monophone if rung == "mono" else getattr(config, rung)
        features = StoredFeatures(experiment.features(TRAIN, features_of_rung(config, rung)))
        data = training_data(experiment, features, options.max_unaligned)
        model = read_model(experiment, rung)
        some = data.utterances[:: max(1, len(data.utterances) // ALIGNED)]
        graphs = transcript_graphs(some, data.transcripts, data.lexicon, model.topology)
        seconds, different = {BEAM: 0.0, math.inf: 0.0}, 0
        for utterance in some:
            scores = model.gmm.log_likelihoods(features.of([utterance])).numpy()
            paths = []
            for beam in seconds:
                start = time.process_time()
                paths.append(best_path(graphs[utterance.id], scores, beam))
                seconds[beam] += time.process_time() - start
            near, every = paths
            different += near is None or every is None or not np.array_equal(near.states, every.states)
        yield [rung, str(len(some)), str(different), f"{seconds[BEAM] / seconds[math.inf]:.2f}"]


def graphs(config: ExperimentConfig, experiment: AlignedExperiment) -> Iterator[list[str]]:
    """Seconds and peak memory of building each graph of the recipe's language model."""
    context = multiprocessing.get_context("spawn")
    for states, order in graphs_of(passes_of(config).values()):
        if order is None:
            with context.Pool(1) as pool:
                seconds, peak = pool.apply(build, (str(experiment.folder.folder), states, config.transition_scale))
            yield [states or experiment.alignment, f"{seconds:.1f}", f"{peak / GIGABYTE:.2f}"]


def build(path: str, states: str | None, transition_scale: float) -> tuple[float, float]:
    """Build a graph in a folder that is then removed; returns processor seconds and the process's peak of memory."""
    _, experiment = read_experiment(Path(path))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        arpa = experiment.lang() / ARPA_FILE
        build_graph(experiment.lexicon, arpa, experiment.at(states).topology, Path(folder), transition_scale)
    seconds = time.process_time() - start
    # getrusage would count the peak of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
    return seconds, 1024.0 * int(peak)


def first_passes(config: ExperimentConfig, experiment: AlignedExperiment) -> Iterator[list[str]]:
    """Real-time factors of the unadapted passes over the first test set, with the searches that were tuned."""
    split = config.test_sets[0]
    for plan in passes_of(config).values():
        if plan.adaptation is not None or plan.output is not None:
            continue  # an output is of the same scores and search as its pass
        own = experiment.at(plan.states)
        loop: TwoPass = two_pass(own, split, plan)
        seconds = loop.features.frames / frames_of(1.0)
        start = time.process_time()
        scores = list(loop.first_pass())
        scoring = time.process_time() - start
        with SearchPool(own.graph(split), 1) as pool:
            # The worker starts with the first utterance.
            list(pool.search_all(scores[:1], tuned_search(own, plan)))
            start = time.perf_counter()
            list(pool.search_all(scores, tuned_search(own, plan)))
            searching = time.perf_counter() - start
        yield [plan.name, f"{seconds / 60:.1f}", f"{scoring / seconds:.4f}", f"{searching / seconds:.4f}"]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "exp/an4"))
