"""Alignment on one core: times real time (aim: over 200), and against the compiled kernel alone.

``align`` adds a thread pool, checks, and the pdfs of the path to the kernel. ``transcript_graph`` is the cost of a new
transcript. The frames' scores, which are the acoustic model's work, are not counted.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle, islice

import numpy as np
from timing import Turns, show

from lhuc_asr.base.units import frames_of
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.transcript import StateGraph, transcript_graph
from lhuc_asr.hmm.viterbi import BEAM, _viterbi, align
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import SILENCE, PhoneSet

AIM = 200
# Name, seconds and words of an utterance, utterances.
CASES = (("AN4", 3.0, 8, 50), ("LibriSpeech", 14.0, 35, 10))
PHONES, WORDS = 39, 200


def main() -> None:
    """Measure with random words and scores; every word has two pronunciations of three to seven phones."""
    generator = np.random.default_rng(1)
    phones = PhoneSet((SILENCE,), tuple(f"P{number:02d}" for number in range(PHONES)))
    lexicon = Lexicon(
        {
            f"w{number}": tuple(
                tuple(generator.choice(phones.speech, length)) for length in generator.integers(3, 8, size=2)
            )
            for number in range(WORDS)
        },
        phones,
    )
    topology = MonophoneTopology.initial(phones)
    rows = []
    for name, seconds, length, count in CASES:
        words = cycle(generator.permutation(lexicon.words).tolist())
        transcripts = [tuple(islice(words, length)) for _ in range(count)]
        graphs = [transcript_graph(transcript, lexicon, topology) for transcript in transcripts]
        shape = (frames_of(seconds), topology.pdf_count)
        scores = [generator.standard_normal(shape, dtype=np.float32) for _ in range(count)]
        turns = Turns(
            {
                "align": partial(align, graphs, scores),
                "kernel": partial(kernel, graphs, scores),
                "graphs": partial(build_graphs, transcripts, lexicon, topology),
            }
        )
        real_time = [f"{seconds * count / turns.of(part).median:.0f}" for part in turns.seconds]
        rows.append([f"{name}: {seconds:g} s, {length} words", *real_time, turns.ratio("align", "kernel")])
    show(
        f"Viterbi with {topology.pdf_count} pdfs on one core, times real time (aim: over {AIM})",
        ["utterances", "align", "kernel", "transcript_graph", "align over kernel [quartiles]"],
        rows,
    )


def kernel(graphs: list[StateGraph], scores: list[np.ndarray]) -> None:
    """The compiled recursion alone."""
    for graph, frames in zip(graphs, scores, strict=True):
        arrays = graph.pdf, graph.start, graph.end, graph.arc_first, graph.arc_source, graph.arc_log_prob
        _viterbi(frames, *arrays, BEAM)


def build_graphs(transcripts: list[tuple[str, ...]], lexicon: Lexicon, topology: MonophoneTopology) -> None:
    """The graph of every utterance."""
    for transcript in transcripts:
        transcript_graph(transcript, lexicon, topology)


if __name__ == "__main__":
    main()
