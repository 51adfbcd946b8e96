"""How well the verdict tells whom adaptation hurts: kept unadapted, rightly or not, and what that costs.

    python benchmarks/verdict.py PASS EXPERIMENT ...

PASS adapts each half of a speaker's recordings on the other (``data: {mode: one_shot}``), as the verdict does. The
experiments are finished ones, such as the folds of a cross-validation; their speakers are counted together. A pass that
learns another network's words is judged by how like these its words are, any other by how stable its own are, as in
``recognizer/verdict.py``. Each rule is tried: nobody is kept, those with more words in doubt (the rule of ``adapt``),
and those with as many too. The references tell who is hurt, and are used for nothing else.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from timing import show

from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSummary
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.pipeline.earlier_pass import scores_of, tuned_search, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.pass_config import first_pass
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass
from lhuc_asr.recognizer.verdict import ROUNDING, verdict_of
from lhuc_asr.score.wer import score

RULES: dict[str, Callable[[float], bool]] = {
    "nobody": lambda doubt: False,
    "more words in doubt": lambda doubt: doubt > ROUNDING,
    "as many or more": lambda doubt: doubt > -ROUNDING,
}


def main(name: str, folders: list[Path]) -> None:
    """Print the table of a pass, a split after the other."""
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    before: dict[str, int] = defaultdict(int)
    for folder in folders:
        config, experiment = read_experiment(folder)
        passes = passes_of(config)
        for split in config.test_sets:
            for errors, change, doubt in judged(experiment, split, passes[name], passes, config.lattice):
                before[split] += errors
                changes[split].append((doubt, change))
    for split, theirs in changes.items():
        rows: list[list[object]] = []
        for rule, keeps in RULES.items():
            kept = [change for doubt, change in theirs if keeps(doubt)]
            adapted = [change for doubt, change in theirs if not keeps(doubt)]
            rows.append(
                [rule, len(kept), counts(kept), sum(adapted), counts(adapted), sum(each > 1 for each in adapted)]
            )
        show(
            f"{split}, {name}: {len(theirs)} speakers, {before[split]} errors unadapted",
            ["kept unadapted", "speakers", "would gain/lose/equal", "change of errors", "gain/lose/equal", "lose > 1"],
            rows,
        )


def judged(
    experiment: AlignedExperiment, split: str, plan: Pass, passes: Mapping[str, Pass], options: LatticeConfig
) -> Iterator[tuple[int, int, float]]:
    """Each speaker's errors unadapted, their change by adaptation, and that of the words in doubt."""
    source = plan.adaptation.source if isinstance(plan.adaptation, Adaptation) else plan
    unadapted = passes[first_pass(plan.network)]
    without, adapted = (lattices(experiment, split, each, options) for each in (unadapted, plan))
    learned = None
    if source.network != plan.network:
        learned = {name: each.hypothesis.words for name, each in lattices(experiment, split, source, options).items()}
    utterances = defaultdict(list)
    for utterance in experiment.utterances(split):
        utterances[utterance.speaker].append(utterance)
    for own in utterances.values():
        references = {each.id: each.text for each in own}
        speakers = {each.id: each.speaker for each in own}
        before, after = (
            score(references, {name: summaries[name].hypothesis.text for name in references}, speakers).errors
            for summaries in (without, adapted)
        )
        verdict = verdict_of([(without[name], adapted[name]) for name in references], learned)
        yield before, after - before, verdict.after - verdict.before


def lattices(
    experiment: AlignedExperiment, split: str, plan: Pass, options: LatticeConfig
) -> dict[str, LatticeSummary]:
    """The lattices of a finished pass, by utterance."""
    loop = two_pass(experiment, split, plan)
    with SearchPool(experiment.at(plan.states).graph(split), 0) as pool:
        scores = scores_of(experiment, split, plan, loop)
        summaries = pool.lattices_all(scores, tuned_search(experiment, plan), options)
        return {each.hypothesis.utterance: each for each in summaries}


def counts(changes: list[int]) -> str:
    """How many have fewer errors, more, and as many."""
    fewer, more = sum(each < 0 for each in changes), sum(each > 0 for each in changes)
    return f"{fewer}/{more}/{len(changes) - fewer - more}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="PASS")
    parser.add_argument("experiments", nargs="+", type=Path, metavar="EXPERIMENT")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(arguments.name, arguments.experiments)
