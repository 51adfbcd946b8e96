"""Real-time factor of lattice search against the plain search, on one core. Aim: at most twice the plain one.

    python benchmarks/lattice.py [EXPERIMENT]        # exp/an4 unless given

Takes about a minute of an experiment's held-out speakers, with the search that was tuned on them. ``posteriors`` is the
lattice search with all that a pass needs: forward-backward, frames, confidences. kaldi-decoder's LatticeSimpleDecoder
has the same beams and runs on speech only, because it bounds neither states nor arcs. Flat scores are ten seconds of
noise with deviation 1, like the scores of an untrained network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import kaldi_decoder
import numpy as np
from timing import Turns, show

from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.units import frames_of
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.search import SearchConfig, Searcher
from lhuc_asr.features.store import FeatureStore
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.nnet.scoring import score_utterance
from lhuc_asr.pipeline.earlier_pass import SEARCH_FILE
from lhuc_asr.pipeline.pass_config import SI

SPEECH_SECONDS, FLAT_SECONDS = 60.0, 10.0
FRAMES_A_SECOND = frames_of(1.0)

Scores = dict[str, np.ndarray]


def main(path: Path) -> None:
    """Measure an experiment whose first pass over the held-out speakers is finished."""
    folder = ExperimentFolder(path)
    tuned = folder.decode(HELDOUT, SI) / SEARCH_FILE
    if not tuned.exists():
        sys.exit(
            f"{tuned}: no such file; run a recipe first, or name another experiment: benchmarks/lattice.py exp/demo"
        )
    graph, config, lattice = (
        DecodingGraph.load(folder.lang),
        SearchConfig(**read_json(tuned)["chosen"]),
        LatticeConfig(),
    )
    plain, rich = Searcher(graph, config), LatticeSearcher(graph, config, lattice)
    spoken = some_speech(folder)
    noise = np.random.default_rng(1).standard_normal((frames_of(FLAT_SECONDS), graph.pdf_count), np.float32)
    rows = []
    for name, scores in (("speech", spoken), ("flat", {"flat": noise})):
        searches = {
            "plain": partial(each, plain.search, scores),
            "lattice": partial(each, rich.search, scores),
            "posteriors": partial(each, rich.summarise, scores),
        }
        if name == "speech":
            searches["kaldi"] = partial(kaldi_lattices, graph, config, lattice, scores)
        turns = Turns(searches, seconds=30.0)
        lattices = [rich.search(utterance, matrix) for utterance, matrix in scores.items()]
        same = sum(
            plain.search(utterance, matrix).words == rich.summarise(utterance, matrix).hypothesis.words
            for utterance, matrix in scores.items()
        )
        frames = sum(len(matrix) for matrix in scores.values())
        for search in searches:
            factor = turns.of(search).median / (frames / FRAMES_A_SECOND)
            rows.append([f"{name}: {search}", f"{factor:.4f}", turns.ratio(search, "plain")])
        arcs = sum(len(one.source) for one in lattices) / frames
        rows.append(
            [f"{name}: {arcs:.0f} arcs a frame, narrowest beam {min(one.beam for one in lattices):.2g}", "", ""]
        )
        rows.append([f"{name}: same words as the plain search in {same} of {len(scores)}", "", ""])
    show(f"{path}: {graph.states} states, {config}", ["search", "of real time", "over plain [quartiles]"], rows)


def some_speech(folder: ExperimentFolder) -> Scores:
    """Log-likelihoods of held-out utterances, evenly chosen."""
    model, store = load_model(folder.network(SI)), FeatureStore(folder.features(HELDOUT))
    frames = sum(utterance.frames for utterance in store.utterances)
    step = max(1, round(frames / frames_of(SPEECH_SECONDS)))
    return {utterance.id: score_utterance(model, store[utterance.id]) for utterance in store.utterances[::step]}


def each(search: Callable[[str, np.ndarray], object], scores: Scores) -> None:
    """Search every utterance."""
    for utterance, matrix in scores.items():
        search(utterance, matrix)


def kaldi_lattices(graph: DecodingGraph, config: SearchConfig, lattice: LatticeConfig, scores: Scores) -> None:
    """The same lattices by kaldi-decoder."""
    options = kaldi_decoder.LatticeSimpleDecoderConfig(beam=config.beam, lattice_beam=lattice.beam)
    for matrix in scores.values():
        scaled = np.ascontiguousarray(matrix[:, graph.label_pdf] * np.float32(config.acoustic_scale), np.float32)
        decoder = kaldi_decoder.LatticeSimpleDecoder(graph.fst(config.insertion_penalty), options)
        decoder.decode(kaldi_decoder.DecodableCtc(scaled))
        decoder.get_raw_lattice()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "exp/an4"))
